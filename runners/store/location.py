"""Locations of files: a folder's path, or the URL of a folder that an fsspec protocol reads and writes.

fsspec is imported when a location is first read. The user installs the package of the protocol, such as s3fs
for s3://.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from budgets.names import without_secrets
from runners.host.faults import format_error, patiently
from runners.store.files import is_hidden, new_file

if TYPE_CHECKING:
    from runners.store.file_system import OpenedFiles

PATIENCE_S = 600.0
"""Seconds to wait for an unreachable location; a trial then ends as crashed, and is retried."""

_STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "updated", "last_modified", "mtime")
"""Names of a file's hash or time in the packages of the protocols."""

_NO_CREDENTIALS = (
    "no credentials were found; set the environment variables that the protocol's package reads "
    "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://, GOOGLE_APPLICATION_CREDENTIALS for gs://) or "
    "log in with the provider's program"
)

T = TypeVar("T")


class Location:
    """A folder, whose files have names relative to it, with ``/``; hidden ones are read by name alone.

    A plain value, opened at its first use in a process. Credentials come from the environment; messages show
    neither passwords nor secrets (`str`). Once it is open, every failure raises OSError, whatever the
    protocol's package raises: the location is unreachable, and may come back.

    Attributes:
        address: The path or URL, including credentials.
        local: The path; None for a URL.

    Raises:
        ValueError: At first use: the protocol's package is not installed, or does not take this URL.
    """

    def __init__(self, place: "str | Path | Location") -> None:
        text = place.address if isinstance(place, Location) else str(place)
        self.local = None if "://" in text else Path(text)
        self.address: str = text if self.local is not None else text.rstrip("/")
        self._base, mark, query = self.address.partition("?" if self.local is None else "\0")
        self._query = mark + query  # such as a token, which each file's URL needs
        self._opened: OpenedFiles | None = None

    def __str__(self) -> str:
        return without_secrets(self.address)

    def __truediv__(self, name: object) -> "Location":
        if self.local is not None:
            return Location(self.local / str(name))
        return Location(f"{self._base.rstrip('/')}/{name}".rstrip("/") + self._query) if str(name) else self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Location) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __reduce__(self) -> "tuple[Callable[..., Location], tuple[str]]":
        return Location, (self.address,)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.local.resolve().name if self.local is not None else PurePosixPath(self._base).name

    @property
    def copy_name(self) -> str:
        """The name of a folder with a copy of it, which no other location has."""
        return f"{self.name}-{blake2b(self.address.encode(), digest_size=4).hexdigest()}"

    def require(self) -> None:
        """Write, read and remove a file, to test the location; ValueError if one of these fails."""
        mark = f".reached-{os.urandom(8).hex()}"
        try:
            self.write(mark, b"reached")
            read_back = self.read(mark)
            self.delete([mark])
        except OSError as error:
            raise ValueError(f"storage {self} can't be used: {error}") from error
        if read_back != b"reached":
            raise ValueError(f"storage {self} can't be used: it does not give back what it was given")

    def list(self, below: str = "") -> dict[str, int]:
        """Return all files below a name that are not hidden: name relative to it → bytes."""
        return {name: size for name, (size, _) in self.objects(below).items()}

    def objects(self, below: str = "", *, some: bool = False) -> dict[str, tuple[int, str]]:
        """Return all files below a name: name relative to it → bytes, and what changes with the content.

        The latter is the file's ETag, hash or time, or nothing. With ``some``, no file at all is an OSError.
        """
        with self._doing() as at:
            at.files.invalidate_cache()
            try:
                entries = at.files.find(self._path(at, below), detail=True)
            except FileNotFoundError:
                if some:
                    raise  # there may be no such bucket
                return {}
            if some and not entries:
                with suppress(FileNotFoundError):
                    at.files.ls(at.root)  # find passes over a server that does not answer
                raise FileNotFoundError(f"no file is below this {'folder' if self.local else 'URL'}")
            prefix = f"{at.root}/{below}".rstrip("/") + "/"
            names = {path: path.removeprefix(prefix) for path in entries if path.startswith(prefix)}
            return {
                name: (
                    # A web server lists names alone.
                    int(at.files.size(path) if entries[path]["size"] is None else entries[path]["size"]),
                    next((str(entries[path][key]) for key in _STAMPS if entries[path].get(key)), ""),
                )
                for path, name in names.items()
                if not is_hidden(name)
            }

    def contents(self, what: str, *, some: bool = False) -> dict[str, tuple[int, str]]:
        """Return its files as `objects` does, for a user who named it as the place of ``what``.

        Raises:
            ValueError: It can't be read, for example because a package or credentials are missing; or,
                with ``some``, it has no file.
        """
        try:
            return self.objects(some=some)
        except (OSError, ValueError) as error:
            raise ValueError(f"{what} {self} can't be read: {error}") from error

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None if there is no such file."""
        with self._doing() as at:
            at.files.invalidate_cache()
            try:
                content: bytes = at.files.cat_file(self._path(at, name))
            except FileNotFoundError:
                return None
        return content

    def await_range(self, name: str, start: int, stop: int, patience_s: float) -> bytes:
        """Return a range of a file, fewer bytes if the file is shorter; requests that fail are repeated.

        Raises:
            FileNotFoundError: There is no such file.
            PermissionError: The location refuses.
            ValueError: The server always sends whole files.
            OSError: It is still unreachable after ``patience_s`` seconds.
        """
        final = (FileNotFoundError, PermissionError)

        def request() -> bytes:
            try:
                content = self._range(name, start, stop)
            except final:
                raise
            except OSError:
                # A range behind the end of a file is another error with each protocol.
                if self.size(name) > start:
                    raise
                content = b""
            if len(content) > stop - start:
                raise ValueError(f"{self} does not send parts of files, which reading from there needs")
            if len(content) < stop - start and self.size(name) >= stop:
                raise OSError(f"{self / name} was cut short on its way")
            return content

        return patiently(request, patience_s=patience_s, final=final)

    def _range(self, name: str, start: int, stop: int) -> bytes:
        with self._doing() as at:
            content: bytes = at.files.cat_file(self._path(at, name), start=start, end=stop)
        return content

    def size(self, name: str) -> int:
        """Return a file's bytes; FileNotFoundError if there is none."""
        return self.sizes([name])[name]

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        """Return the bytes of files by name; FileNotFoundError if one does not exist."""
        with self._doing() as at:
            at.files.invalidate_cache()
            sizes = at.files.sizes([self._path(at, name) for name in names])
            return dict(zip(names, map(int, sizes), strict=True))

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which appears complete or not at all."""
        self._pipe(name, content, mode="overwrite")

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless it exists, and return whether it was written.

        Of several simultaneous calls, one gets True, if the storage's protocol can create exclusively.
        """
        if self.read(name) is not None:
            return False
        with suppress(FileExistsError):
            self._pipe(name, content, mode="create")
            return True
        return False

    def _pipe(self, name: str, content: bytes, *, mode: str) -> None:
        with self._doing() as at:
            self._make_parent(at, name)
            at.files.pipe_file(self._path(at, name), content, mode=mode)

    def put(self, path: Path, name: str) -> None:
        """Copy a local file there."""
        with self._doing() as at:
            self._make_parent(at, name)
            at.files.put_file(str(path), self._path(at, name))

    def get(self, sizes: Mapping[str, int], folder: Path) -> None:
        """Copy files of these bytes into a local folder, each whole or not.

        A file that is missing or has another size is an OSError.
        """
        if not sizes:
            return
        for parent in {(folder / name).parent for name in sizes}:
            parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            partial = [files.enter_context(new_file(folder / name, sync=False)) for name in sizes]
            with self._doing() as at:
                at.files.invalidate_cache()
                at.files.get([self._path(at, name) for name in sizes], list(map(str, partial)))
            for path, (name, size) in zip(partial, sizes.items(), strict=True):
                if path.stat().st_size != size:
                    raise OSError(f"{self / name} was cut short on its way")

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; missing ones are ignored."""
        for name in names:
            with self._doing() as at, suppress(FileNotFoundError):
                at.files.rm_file(self._path(at, name))

    @contextmanager
    def file(self, name: str, size: int) -> Iterator[Path]:
        """Context manager: a file as a local one, a temporary copy of ``size`` bytes if it is below a URL.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The location is still unreachable after ten minutes, or the file has another size.
        """
        if self.local is not None:
            yield self.local / name
            return
        with TemporaryDirectory() as folder:
            try:
                until_reached(partial(self.get, {name: size}, Path(folder)))
            except FileNotFoundError as error:
                raise FileNotFoundError(str(self / name)) from error
            yield Path(folder) / name

    def _path(self, at: "OpenedFiles", name: str) -> str:
        return (f"{at.root}/{name}" if name else at.root) + self._query

    def _make_parent(self, at: "OpenedFiles", name: str) -> None:
        """Create the folder of a file on servers that have folders; object stores have none."""
        if not at.files.async_impl:
            at.files.makedirs(self._path(at, name).rpartition("/")[0], exist_ok=True)

    def _open(self) -> "OpenedFiles":
        # A forked process has neither the threads nor the connections of its parent.
        if self._opened is None or self._opened.process != os.getpid():
            from runners.store.file_system import open_files  # noqa: PLC0415 - fsspec; most commands need none

            self._opened = open_files(self.address, self.local)
        return self._opened

    @contextmanager
    def _doing(self) -> "Iterator[OpenedFiles]":
        opened = self._open()
        with opened.turn:
            try:
                yield opened
            except OSError:
                raise
            except Exception as error:  # each protocol's package has errors of its own
                if "Credentials" in type(error).__name__:  # botocore's and Google's
                    raise OSError(f"storage {self}: {_NO_CREDENTIALS} ({format_error(error)})") from error
                raise OSError(f"storage {self} is unreachable: {format_error(error)}") from error


def until_reached(do: Callable[[], T]) -> T:
    """Call a function, and repeat it for up to ten minutes while the location is unreachable.

    A file that does not exist is an error at once.
    """
    return patiently(do, patience_s=PATIENCE_S, final=(FileNotFoundError,))
