"""Subsets of a pool by size and quality.

Scores and hashes are read once, in chunks. Memory holds four bytes per pair for its score and eight for the
hash of each pair that is good enough, so a subset of 100 million pairs is chosen in seconds, identically on
every machine.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from budgets.quality import available, score_of_quality

SCORE_PREFIX = "score:"
"""Prefix of a column ``score:NAME`` of the index: the scores given by NAME."""

SUBSET_PREFIX = "in:"
"""Prefix of a boolean column ``in:NAME`` of the index: the pairs in the named subset NAME."""

_CHUNK_ROWS = 1_000_000
_BELOW = (1 << 48) - 1
_UNSCORED = np.uint32(0xFFFFFFFF)

_Read = Callable[[str], Iterator[NDArray[np.generic]]]
"""Name of a column → its values in chunks."""


def rows_of(index: pd.DataFrame, *, size: int | None, quality: str) -> NDArray[np.int64]:
    """Return the rows of a subset: of the best pairs by score, the ``size`` with the lowest hashes.

    Subsets are nested, so that curves compare like with like:

    - In size: at one quality, a smaller subset is part of every larger one.
    - In quality: a whole quality (``size=None``) is part of every wider one. At a given size this is
      impossible, because all have the same number of pairs; instead, every pair of the wider subset that is
      good enough for the narrower one is also in the narrower one.

    Args:
        index: A pool's index, with ``score`` and ``hash``.
        size: Number of pairs; ``None`` for all of that quality.
        quality: ``all``; ``topN``, the best N % by score (``budgets.quality.available`` pairs), ties by hash;
            ``topN by NAME``, by the score of that name; or the name of a named subset.

    Returns:
        Positions in the index, ascending, int64 (size,).

    Raises:
        ValueError: The pool has fewer pairs of that quality than requested, or lacks the scores.
    """
    return _choose(
        lambda name: iter([index[name].to_numpy()]), len(index), size, quality, _is_named(index, quality)
    )


def rows_in(path: Path, *, size: int | None, quality: str) -> NDArray[np.int64]:
    """Return ``rows_of`` for an index in a parquet file of any size."""
    file = pq.ParquetFile(path)

    def read(name: str) -> Iterator[NDArray[np.generic]]:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=[name], use_threads=False)[name].to_numpy()

    return _choose(read, file.metadata.num_rows, size, quality, _is_named(file.schema_arrow.names, quality))


def _is_named(columns: pd.DataFrame | list[str], quality: str) -> bool:
    return f"{SUBSET_PREFIX}{quality}" in columns


def _choose(
    read: _Read,
    count: int,
    size: int | None,
    quality: str,
    named: bool,  # noqa: FBT001 - private
) -> NDArray[np.int64]:
    ranks = None
    kept = available(count, "all" if named else quality)
    if named:
        ranks = np.concatenate([np.where(chunk, np.uint32(0), _UNSCORED) for chunk in read("in:" + quality)])
        kept = int(np.count_nonzero(ranks == 0))
    elif quality != "all":
        name = score_of_quality(quality)
        ranks = _ranks(read(SCORE_PREFIX + name if name else "score"), count)
    if size is not None and not 1 <= size <= kept:
        raise ValueError(
            f"{size:,} pairs of quality '{quality}' requested, but "
            f"the pool has {kept:,} of that quality, {count:,} in all"
        )
    good = np.ones(count, bool)
    tied = np.zeros(count, bool)
    if ranks is not None:
        # Rank of the worst pair that is kept; partition finds it without a full sort.
        border = np.partition(ranks, kept - 1)[kept - 1] if kept else np.uint32(0)
        if border == _UNSCORED:
            scored = int(np.count_nonzero(ranks != _UNSCORED))
            raise ValueError(
                f"quality '{quality}' needs scores, but {scored:,} of the pool's {count:,} pairs have one; "
                "score the pool, or use quality 'all'"
            )
        good, tied = ranks <= border, ranks == border
        del ranks
    hashes = _of_chosen(read("hash"), good)
    # Several pairs may tie at the border of the quality: those with the highest hashes are left out.
    excess = len(hashes) - kept
    if excess:
        at_border = np.flatnonzero(tied[good])
        out = at_border[np.argsort(hashes[at_border], kind="stable")[len(at_border) - excess :]]
        inside = np.ones(len(hashes), bool)
        inside[out] = False
        good[good] = inside
        hashes = hashes[inside]
        del inside
    if size is not None and size < kept:
        good[good] = _lowest(hashes, size)
    return np.flatnonzero(good)


def _ranks(scores: Iterator[NDArray[np.generic]], count: int) -> NDArray[np.uint32]:
    """Return scores as uint32 ranks in reverse order: the best score has the lowest, NaN the highest.

    The bits of IEEE floats of one sign order like integers; inverting the bits of positive ones (with the
    sign bit set) puts them below the negative ones, in falling order.
    """
    ranks, start = np.empty(count, np.uint32), 0
    for chunk in scores:
        # Adding zero turns -0.0 into 0.0.
        score = chunk.astype(np.float32) + np.float32(0)
        bits = score.view(np.uint32)
        falling = np.where(bits >> 31, bits, ~(bits | np.uint32(1 << 31)))
        ranks[start : start + len(chunk)] = np.where(np.isnan(score), _UNSCORED, falling)
        start += len(chunk)
    return ranks


def _of_chosen(chunks: Iterator[NDArray[np.generic]], chosen: NDArray[np.bool_]) -> NDArray[np.uint64]:
    values, start, end = np.empty(np.count_nonzero(chosen), np.uint64), 0, 0
    for chunk in chunks:
        some = chunk[chosen[start : start + len(chunk)]]
        values[end : end + len(some)] = some
        start, end = start + len(chunk), end + len(some)
    return values


def _lowest(hashes: NDArray[np.uint64], keep: int) -> NDArray[np.bool_]:
    """Return a mask of the ``keep`` lowest hashes, equal ones by position."""
    # A histogram of the first 16 bits decides all but a few hashes, without sorting a copy of all.
    counts, chunk = np.zeros(1 << 16, np.int64), _CHUNK_ROWS
    for start in range(0, len(hashes), chunk):
        first_bits = (hashes[start : start + chunk] >> np.uint64(48)).astype(np.int64)
        counts += np.bincount(first_bits, minlength=1 << 16)
    # `digit` is the bucket in which the `keep`-th lowest hash lies: lower buckets are kept whole, and only
    # this one is sorted.
    ends = np.cumsum(counts)
    digit = int(np.searchsorted(ends, keep))
    low = hashes < np.uint64(digit << 48)
    few = np.flatnonzero((hashes >= np.uint64(digit << 48)) & (hashes <= np.uint64((digit << 48) + _BELOW)))
    low[few[np.argsort(hashes[few], kind="stable")[: keep - (ends[digit] - counts[digit])]]] = True
    return low
