"""A subset of a pool's rows: four bytes for a block that is entirely in or out, else one bit per row."""

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from budgets.machine_cache import machine_cache
from runners.store.files import locked, new_file

BLOCK = 65_536
"""Rows of a block, so that a row within it takes 16 bits."""

_BLOCKS_KEPT, _SUBSETS_KEPT = 256, 64


class Subset:
    """Rows of a pool, ascending.

    A subset of a pool that was built here is a run of whole prefixes, one for each tenth of quality: it takes
    four bytes for each 65,536 rows of the pool. Any other takes at most one bit a row.

    ``counts`` has the number of the subset's rows in each block, (blocks,); ``bits`` the rows of each block
    that the subset has in part, uint8 (blocks in part, 8192). ``total`` is the number of rows of the pool.
    """

    def __init__(
        self, counts: NDArray[np.uint32], bits: "NDArray[np.uint8] | _StoredBits", total: int
    ) -> None:
        self.total, self._counts, self._bits = total, counts, bits
        self._starts = np.cumsum([0, *counts], dtype=np.int64)
        sizes = np.minimum(BLOCK, total - np.arange(len(counts), dtype=np.int64) * BLOCK)
        self._in_part = (counts > 0) & (counts < sizes)
        self._slots = np.cumsum(self._in_part) - 1
        self._inside = lru_cache(maxsize=_BLOCKS_KEPT)(self._rows_inside)

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._starts[-1])

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the pool at some places of the subset, int64, in their order."""
        blocks = np.searchsorted(self._starts, places, "right") - 1
        within = places - self._starts[blocks]
        found = blocks * BLOCK + within
        for block in np.unique(blocks[self._in_part[blocks]]):
            mine = blocks == block
            found[mine] = block * BLOCK + self._inside(int(block))[within[mine]]
        return found

    def rows(self) -> NDArray[np.int64]:
        """Return all rows, int64 (rows,): eight bytes each."""
        return self[np.arange(len(self))]

    def mask(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Return for each row of the pool from ``start`` to ``stop`` whether it is in the subset."""
        first = start // BLOCK
        blocks = [self._mask(block) for block in range(first, -(-stop // BLOCK))]
        joined = np.concatenate(blocks) if blocks else np.empty(0, np.bool_)
        return joined[start - first * BLOCK : stop - first * BLOCK]

    def has(self, start: int, stop: int) -> bool | None:
        """Return True if the subset has all rows from ``start`` to ``stop``, False if none, else None.

        It is also None if that depends on rows inside of the blocks at the ends.
        """
        blocks = slice(start // BLOCK, -(-stop // BLOCK))
        if not self._counts[blocks].any():
            return False
        return None if self._in_part[blocks].any() or (self._counts[blocks] == 0).any() else True

    @property
    def bytes(self) -> int:
        """Bytes of memory that it takes, without its cache of at most 32 MiB."""
        arrays = (self._counts, self._bits, self._starts, self._in_part, self._slots)
        return sum(each.nbytes for each in arrays)

    def save(self, path: Path) -> None:
        """Write the subset to a file."""
        with new_file(path, sync=False) as partial, partial.open("wb") as file:
            file.write(np.int64(self.total).tobytes() + self._counts.tobytes())
            file.writelines(self._bits[slot].tobytes() for slot in range(len(self._bits)))

    @classmethod
    def load(cls, path: Path) -> "Subset":
        """Open a file of `save`; its bits stay there, in the system's cache for all processes.

        A file that was cut short is a ValueError.
        """
        with path.open("rb") as file:
            total = int.from_bytes(file.read(8), "little")
            counts = np.frombuffer(file.read(4 * -(-total // BLOCK)), np.uint32)
        bits = _StoredBits(path, 8 + counts.nbytes)
        if len(counts) == -(-total // BLOCK):
            found = cls(counts, bits, total)
            if path.stat().st_size == 8 + counts.nbytes + np.count_nonzero(found._in_part) * (BLOCK // 8):
                return found
        raise ValueError(f"{path} was cut short")

    def _mask(self, block: int) -> NDArray[np.bool_]:
        size = min(BLOCK, self.total - block * BLOCK)
        if not self._in_part[block]:
            return np.full(size, self._counts[block] > 0)
        return np.unpackbits(self._bits[self._slots[block]])[:size].astype(bool)

    def _rows_inside(self, block: int) -> NDArray[np.uint16]:
        return np.flatnonzero(self._mask(block)).astype(np.uint16)


class _StoredBits:
    """The bits of a subset in a file; mapped, they would count as memory of each process."""

    nbytes = 0

    def __init__(self, path: Path, start: int) -> None:
        self._file, self._start = os.open(path, os.O_RDONLY), start
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        size = os.fstat(self._file).st_size - self._start
        return size // (BLOCK // 8)

    def __getitem__(self, slot: int) -> NDArray[np.uint8]:
        content = os.pread(self._file, BLOCK // 8, self._start + int(slot) * (BLOCK // 8))
        return np.frombuffer(content, np.uint8)


def whole(total: int) -> Subset:
    """Return the subset of all rows."""
    sizes = np.minimum(BLOCK, total - np.arange(-(-total // BLOCK), dtype=np.int64) * BLOCK)
    return Subset(sizes.astype(np.uint32), np.empty((0, BLOCK // 8), np.uint8), total)


def subset_of(masks: Iterable[NDArray[np.bool_]], total: int) -> Subset:
    """Return a subset from the masks of consecutive stretches of the pool's rows."""
    counts, bits = [], []
    for block in _blocks(masks):
        count = int(np.count_nonzero(block))
        counts.append(count)
        if 0 < count < len(block):
            packed = np.zeros(BLOCK // 8, np.uint8)
            packed[: -(-len(block) // 8)] = np.packbits(block)
            bits.append(packed)
    shape = (len(bits), BLOCK // 8)
    return Subset(
        np.array(counts, np.uint32),
        np.concatenate(bits).reshape(shape) if bits else np.empty(shape, np.uint8),
        total,
    )


def _blocks(masks: Iterable[NDArray[np.bool_]]) -> Iterator[NDArray[np.bool_]]:
    """Cut stretches of any length into blocks."""
    left = np.empty(0, np.bool_)
    for mask in masks:
        left = np.concatenate([left, mask])
        full = len(left) // BLOCK * BLOCK
        yield from left[:full].reshape(-1, BLOCK)
        left = left[full:]
    if len(left):
        yield left


def kept_subset(identity: str, choose: Callable[[], Subset]) -> Subset:
    """Return a subset that this machine keeps, or choose it; of several processes one chooses it.

    ``identity`` is everything that determines the subset.
    """
    folder = machine_cache() / "subsets"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / blake2b(identity.encode(), digest_size=16).hexdigest()
    with locked(file.with_name(f"{file.name}.lock")):
        with suppress(OSError, ValueError):  # there is none, or a power failure has cut it
            os.utime(file)
            return Subset.load(file)
        found = choose()
        try:
            found.save(file)
        except OSError:  # the disk is full
            return found
        _drop_unused(folder)
        return Subset.load(file)


def _drop_unused(folder: Path) -> None:
    """Remove all but the subsets that were used last."""
    files = [path for path in folder.iterdir() if path.suffix != ".lock"]
    for path in sorted(files, key=lambda each: each.stat().st_mtime_ns)[:-_SUBSETS_KEPT]:
        path.unlink(missing_ok=True)
