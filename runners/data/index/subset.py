"""A subset of a pool's rows: one bit per row, and the number of the subset's rows in each block."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runners.store.cache import local_cache
from runners.store.files import new_file
from runners.store.location import Location, until_reached

BLOCK = 65_536
"""Rows of a block, so that a row within it takes 16 bits."""

_BLOCKS_KEPT = 256


class Subset:
    """Rows of a pool, ascending.

    ``counts`` has the number of the subset's rows in each block, (blocks,); ``bits`` the rows of each block,
    uint8 (blocks, 8192), zero behind the last row of the pool.
    """

    def __init__(self, counts: NDArray[np.int64], bits: NDArray[np.uint8]) -> None:
        self._counts, self._bits = counts, bits
        self._starts = np.cumsum([0, *counts])
        self._kept_block = lru_cache(maxsize=_BLOCKS_KEPT)(self._rows_inside)

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._starts[-1])

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the pool at some places of the subset, int64, in their order."""
        blocks = np.searchsorted(self._starts, places, "right") - 1
        found = blocks * BLOCK
        order = np.argsort(blocks, kind="stable")
        needed, firsts = np.unique(blocks[order], return_index=True)
        for block, mine in zip(needed.tolist(), np.split(order, firsts[1:]), strict=False):
            found[mine] += self._kept_block(block)[places[mine] - self._starts[block]]
        return found

    def rows(self) -> NDArray[np.int64]:
        """Return all rows, int64 (rows,): eight bytes each, and meanwhile one for each row of the pool."""
        return np.flatnonzero(np.unpackbits(self._bits))

    def mask(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Return for each row of the pool from ``start`` to ``stop`` whether it is in the subset."""
        first = start // 8
        bits = np.unpackbits(self._bits.reshape(-1)[first : -(-stop // 8)])
        return bits[start - 8 * first : stop - 8 * first].astype(np.bool_)

    def save(self, path: Path) -> None:
        """Write the subset to a file."""
        with new_file(path) as new, new.open("wb") as file:
            self._counts.tofile(file)
            self._bits.tofile(file)

    @classmethod
    def load(cls, path: Path, total: int) -> "Subset":
        """Open a file of `save`, given the rows of the pool.

        The bits stay there, in the system's cache for all processes. A file that was cut short is a
        ValueError.
        """
        content, blocks = np.memmap(path, np.uint8, "r"), -(-total // BLOCK)
        if len(content) != _bytes_of(total):
            raise ValueError(f"{path} was cut short")
        return cls(np.array(content[: 8 * blocks]).view(np.int64), content[8 * blocks :].reshape(blocks, -1))

    def _rows_inside(self, block: int) -> NDArray[np.uint16]:
        return np.flatnonzero(np.unpackbits(self._bits[block])).astype(np.uint16)


def subset_of(masks: Iterable[NDArray[np.bool_]]) -> Subset:
    """Return a subset from the masks of consecutive stretches of the pool's rows, of any length."""
    packed, left = [], np.empty(0, np.bool_)
    for mask in masks:
        left = np.concatenate([left, mask])
        full = len(left) // 8 * 8
        packed.append(np.packbits(left[:full]))
        left = left[full:]
    joined = np.concatenate([*packed, np.packbits(left)])
    blocks = np.pad(joined, (0, -len(joined) % (BLOCK // 8))).reshape(-1, BLOCK // 8)
    counts = [np.count_nonzero(np.unpackbits(block)) for block in blocks]
    return Subset(np.array(counts, np.int64), blocks)


def kept_subset(
    identity: str, total: int, choose: Callable[[], Subset], shared: Location | None = None
) -> Subset:
    """Return a subset that is kept on this machine or in a shared place, or choose it and keep it in both.

    ``identity`` is everything that determines the subset, ``total`` the number of rows of the pool. Of
    several processes of a machine one chooses it, and the others wait.
    """
    name = blake2b(identity.encode(), digest_size=16).hexdigest()
    size, cache = _bytes_of(total), local_cache()

    def make(path: Path) -> None:
        if shared is not None and _is_there(shared, name, size):
            until_reached(partial(shared.get, {name: size}, path.parent))
        else:
            choose().save(path)

    try:
        path = cache.keep(f"subsets/{name}", make)
        if path.stat().st_size != size:  # cut by a power failure
            path.unlink()
            cache.keep(f"subsets/{name}", make)
    except OSError:  # the disk is full
        return choose()
    if shared is not None and not _is_there(shared, name, size):
        until_reached(partial(shared.write, name, path.read_bytes()))
    return Subset.load(path, total)


def _is_there(place: Location, name: str, size: int) -> bool:
    with suppress(FileNotFoundError):
        return until_reached(partial(place.size, name)) == size
    return False


def _bytes_of(total: int) -> int:
    return -(-total // BLOCK) * (8 + BLOCK // 8)
