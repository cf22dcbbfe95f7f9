"""Bounded cache on a machine's disk, of what can be made or fetched again, shared by all its processes.

    pieces/07/1f…   pieces of remote shards, each a file named by a hash
    kept/…          files and folders with names of their own: copies of pools and evaluation sets, parts of
                    indexes, selected subsets, decoded images; beside each, ``.NAME.use`` with its bytes and
                    its last use
    counts/…        counted models (`budgets.cost.counted`)

Each is written under another name and then renamed: a killed process leaves nothing that is read. What was
unused for the longest time goes first, and nothing that a process uses. Pieces are spread over folders, each
with an equal part of what the rest leaves of the limit; a part of the writes, chosen by the hash, looks
through its folder. Hence no process lists all pieces.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from budgets.machine_cache import machine_cache
from budgets.quantity import parse_bytes
from runners.store.files import locked, new_file

CACHE_SIZE = "STUDY_CACHE_SIZE"
"""Environment variable with the largest size of a machine's cache, such as ``500 GB``."""

DEFAULT_BYTES = 100 * 10**9

_FOLDERS = 64
_SLACK = 8  # an eighth of a folder's part of the limit may be written between two looks
_OPENED_S = 60.0  # in which a file that is kept is opened
_FREE = 0.1  # share of the disk that the cache leaves free
_Facts = tuple[int, int, Path]  # last use in ns, bytes and path
_in_use: dict[Path, int] = {}  # folders that this process uses, with their locks


class Cache:
    """The cache: a folder, and the approximate limit of its size in bytes."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self.limit = folder, limit
        self._share = limit // _FOLDERS

    def has(self, name: str, size: int | None = None) -> bool:
        """Return whether a piece is there, of that size if one is given."""
        with suppress(OSError):
            return self._path(name).stat().st_size == size if size is not None else self._path(name).exists()
        return False

    def read(self, name: str, size: int, start: int, stop: int) -> bytes | None:
        """Return some bytes of a piece, and mark it as used; None if it is not there in that size."""
        try:
            file = os.open(self._path(name), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            if os.fstat(file).st_size != size:  # cut by a power failure
                return None
            os.utime(file)
            return os.pread(file, stop - start, start)
        finally:
            os.close(file)

    def write(self, name: str, content: bytes) -> bool:
        """Keep a piece, if the disk has room for it; return whether it was written."""
        if len(content) > self._share:
            return False
        path = self._path(name)
        # One write in ``every`` makes room, so that about an eighth of a folder's share is written between.
        every, written = max(1, self._share // (_SLACK * max(1, len(content)))), True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path, sync=False) as partial:
                partial.write_bytes(content)
        except FileNotFoundError:  # removed by another process that made room
            return False
        except OSError:  # the disk is full, or may not be written to: reading works without the cache
            every, written = 1, False
        # Other digits than those that choose the folder: a folder's pieces would else all look, or none.
        if int(path.name[2:10], 16) % every == 0:
            with suppress(OSError):
                self._make_room(path.parent)
        return written

    @contextmanager
    def turn(self, name: str, *, wait_s: float) -> Iterator[bool]:
        """Context manager that keeps processes and threads from making the same pieces at the same time.

        Its value is False if another one still has the turn after ``wait_s`` seconds. Where nothing can be
        written, everyone has it.
        """
        file = self._folder / "pieces" / "locks" / blake2b(name.encode(), digest_size=2).hexdigest()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError:
            yield True
            return
        with locked(file, wait_s=wait_s) as held:
            yield held is not None

    def keep(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return a file or folder of this name, which ``make`` writes, at once, if it is not there.

        Of several processes one makes it, and the others wait. A folder stays until this process and those
        that it forks have ended, a file for a minute, in which it can be opened.
        """
        path = self._folder / "kept" / name
        if path in _in_use and path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        # By number: an open file that is never closed is warned of at the end of the process.
        record = os.open(_record(path), os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            fcntl.flock(record, fcntl.LOCK_SH)
            while not path.exists():  # it may be removed between the locks
                fcntl.flock(record, fcntl.LOCK_EX)
                if not path.exists():
                    self._make(path, record, make)
                fcntl.flock(record, fcntl.LOCK_SH)
            os.utime(record)
        except BaseException:
            os.close(record)
            raise
        if path.is_dir():
            _in_use[path] = record
        else:
            os.close(record)
        return path

    def has_room(self, written: int, more: int) -> bool:
        """Return whether a file may grow by some bytes: to half of the limit, while the disk has room."""
        disk = shutil.disk_usage(self._folder)
        return written + more <= self.limit // 2 and disk.free - more >= _FREE * disk.total

    def kept(self, name: str) -> Path | None:
        """Return a file that `keep` has made, which can be opened for a minute; None if it is not there."""
        path = self._folder / "kept" / name
        with suppress(OSError):
            os.utime(_record(path))
            return path if path.exists() else None
        return None

    def _make(self, path: Path, record: int, make: Callable[[Path], object]) -> None:
        for torn in path.parent.glob(f".{path.name}.partial-*"):
            shutil.rmtree(torn) if torn.is_dir() else torn.unlink()
        path.unlink(missing_ok=True)  # a link whose target is gone
        make(path)
        files = () if path.is_symlink() else (path, *path.rglob("*"))
        os.truncate(record, 0)
        os.write(record, str(sum(file.stat().st_size for file in files)).encode())
        with suppress(OSError):
            self._make_room()

    def _make_room(self, folder: Path | None = None) -> None:
        """Remove what was unused for the longest time, from all of the cache or from a folder of pieces."""
        entries = [*self._kept(), *_files(self._folder / "counts")]
        if folder is None:
            pieces = [piece for some in (self._folder / "pieces").glob("[0-9]*") for piece in _files(some)]
            self._remove([*entries, *pieces], self.limit)
        else:
            rest = self.limit - sum(size for _, size, _ in entries)
            self._remove(_files(folder), max(0, rest) // _FOLDERS)

    def _kept(self) -> Iterator[_Facts]:
        for record in (self._folder / "kept").rglob(".*.use"):
            with suppress(FileNotFoundError, ValueError):
                size = int(record.read_text(encoding="utf-8") or 0)
                yield record.stat().st_mtime_ns, size, record.with_name(record.name[1 : -len(".use")])

    def _remove(self, candidates: Iterable[_Facts], most: int) -> None:
        """Remove files and folders that are not in use, the oldest first, down to ``most`` bytes."""
        oldest_first = sorted(candidates)
        taken = sum(size for _, size, _ in oldest_first)
        disk = shutil.disk_usage(self._folder)
        spare = disk.free - int(_FREE * disk.total)  # negative: room must be made
        allowed = min(most, taken + spare)
        for _, size, path in oldest_first:
            if taken <= allowed:
                return
            if _removed(path):
                taken -= size

    def _path(self, name: str) -> Path:
        digest = blake2b(name.encode(), digest_size=16).hexdigest()
        return self._folder / "pieces" / f"{int(digest[:2], 16) % _FOLDERS:02d}" / digest


def _files(folder: Path) -> Iterator[_Facts]:
    for entry in os.scandir(folder) if folder.exists() else ():
        with suppress(FileNotFoundError):
            facts = entry.stat()
            yield facts.st_mtime_ns, facts.st_size, Path(entry.path)


def _record(path: Path) -> Path:
    return path.with_name(f".{path.name}.use")


def _removed(path: Path) -> bool:
    """Remove a file, or a folder that no process uses; return whether it is gone."""
    if not _record(path).exists():
        path.unlink(missing_ok=True)
        return True
    with locked(_record(path), wait_s=0) as held:
        if held is None or time.time() - _record(path).stat().st_mtime < _OPENED_S:
            return False
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        held.truncate(0)  # the record stays, because others may wait for its lock
    return True


def local_cache() -> Cache:
    """Return this machine's cache; ValueError if ``STUDY_CACHE_SIZE`` is not valid."""
    limit = set_by(CACHE_SIZE, parse_bytes)
    return Cache(machine_cache(), DEFAULT_BYTES if limit is None else limit)


def set_by(variable: str, parse: Callable[[str], int]) -> int | None:
    """Return the number that an environment variable sets, or None; a ValueError names the variable."""
    text = os.environ.get(variable)
    try:
        return parse(text) if text else None
    except ValueError as error:
        raise ValueError(f"{variable}: {error}") from None
