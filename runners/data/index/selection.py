"""Selection of a subset by size and quality, in a few passes over the columns of an index.

Memory holds one bit per row, and the rows that tie at the end of the subset. A pass skips parts of the index
that their histograms rule out. The selection is identical on every machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgets.quality import NAMED, count_available, score_of_quality
from runners.data.index.parts import (
    HASH_DIGITS,
    RANK_DIGITS,
    UNSCORED,
    Histogram,
    Index,
    hash_digits,
    histogram_of_hashes,
    ranks,
    score_of_rank,
)
from runners.data.index.subset import Subset, subset_of, whole

SCORE_PREFIX = "score:"
"""Prefix of a column ``score:NAME`` of the index: the scores given by NAME."""

SUBSET_PREFIX = "in:"
"""Prefix of a boolean column ``in:NAME`` of the index: the pairs in the named subset NAME."""

BINS = 10

_LOW = np.uint32(RANK_DIGITS - 1)


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
    is_named = quality.startswith(NAMED)
    if is_named:
        named = SUBSET_PREFIX + quality.removeprefix(NAMED)
        if named not in index.columns:
            raise ValueError(f"the pool has no named subset for quality '{quality}'")
        found = subset_of((np.asarray(each, np.bool_) for each in index.chunks(named)), index.count)
        kept = len(found)
    else:
        found, kept = whole(index.count), count_available(index.count, quality)
    if size is not None and not 1 <= size <= kept:
        raise ValueError(
            f"{size:,} pairs of quality '{quality}' requested, but "
            f"the pool has {kept:,} of that quality, {index.count:,} in all"
        )
    if not is_named and quality != "all":
        found = _best(index, kept, quality)
    return found if size is None or size == kept else _lowest(index, found, size)


def _best(index: Index, kept: int, quality: str) -> Subset:
    name = score_of_quality(quality)
    column = SCORE_PREFIX + name if name else "score"
    (border,) = borders(index, column, [kept])
    if border.rank == UNSCORED:
        scored = count_scored(index, column)
        raise ValueError(
            f"quality '{quality}' needs scores, but {scored:,} of the pool's {index.count:,} pairs have one; "
            "score the pool, or use quality 'all'"
        )
    return subset_of(_better(index, column, border), index.count)


def count_scored(index: Index, column: str) -> int:
    """Count the pairs that have a score."""
    unscored = 0
    for part in index.parts:
        digits, counts = index.score_histogram(part, column)
        unscored += int(counts[digits == RANK_DIGITS - 1].sum())
    return index.count - unscored


@dataclass(frozen=True, kw_only=True, slots=True)
class Border:
    """The last pair of the best N of an index, in the order of score, hash and row."""

    rank: np.uint32
    hash: int = 0
    row: int = 0
    all_ties: bool = True  # all pairs with this score are among the best N; hash and row then do not count

    def inside(
        self, rank: NDArray[np.uint32], start: int, hashes: Callable[[], NDArray[Any]]
    ) -> NDArray[np.bool_]:
        """Return for each row from ``start`` on whether it is among the best N."""
        if self.all_ties:
            return rank <= self.rank
        found = rank < self.rank
        tied = np.flatnonzero(rank == self.rank)
        if len(tied):
            mine = hashes()[tied]
            found[tied] = (mine < np.uint64(self.hash)) | (
                (mine == np.uint64(self.hash)) & (tied + start <= self.row)
            )
        return found


def borders(index: Index, column: str, numbers: list[int]) -> list[Border]:
    """Return the last of the best N pairs for each of several N (1 to the number of pairs)."""
    histograms = [index.score_histogram(part, column) for part in index.parts]
    found = []
    for value, left, ties in _ranks_of(index, column, numbers, histograms):
        if value == UNSCORED or left == ties:
            found.append(Border(rank=value))
            continue
        holding = [value >> np.uint32(16) in digits for digits, _ in histograms]
        found.append(_among_ties(index, column, value, left, holding))
    return found


def nth_values(index: Index, column: str, numbers: list[int]) -> list[float]:
    """Return the N-th highest value of a column of numbers for each of several N, to 24 bits."""
    histograms = [index.score_histogram(part, column) for part in index.parts]
    return [float(score_of_rank(value)) for value, _, _ in _ranks_of(index, column, numbers, histograms)]


def _ranks_of(
    index: Index, column: str, numbers: list[int], histograms: list[Histogram]
) -> Iterator[tuple[np.uint32, int, int]]:
    """Yield the rank of the N-th best, its number among those of that rank, and how many these are.

    A radix selection: the histograms give the upper 16 bits of each rank; one pass over the parts that have
    such pairs gives the lower 16 bits.
    """
    total = np.zeros(RANK_DIGITS, np.int64)
    for digits, counts in histograms:
        total[digits] += counts
    high = [_digit(total, number) for number in numbers]
    wanted = np.unique([digit for digit, _ in high])
    low = {int(digit): np.zeros(RANK_DIGITS, np.int64) for digit in wanted}
    for part, (digits, _) in zip(index.parts, histograms, strict=True):
        if (some := np.intersect1d(digits, wanted)).size:
            rank = ranks(index.read(part, column))
            for digit in some:
                mine = rank[rank >> np.uint32(16) == digit] & _LOW
                low[int(digit)] += np.bincount(mine, minlength=RANK_DIGITS)
    for digit, left in high:
        lowest, ties_left = _digit(low[digit], left)
        yield np.uint32(digit << 16 | lowest), ties_left, int(low[digit][lowest])


def _digit(counts: NDArray[np.int64], number: int) -> tuple[int, int]:
    """Return the bucket that holds the N-th value (from 1), and its number within the bucket."""
    ends = np.cumsum(counts)
    digit = int(np.searchsorted(ends, number))
    return digit, number - int(ends[digit] - counts[digit])


def _among_ties(index: Index, column: str, rank: np.uint32, number: int, holding: list[bool]) -> Border:
    """Return the border that is the N-th of the pairs with one score, by hash and row."""

    def tied() -> Iterator[tuple[int, NDArray[np.int64], NDArray[Any]]]:
        for part, start, some in zip(index.parts, index.starts[:-1].tolist(), holding, strict=True):
            rows = np.flatnonzero(ranks(index.read(part, column)) == rank) if some else np.empty(0, np.int64)
            if len(rows):
                yield start, rows, index.read(part, "hash")[rows]

    content, row = _nth_hash(tied, number)
    return Border(rank=rank, hash=content, row=row, all_ties=False)


_Hashes = Callable[[], Iterator[tuple[int, NDArray[np.int64], NDArray[Any]]]]
"""Yields some rows of the index by part: the part's first row, rows within the part, and their hashes."""


def _nth_hash(chosen: _Hashes, number: int, counts: NDArray[np.int64] | None = None) -> tuple[int, int]:
    """Return hash and row of the N-th of some rows, by hash and row; ``counts`` is their histogram."""
    if counts is None:
        counts = np.zeros(HASH_DIGITS, np.int64)
        for _, _, hashes in chosen():
            counts += histogram_of_hashes(hashes)
    digit, number = _digit(counts, number)
    rows, few = [], []
    for start, inside, hashes in chosen():
        mine = hash_digits(hashes) == digit
        rows.append(start + inside[mine])
        few.append(hashes[mine])
    joined = np.concatenate(few)
    place = np.argsort(joined, kind="stable")[number - 1]
    return int(joined[place]), int(np.concatenate(rows)[place])


def _better(index: Index, column: str, border: Border) -> Iterator[NDArray[np.bool_]]:
    """Yield for each pair whether it is among the best, part by part."""
    high = int(border.rank) >> 16
    for part, start in zip(index.parts, index.starts[:-1].tolist(), strict=True):
        digits, _ = index.score_histogram(part, column) if part.scores else (np.array([high]), None)
        if digits[-1] < high or digits[0] > high:
            yield np.full(part.rows, digits[-1] < high)
            continue
        yield border.inside(ranks(index.read(part, column)), start, partial(index.read, part, "hash"))


def _lowest(index: Index, chosen: Subset, size: int) -> Subset:
    """Return the pairs of a subset with the lowest hashes."""
    bounds = list(zip(index.parts, index.starts[:-1].tolist(), index.starts[1:].tolist(), strict=True))

    def hashes() -> Iterator[tuple[int, NDArray[np.int64], NDArray[Any]]]:
        for part, start, stop in bounds:
            if chosen.has(start, stop) is not False:
                inside = np.flatnonzero(chosen.mask(start, stop))
                yield start, inside, index.read(part, "hash")[inside]

    counts = np.zeros(HASH_DIGITS, np.int64)
    for part, start, stop in bounds:
        has = chosen.has(start, stop)
        if has:
            counts += index.hash_histogram(part)
        elif has is None:
            mine = index.read(part, "hash")[chosen.mask(start, stop)]
            counts += histogram_of_hashes(mine)
    content, row = _nth_hash(hashes, size, counts)
    last = np.uint64(content)

    def masks() -> Iterator[NDArray[np.bool_]]:
        for part, start, stop in bounds:
            mask = chosen.mask(start, stop)
            if chosen.has(start, stop) is not False:
                mine = index.read(part, "hash")
                mask &= mine <= last
                (tied,) = np.nonzero(mine == last)
                mask[tied[tied + start > row]] = False
            yield mask

    return subset_of(masks(), index.count)


def tenths(index: Index, column: str) -> list[Border]:
    """Return the last pair of each tenth but the last, best first."""
    ends = [-(-tenth * index.count // BINS) for tenth in range(1, BINS)]
    return borders(index, column, ends)


def bins(index: Index, column: str) -> Iterator[NDArray[np.int8]]:
    """Yield each pair's tenth, part by part: ``10 r // n`` for rank ``r`` (from 0) of ``n``; -1 unscored."""
    ends = tenths(index, column)
    for part, start in zip(index.parts, index.starts[:-1].tolist(), strict=True):
        rank = ranks(index.read(part, column))
        found = np.zeros(len(rank), np.int8)
        for end in ends:
            found += ~end.inside(rank, start, partial(index.read, part, "hash"))
        found[rank == UNSCORED] = -1
        yield found


def bins_of(score: NDArray[np.float32], content: NDArray[np.uint64]) -> NDArray[np.int8]:
    """Return deciles by rank: rank ``r`` (from 0) of ``n`` is in bin ``10 r // n``; -1 without a score.

    `bins` does the same for an index of any size.
    """
    bins = np.empty(len(score), np.int8)
    # From the best score to the worst, ties by hash; rows without a score (NaN) last.
    order = np.lexsort((content, np.where(np.isnan(score), np.inf, -score)))
    bins[order] = np.arange(len(score)) * BINS // max(len(score), 1)
    bins[np.isnan(score)] = -1
    return bins
