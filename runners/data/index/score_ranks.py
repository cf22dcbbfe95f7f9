"""Ranks of scores as integers, and histograms of them that add up over the parts of an index."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

UNSCORED = np.uint32(0xFFFFFFFF)
"""Rank of a pair without a score, behind all others."""

RANK_DIGITS = 1 << 16
"""Number of buckets of a histogram of scores: the upper half of a rank."""

HASH_DIGITS = 1 << 8
"""Number of buckets of a histogram of hashes: their first byte."""


def ranks(scores: NDArray[Any]) -> NDArray[np.uint32]:
    """Return scores as ranks: the best score has the lowest, NaN the highest.

    The bits of IEEE floats of one sign order like integers; inverting the bits of positive ones (with the
    sign bit set) puts them below the negative ones, in falling order.
    """
    # Adding zero turns -0.0 into 0.0.
    score = scores.astype(np.float32) + np.float32(0)
    bits = score.view(np.uint32)
    falling = np.where(bits >> 31, bits, ~(bits | np.uint32(1 << 31)))
    return np.where(np.isnan(score), UNSCORED, falling)


def score_of_rank(rank: np.uint32) -> np.float32:
    """Return the score of a rank."""
    inverted = ~np.uint32(rank)
    bits = np.uint32(rank) if rank >> np.uint32(31) else inverted & np.uint32(0x7FFFFFFF)
    return bits.view(np.float32)


def hash_digits(hashes: NDArray[Any]) -> NDArray[np.int64]:
    """Return the first byte of each hash."""
    digits: NDArray[np.int64] = (hashes >> np.uint64(56)).astype(np.int64)
    return digits


Histogram = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Histogram of scores: upper halves of the ranks that occur, ascending, and the number of pairs of each."""


def histogram_of_hashes(hashes: NDArray[Any]) -> NDArray[np.int64]:
    """Return the histogram of some hashes, int64 (256,)."""
    return np.bincount(hash_digits(hashes), minlength=HASH_DIGITS)


def histogram_of_scores(scores: NDArray[Any]) -> Histogram:
    """Return the histogram of some scores."""
    counts = np.bincount(ranks(scores) >> np.uint32(16), minlength=RANK_DIGITS)
    found = np.flatnonzero(counts)
    return found, counts[found]
