"""Objects below an fsspec URL, each read and written whole; and folders that never change, such as pools.

fsspec is imported when a storage is opened. The user installs the package of the protocol, such as s3fs for
s3://.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from hashlib import blake2b
from pathlib import Path

from budgets.machine_cache import machine_cache
from budgets.names import without_password
from runners.host.faults import words_of
from runners.store.files import is_hidden, locked, new_file, new_folder

_STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "updated", "last_modified", "mtime")
"""Names of an object's hash or time in the packages of the protocols."""


_NO_CREDENTIALS = (
    "no credentials were found; set the environment variables that the protocol's package reads "
    "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://, GOOGLE_APPLICATION_CREDENTIALS for gs://) or "
    "log in with the provider's program"
)


class Location:
    """The objects below a URL, by their names relative to it. Credentials come from the environment.

    Once a storage is open, every failure raises OSError, whatever the protocol's package raises: the storage
    is unreachable, and may come back.

    Raises:
        ValueError: The protocol's package is not installed, or does not take this URL.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - most studies need none of it
        from fsspec.spec import AbstractFileSystem  # noqa: PLC0415

        self.url = without_password(url.rstrip("/"))  # for messages
        try:
            self._fs, self._root = url_to_fs(url.rstrip("/"))
        except ImportError as error:
            raise ValueError(f"storage {self.url} needs a package that is not installed: {error}") from error
        except Exception as error:  # such as a server that must answer before anything is read
            raise ValueError(f"storage {self.url} can't be opened: {words_of(error)}") from error
        # File systems that are not asynchronous inside may have a single connection.
        self._turn: AbstractContextManager[object] = (
            nullcontext() if self._fs.async_impl else threading.RLock()
        )
        # fsspec's default for mode="create" looks first and then writes, so two writers can both succeed.
        own = type(self._fs).pipe_file is not AbstractFileSystem.pipe_file
        self._creates = self._fs.async_impl or own

    def require(self) -> None:
        """Write, read and remove an object, to test the storage; ValueError if one of these fails."""
        mark = f".reached-{os.urandom(8).hex()}"
        try:
            self.write(mark, b"reached")
            found = self.read(mark)
            self.delete([mark])
        except OSError as error:
            raise ValueError(f"storage {self.url} can't be used: {error}") from error
        if found != b"reached":
            raise ValueError(f"storage {self.url} can't be used: it does not give back what it was given")

    def list(self, below: str = "") -> dict[str, int]:
        """Return all objects below a name: name relative to it → bytes."""
        return {name: size for name, (size, _) in self.objects(below).items()}

    def objects(self, below: str = "") -> dict[str, tuple[int, str]]:
        """Return all objects below a name: name relative to it → bytes, and what changes with the content.

        The latter is the object's ETag, hash or time, or nothing.
        """
        top = self._path(below)
        with self._doing():
            self._fs.invalidate_cache()
            try:
                found = self._fs.find(top, detail=True)
            except FileNotFoundError:
                return {}
        prefix = top.rstrip("/") + "/"
        with self._doing():
            return {
                name.removeprefix(prefix): (
                    # A web server lists names alone.
                    int(self._fs.size(name) if info["size"] is None else info["size"]),
                    next((str(info[key]) for key in _STAMPS if info.get(key)), ""),
                )
                for name, info in found.items()
                if name.startswith(prefix)
            }

    def why_empty(self) -> str:
        """Return why no object is below the URL, in the words of the protocol's package if it has any."""
        try:
            with self._doing():
                self._fs.find(self._root)
        except FileNotFoundError as error:
            return str(error)
        try:
            with self._doing(), suppress(FileNotFoundError):
                self._fs.ls(self._root)  # find passes over a server that does not answer
        except OSError as error:
            return str(error)
        return "no file is below this URL"

    def read(self, name: str) -> bytes | None:
        """Return an object's content, or None if there is no such object."""
        with self._doing():
            self._fs.invalidate_cache()
            try:
                content: bytes = self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None
        return content

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return some bytes of an object, fewer if it ends before.

        Raises:
            FileNotFoundError: There is no such object.
            ValueError: The server always sends whole objects.
        """
        with self._doing():
            content: bytes = self._fs.cat_file(self._path(name), start=start, end=stop)
        if len(content) > stop - start:
            raise ValueError(f"{self.url} does not send parts of files, which reading from there needs")
        return content

    def size(self, name: str) -> int:
        """Return an object's bytes; FileNotFoundError if there is none."""
        with self._doing():
            self._fs.invalidate_cache()
            return int(self._fs.size(self._path(name)))

    def age_s(self, name: str) -> float | None:
        """Return the seconds since an object was written; None if there is none, or the storage can't tell.

        The time is the storage's, now is this machine's: clocks that differ add to it.
        """
        with self._doing():
            self._fs.invalidate_cache()
            try:
                written = self._fs.modified(self._path(name))
            except (FileNotFoundError, NotImplementedError):
                return None
        return float(time.time() - written.timestamp())

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        """Return the bytes of objects by name; FileNotFoundError if one does not exist."""
        with self._doing():
            self._fs.invalidate_cache()
            return dict(zip(names, map(int, self._fs.sizes([*map(self._path, names)])), strict=True))

    def write(self, name: str, content: bytes) -> None:
        """Write an object."""
        with self._doing():
            self._make_parent(name)
            self._fs.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless it exists, and return whether it was written.

        Of several simultaneous calls, one gets True, provided that `exclusive` is true.
        """
        return self.read(name) is None and self._create(name, content)

    def exclusive(self, name: str) -> bool:
        """Return whether the storage refuses a second `create` of an object just created."""
        content = self.read(name)
        return self._creates and content is not None and not self._create(name, content)

    def _create(self, name: str, content: bytes) -> bool:
        with self._doing():
            self._make_parent(name)
            try:
                self._fs.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
        return True

    def put(self, path: Path, name: str) -> None:
        """Upload a file as an object."""
        with self._doing():
            self._make_parent(name)
            self._fs.put_file(str(path), self._path(name))

    def get(self, sizes: Mapping[str, int], below: str, folder: Path) -> None:
        """Download objects, by their names relative to ``below``, as files of these names, each whole or not.

        An object that is missing or has another size is an OSError.
        """
        if not sizes:
            return
        for each in {(folder / name).parent for name in sizes}:
            each.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            partial = [files.enter_context(new_file(folder / name, sync=False)) for name in sizes]
            with self._doing():
                self._fs.invalidate_cache()
                theirs = [self._path(f"{below}/{name}".lstrip("/")) for name in sizes]
                self._fs.get(theirs, list(map(str, partial)))
            for path, (name, size) in zip(partial, sizes.items(), strict=True):
                if path.stat().st_size != size:
                    raise OSError(f"{self.url}/{below}/{name} was cut short on its way")

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; missing ones are ignored."""
        for name in names:
            with self._doing(), suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name))

    def _make_parent(self, name: str) -> None:
        """Create the folder of an object on servers that have folders; object stores have none."""
        if not self._fs.async_impl:
            self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextmanager
    def _doing(self) -> Iterator[None]:
        with self._turn:
            try:
                yield
            except OSError:
                raise
            except Exception as error:  # each protocol's package has errors of its own
                if "Credentials" in type(error).__name__:  # botocore's and Google's
                    raise OSError(f"storage {self.url}: {_NO_CREDENTIALS} ({words_of(error)})") from error
                raise OSError(f"storage {self.url} is unreachable: {words_of(error)}") from error


def cache_folder(url: str) -> Path:
    """Return this node's folder for downloads from a storage."""
    return machine_cache() / blake2b(url.rstrip("/").encode(), digest_size=6).hexdigest()


def share_tree(storage: Location, folder: Path, name: str) -> bool:
    """Upload a folder that never changes, without hidden files; return False if the storage has it."""
    if storage.read(_list_of(name)) is not None:
        return False
    sizes = {}
    for path in sorted(folder.rglob("*")):
        each = path.relative_to(folder).as_posix()
        if path.is_file() and not is_hidden(each):
            storage.put(path, f"{name}/{each}")
            sizes[each] = path.stat().st_size
    # Written last: a folder without a list of its files does not exist.
    storage.write(_list_of(name), json.dumps(sizes).encode())
    return True


def fetch_tree(storage: Location, name: str, here: Path) -> bool:
    """Download a folder that `share_tree` uploaded into ``here``, under the same name, whole or not at all.

    Of several processes one downloads and the others wait. Returns False if the storage does not have it; a
    file that does not arrive whole is an OSError.
    """
    target = here / name
    if target.exists():
        return True
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f".{target.name}.lock")):
        for torn in target.parent.glob(f".{target.name}.partial-*"):
            shutil.rmtree(torn)
        if target.exists():
            return True
        sizes = storage.read(_list_of(name))
        if sizes is None:
            return False
        target.unlink(missing_ok=True)  # a link whose target is gone
        with new_folder(target) as folder:
            storage.get(json.loads(sizes), name, folder)
    return True


def _list_of(name: str) -> str:
    return f"{name}.files.json"
