"""Bounded cache on a node's disk, of pieces of remote files or decoded images, shared by all its processes.

A piece is one file, written under another name and then renamed: a killed process leaves nothing that is
read. There is no other state, so nothing can get out of step. Pieces are spread over folders by their hash,
each with an equal part of the limit. A part of the writes, chosen by the hash as well, looks through its
folder and removes the pieces that were unused for the longest time. Hence no process lists the whole cache.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from budgets.machine_cache import machine_cache
from budgets.quantity import parse_bytes
from runners.store.files import locked, new_file

CACHE_SIZE = "STUDY_CACHE_SIZE"
"""Environment variable with the largest size of a node's cache of remote shards, such as ``500 GB``."""

EVALUATION_CACHE_SIZE = "STUDY_EVALUATION_CACHE_SIZE"
"""Environment variable with the largest size of a node's cache of decoded evaluation sets."""

DEFAULT_BYTES = 100 * 10**9

_FOLDERS = 64
_SLACK = 8  # an eighth of a folder's part of the limit may be written between two looks
_FREE = 0.1  # share of the disk that the cache leaves free


class PieceCache:
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

    def whole(self, name: str) -> bytearray | None:
        """Return a whole piece, and mark it as used; None if it is not there."""
        try:
            with self._path(name).open("rb", buffering=0) as file:
                content = bytearray(os.fstat(file.fileno()).st_size)
                file.readinto(content)
            os.utime(self._path(name))
        except OSError:
            return None
        return content

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
        file = self._folder / "locks" / blake2b(name.encode(), digest_size=2).hexdigest()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError:
            yield True
            return
        with locked(file, wait_s=wait_s) as held:
            yield held is not None

    def _make_room(self, folder: Path) -> None:
        """Remove the pieces of a folder that were unused for the longest time, down to its share."""
        found = []
        for entry in os.scandir(folder):
            with suppress(FileNotFoundError):
                facts = entry.stat()
                found.append((facts.st_mtime_ns, facts.st_size, entry.path))
        taken = sum(size for _, size, _ in found)
        disk = shutil.disk_usage(folder)
        spare = disk.free - int(_FREE * disk.total)  # negative: room must be made
        allowed = min(self._share, taken + spare)
        for _, size, path in sorted(found):
            if taken <= allowed:
                return
            with suppress(FileNotFoundError):
                Path(path).unlink()
            taken -= size

    def _path(self, name: str) -> Path:
        digest = blake2b(name.encode(), digest_size=16).hexdigest()
        return self._folder / f"{int(digest[:2], 16) % _FOLDERS:02d}" / digest


def piece_cache() -> PieceCache:
    """Return this node's cache of remote shards; ValueError if ``STUDY_CACHE_SIZE`` is not valid."""
    return _cache("shards", CACHE_SIZE)


def decoded_sets() -> PieceCache:
    """Return this node's cache of decoded evaluation sets; ValueError if its variable is not valid."""
    return _cache("evaluation", EVALUATION_CACHE_SIZE)


def _cache(folder: str, variable: str) -> PieceCache:
    limit = set_by(variable, parse_bytes)
    return PieceCache(machine_cache() / folder, DEFAULT_BYTES if limit is None else limit)


def set_by(variable: str, parse: Callable[[str], int]) -> int | None:
    """Return the number that an environment variable sets, or None; a ValueError names the variable."""
    text = os.environ.get(variable)
    try:
        return parse(text) if text else None
    except ValueError as error:
        raise ValueError(f"{variable}: {error}") from None
