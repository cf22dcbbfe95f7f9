"""Subsets of a pool's rows, and their selection by size and quality, in a few passes over an index.

A subset is one bit per row, and the number of its rows in each block. The selection needs besides the pairs
near the end of the subset, and is identical on every machine.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgets.quality import NAMED, count_available, score_of_quality
from runners.data.index.parts import Index, Part
from runners.store.cache import local_cache
from runners.store.files import new_file
from runners.store.location import Location, until_reached

BLOCK = 65_536
"""Rows of a block, so that a row within it takes 16 bits."""

_BLOCKS_KEPT = 256

SCORE_PREFIX = "score:"
"""Prefix of a column ``score:NAME`` of the index: the scores given by NAME."""

SUBSET_PREFIX = "in:"
"""Prefix of a boolean column ``in:NAME`` of the index: the pairs in the named subset NAME."""

BINS = 10

UNSCORED = np.uint32(0xFFFFFFFF)
"""Rank of a pair without a score, behind all others."""

_FEW = 1 << 18
"""Pairs that are sorted in memory."""

Keys = Callable[[Part, int], NDArray[np.uint64]]
"""The keys of a part's pairs, given its first row: a lower one comes first, among equals hash and row."""


class Subset:
    """Rows of a pool, ascending.

    ``counts`` has the number of the subset's rows in each block, (blocks,); ``bits`` the rows of each block,
    uint8 (blocks, 8192), zero behind the last row of the pool.
    """

    def __init__(self, counts: NDArray[np.int64], bits: NDArray[np.uint8]) -> None:
        self._counts, self._bits = counts, bits
        self._starts = np.cumsum([0, *counts])
        self._kept_block = lru_cache(maxsize=_BLOCKS_KEPT)(self._rows_inside)

    def __reduce__(self) -> tuple[type["Subset"], tuple[object, ...]]:
        """Pickle it without the blocks that it keeps."""
        return Subset, (self._counts, self._bits)

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._starts[-1])

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the pool at some places of the subset, int64, in their order."""
        blocks = np.searchsorted(self._starts, places, "right") - 1
        rows = blocks * BLOCK
        order = np.argsort(blocks, kind="stable")
        needed, firsts = np.unique(blocks[order], return_index=True)
        for block, mine in zip(needed.tolist(), np.split(order, firsts[1:]), strict=False):
            rows[mine] += self._kept_block(block)[places[mine] - self._starts[block]]
        return rows

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


def select(index: Index, *, size: int | None, quality: str) -> Subset:
    """Return a subset: of the best pairs by score, the ``size`` with the lowest hashes.

    Subsets are nested, so that curves compare like with like:

    - In size: at one quality, a smaller subset is part of every larger one.
    - In quality: a whole quality (``size=None``) is part of every wider one. At a given size this is
      impossible, because all have the same number of pairs; instead, every pair of the wider subset that is
      good enough for the narrower one is also in the narrower one.

    A quality is ``all``; ``topN``, the best N % by score, ties by hash (`budgets.quality`);
    ``topN by NAME``, by the score of that name; or ``subset:NAME``. Without a size it is taken whole.

    Raises:
        ValueError: The pool has fewer pairs of that quality than requested, or lacks the scores or subset.
    """
    subset = None  # all pairs
    if quality.startswith(NAMED):
        named = SUBSET_PREFIX + quality.removeprefix(NAMED)
        if named not in index.columns:
            raise ValueError(f"the pool has no named subset for quality '{quality}'")
        subset = subset_of(np.asarray(chunk, np.bool_) for chunk in index.chunks(named))
    available = count_available(index.count, quality) if subset is None else len(subset)
    if size is not None and not 1 <= size <= available:
        raise ValueError(
            f"{size:,} pairs of quality '{quality}' requested, but "
            f"the pool has {available:,} of that quality, {index.count:,} in all"
        )
    if subset is None and quality != "all":
        name = score_of_quality(quality)
        column = SCORE_PREFIX + name if name else "score"
        if available > (scored := count_scored(index, column)):
            raise ValueError(
                f"quality '{quality}' needs scores, but {scored:,} of the pool's {index.count:,} pairs have "
                "one; score the pool, or use quality 'all'"
            )
        subset = _first(index, by_score(index, column), available)
    if size is None or size == available:
        return subset_of(np.ones(part.rows, np.bool_) for part in index.parts) if subset is None else subset
    return _first(index, _by_hash(index, subset), size)


def count_scored(index: Index, column: str) -> int:
    """Count the pairs that have a score."""
    return sum(int(np.count_nonzero(~np.isnan(scores))) for scores in index.chunks(column))


def by_score(index: Index, column: str) -> Keys:
    """Return the keys of the order by score, best first; their upper half is the score's rank."""

    def keys(part: Part, _start: int) -> NDArray[np.uint64]:
        rank, hashes = ranks(index.read(part, column)), index.read(part, "hash")
        return rank.astype(np.uint64) << np.uint64(32) | hashes >> np.uint64(32)

    return keys


def _by_hash(index: Index, chosen: Subset | None) -> Keys:
    """Return the keys of the order by hash in a subset, which the other pairs follow."""

    def keys(part: Part, start: int) -> NDArray[np.uint64]:
        outside = np.zeros(part.rows, bool) if chosen is None else ~chosen.mask(start, start + part.rows)
        return outside.astype(np.uint64) << np.uint64(63) | index.read(part, "hash") >> np.uint64(1)

    return keys


def _first(index: Index, keys: Keys, number: int) -> Subset:
    """Return the first N pairs of an order."""
    (border,) = borders(index, keys, [number])
    return subset_of(border.inside(keys(part, start), start) for part, start in index.spans())


@dataclass(frozen=True, kw_only=True, slots=True)
class Border:
    """The last of the first N pairs of an order: its key, its hash, and the rows inside that have its key."""

    key: np.uint64
    hash: int
    rows: NDArray[np.int64]  # ascending

    def inside(self, keys: NDArray[np.uint64], start: int) -> NDArray[np.bool_]:
        """Return for each row from ``start`` on, given their keys, whether it is among the first N."""
        mask = keys < self.key
        first, stop = np.searchsorted(self.rows, [start, start + len(keys)])
        mask[self.rows[first:stop] - start] = True
        return mask


def borders(index: Index, keys: Keys, numbers: Sequence[int]) -> list[Border]:
    """Return the last of the first N pairs for each of several N (1 to the number of pairs).

    A radix selection: each pass over the keys finds 16 more upper bits of those of the last pairs, until few
    pairs have these bits.
    """
    prefixes = [(0, number, index.count) for number in numbers]  # upper bits; N-th of so many pairs with them
    bits = np.uint64(64)
    while bits and sum({upper: count for upper, _, count in prefixes}.values()) > _FEW:
        bits -= np.uint64(16)
        counts = {upper: np.zeros(1 << 16, np.int64) for upper, _, _ in prefixes}
        for part, start in index.spans():
            high = keys(part, start) >> bits
            for upper, total in counts.items():
                digits = high[high >> np.uint64(16) == np.uint64(upper)] & np.uint64(0xFFFF)
                total += np.bincount(digits.astype(np.int64), minlength=1 << 16)  # noqa: PLW2901 - in place
        for place, (upper, number, _) in enumerate(prefixes):
            ends = np.cumsum(counts[upper])
            digit = int(np.searchsorted(ends, number))
            count = int(counts[upper][digit])
            prefixes[place] = upper << 16 | digit, number - int(ends[digit]) + count, count
    near: dict[int, list[NDArray[Any]]] = {upper: [] for upper, _, _ in prefixes}  # keys, hashes and rows
    for part, start in index.spans():
        key = keys(part, start)
        for upper, some in near.items():
            rows = np.flatnonzero(key >> bits == np.uint64(upper))
            if len(rows):
                some.append(np.array([key[rows], index.read(part, "hash")[rows], start + rows], np.uint64))
    last = []
    for upper, number, _ in prefixes:
        candidates = np.concatenate(near[upper], axis=1)
        candidates = candidates[:, np.lexsort(candidates[::-1])[:number]]
        key, content, _ = candidates[:, -1]
        rows = np.sort(candidates[2, candidates[0] == key]).astype(np.int64)
        last.append(Border(key=key, hash=int(content), rows=rows))
    return last


def nth_values(index: Index, column: str, numbers: Sequence[int]) -> list[float]:
    """Return the N-th highest value of a column of numbers for each of several N, to 24 bits."""
    return [score_of(border) for border in borders(index, by_score(index, column), numbers)]


def tenths(index: Index, column: str) -> list[Border]:
    """Return the last pair of each tenth by score but the last, best first."""
    ends = [-(-tenth * index.count // BINS) for tenth in range(1, BINS)]
    return borders(index, by_score(index, column), ends)


def bins(index: Index, column: str) -> Iterator[NDArray[np.int8]]:
    """Yield each pair's tenth, part by part: ``10 r // n`` for rank ``r`` (from 0) of ``n``; -1 unscored."""
    ends, keys = tenths(index, column), by_score(index, column)
    for part, start in index.spans():
        key = keys(part, start)
        deciles = np.add.reduce([~end.inside(key, start) for end in ends], dtype=np.int8)
        yield np.where(key >> np.uint64(32) == UNSCORED, np.int8(-1), deciles)


def ranks(scores: NDArray[Any]) -> NDArray[np.uint32]:
    """Return scores as ranks: the best score has the lowest, NaN the highest.

    The bits of IEEE floats of one sign order like integers; inverting the bits of positive ones but for the
    sign puts them below the negative ones, in falling order.
    """
    # Adding zero turns -0.0 into 0.0.
    score = scores.astype(np.float32) + np.float32(0)
    bits = score.view(np.uint32)
    falling = np.where(bits >> 31, bits, bits ^ np.uint32(0x7FFFFFFF))
    return np.where(np.isnan(score), UNSCORED, falling)


def score_of(border: Border) -> float:
    """Return the score of the last pair of an order by score."""
    rank = np.uint32(border.key >> np.uint64(32))
    return float((rank if rank >> 31 else rank ^ np.uint32(0x7FFFFFFF)).view(np.float32))
