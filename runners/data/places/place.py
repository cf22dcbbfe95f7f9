"""Interface of the places that a pool's shards can be in, and the place in a folder."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Read = Callable[..., bytes]
"""Offset and length → bytes of a shard, fewer if it ends before; ``again=True`` bypasses any cache.

Raises FileNotFoundError if the shard is missing, and another OSError if the place is unreachable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRanges:
    """Ranges of a shard that are read together.

    Attributes:
        shard: The shard's name.
        offsets: First byte of each range, ascending, int64 (n,).
        lengths: Number of bytes of each range, int64 (n,).
    """

    shard: str
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]


class Place(Protocol):
    """The place of a pool's shards.

    Attributes:
        ahead_bytes: Bytes that may be fetched ahead; 0 where `ahead` does nothing.
    """

    ahead_bytes: int

    def path(self, shard: str) -> str:
        """Return a shard's path or URL for messages."""

    def sizes(self, shards: Sequence[str]) -> Mapping[str, int]:
        """Return the bytes of each shard; -1 if there is none, or it is not a regular file."""

    def versions(self, shards: Sequence[str]) -> list[int]:
        """Return numbers that change when a shard is replaced or repaired."""

    def ahead(self, wanted: Sequence[ShardRanges]) -> None:
        """Fetch ranges in the background, if that makes reading them faster."""

    def whole(self, shard: str) -> AbstractContextManager[Path]:
        """Context manager: a shard as a file.

        Raises:
            FileNotFoundError: There is no such shard.
        """

    def reading(self, wanted: Sequence[ShardRanges]) -> Iterator[Read]:
        """Yield a reader for each shard, valid until the next one."""


class FolderPlace:
    """Shards below a folder.

    Args:
        folder: The folder.
    """

    ahead_bytes = 0

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, shard: str) -> str:
        """Return a shard's path."""
        return str(self._folder / shard)

    def sizes(self, shards: Sequence[str]) -> Mapping[str, int]:
        """Return the bytes of each shard; -1 if there is none, or it is not a regular file."""
        folder = str(self._folder)  # a Path for each of some 100,000 shards would take most of the time
        return {shard: size_of(os.path.join(folder, shard)) for shard in shards}  # noqa: PTH118

    def versions(self, shards: Sequence[str]) -> list[int]:
        """Return the time of each shard's last change in nanoseconds; 0 if it is missing."""
        paths = [self._folder / shard for shard in shards]
        return [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]

    def ahead(self, wanted: Sequence[ShardRanges]) -> None:
        """Do nothing: the system reads files ahead."""

    def whole(self, shard: str) -> AbstractContextManager[Path]:
        """Context manager: a shard as a file."""
        return nullcontext(self._folder / shard)

    def reading(self, wanted: Sequence[ShardRanges]) -> Iterator[Read]:
        """Yield a reader for each shard, valid until the next one."""
        for each in wanted:
            file = None
            with suppress(FileNotFoundError):
                file = os.open(self._folder / each.shard, os.O_RDONLY)
            if file is None and not self._folder.exists():  # unreachable; the shard is not damaged
                raise FileNotFoundError(f"{self._folder} is unreachable")
            try:
                yield partial(_read, file)
            finally:
                if file is not None:
                    os.close(file)


def size_of(path: Path | str) -> int:
    """Return a file's bytes; -1 if there is none, or it is not a regular file."""
    try:
        facts = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return -1
    return facts.st_size if stat.S_ISREG(facts.st_mode) else -1


def _read(file: int | None, offset: int, length: int, *, again: bool = False) -> bytes:  # noqa: ARG001 - no cache
    if file is None:
        raise FileNotFoundError
    return os.pread(file, length, offset)
