"""Order in which a trial sees the samples of one or several pools: a function of the seed and the position.

Positions are dealt out to the pools in cycles. Each cycle has as many positions of a pool as the share of the
pool requires, in random order. The samples of a pool have an order of their own (`positions`); with a single
pool that is the whole order.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from budgets.quantity import divide_count
from runners.host.seeds import derive_seed

BLOCK = 256
"""Neighbours that a windowed shuffle keeps together until they are in memory: one long read of a shard."""

WINDOW = 128
"""Number of blocks that a windowed shuffle mixes: so many runs of neighbours share a large batch.

Neighbours in a pool of `data build` have nothing in common; in a source's own order they may. Measured on
8,192 embedded pairs in the order of their concepts, the worst case, with batches of 256, blocks of 16 and
4 to 6 seeds of 1.2 TFLOP: held-out error 91.5 %, 87.8 % and 86.5 % (standard errors .9, .6, .3) with 16, 64
and 128 blocks a window; 86.0 % (.4) in a global shuffle. In the pool's own order 16 blocks gave 85.8 % (.9).
"""

CYCLE = 4096
"""Most positions of a cycle."""

# Separate these random numbers from other uses of the same seed.
_STREAM, _WINDOWED_STREAM, _CYCLE_STREAM = 0x0DDE5, 0x0DDE6, 0x0DDE7


def positions(*, seed: int, count: int, start: int, stop: int) -> NDArray[np.int64]:
    """Return the row of the subset at each position of training, int64 (stop - start,), each in [0, count).

    Every epoch (``count`` positions) is its own permutation, derived from (seed, epoch). The row at a
    position does not depend on batches, workers or resumed runs. Positions count samples from the start of
    training. Pairs that are streamed from disk have another order (`batch_positions`).
    """
    assert count > 0
    assert 0 <= start <= stop
    parts = [
        _permutation(seed, count, epoch)[first:last] for epoch, first, last in _epochs(count, start, stop)
    ]
    return np.concatenate([np.empty(0, np.int64), *parts])


def batch_positions(*, seed: int, count: int, start: int, stop: int) -> NDArray[np.int64]:
    """Return the rows at some positions of the order of streamed pairs, arranged so that ranks share them.

    Every epoch is a permutation: blocks of 256 neighbours in random order, and all rows of 128 blocks mixed
    with each other. The first half of the result lies in the lower half of each window, and so on for any
    part: a rank, or a node, reads its part of a batch from its part of each window (`rows_of_window`).
    """
    parts = [(np.empty(0, np.int64), np.empty(0))]
    for epoch, window, inside in _windows(seed, count, start, stop):
        rows, heights = _window(seed, count, epoch, window)
        parts.append((rows[inside], heights[inside]))
    rows, heights = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    return rows[np.argsort(heights, kind="stable")]


def windows(*, seed: int, count: int, start: int, stop: int) -> list[tuple[int, int]]:
    """Return the windows of some positions, and the one that follows, as (epoch, number within it)."""
    covered = [(epoch, window) for epoch, window, _ in _windows(seed, count, start, stop)]
    epoch, window = covered[-1]
    ended = window + 1 == -(-count // (BLOCK * WINDOW))
    return [*covered, (epoch + 1, 0) if ended else (epoch, window + 1)]


def rows_of_window(
    *, seed: int, count: int, epoch: int, window: int, part: tuple[float, float] = (0.0, 1.0)
) -> NDArray[np.int64]:
    """Return the rows of the subset in a part of a window, ascending, int64 (rows,)."""
    blocks = np.sort(_blocks(seed, count, epoch)[window * WINDOW : (window + 1) * WINDOW])
    # The last block of the subset is cut at `count`.
    rows = np.concatenate([np.arange(block * BLOCK, min((block + 1) * BLOCK, count)) for block in blocks])
    return rows[math.floor(part[0] * len(rows)) : math.ceil(part[1] * len(rows))]


def _epochs(count: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield each epoch that some positions touch, with the part of it that they need."""
    for epoch in range(start // count, -(-stop // count)):
        yield epoch, max(start - epoch * count, 0), min(stop - epoch * count, count)


def _windows(seed: int, count: int, start: int, stop: int) -> Iterator[tuple[int, int, slice]]:
    """Yield the epoch and number of each window that some positions touch, and the part that they need."""
    for epoch, first, last in _epochs(count, start, stop):
        starts = _window_starts(seed, count, epoch)
        begin, end = np.searchsorted(starts, [first, last - 1], side="right") - 1
        for window in range(begin, end + 1):
            yield epoch, window, slice(max(first - starts[window], 0), last - starts[window])


# A batch needs a slice of its epoch, or of two epochs if it spans both, of each pool of a mixture.
@lru_cache(maxsize=8)
def _permutation(seed: int, count: int, epoch: int) -> NDArray[np.int64]:
    order = np.random.default_rng((_STREAM, seed, epoch)).permutation(count)
    order.setflags(write=False)
    return order


@lru_cache(maxsize=8)
def _blocks(seed: int, count: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((_WINDOWED_STREAM, seed, epoch)).permutation(-(-count // BLOCK))


@lru_cache(maxsize=8)
def _window_starts(seed: int, count: int, epoch: int) -> NDArray[np.int64]:
    """Return the position at which each window begins; the subset's last block may be short."""
    blocks = _blocks(seed, count, epoch)
    sizes = np.minimum(BLOCK, count - blocks * BLOCK)
    return (np.cumsum(sizes) - sizes)[::WINDOW]


@lru_cache(maxsize=16)
def _window(seed: int, count: int, epoch: int, window: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows of a window in random order, and the share of its rows that are below each."""
    rows = rows_of_window(seed=seed, count=count, epoch=epoch, window=window)
    places = np.random.default_rng((_WINDOWED_STREAM, seed, epoch, window)).permutation(len(rows))
    order, heights = rows[places], places / len(rows)
    for array in (order, heights):
        array.setflags(write=False)
    return order, heights


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Consecutive samples of one pool."""

    seed: int
    start: int
    stop: int
    places: NDArray[np.int64]  # among the samples of all pools, (stop - start,)


def stretches(*, seed: int, shares: Sequence[int], start: int, stop: int) -> list[Stretch]:
    """Return the samples that each pool has at the positions from ``start`` to ``stop`` of training.

    ``shares`` are the positions of each pool in every period, which is their sum. The periods are exact.
    """
    pool_shares = tuple(shares)
    # Two pools of one size have different orders.
    seeds = [seed, *(derive_seed(seed, "pool of a mixture", number) for number in range(1, len(pool_shares)))]
    if len(pool_shares) == 1:
        return [Stretch(seed=seed, start=start, stop=stop, places=np.arange(stop - start))]
    # The first cycle begins at or before ``start``: cycles begin again with each period. ``begun`` counts the
    # positions that each pool has had before ``start``, which is where it continues in its own order.
    first = start - start % sum(pool_shares) % CYCLE
    begun = _before(pool_shares, first)
    begun += np.bincount(_cycle(seed, pool_shares, first)[: start - first], minlength=len(pool_shares))
    dealt = [np.empty(0, np.intp)]
    while first < stop:
        cycle = _cycle(seed, pool_shares, first)
        dealt.append(cycle[max(start - first, 0) : stop - first])
        first += len(cycle)
    pools = np.concatenate(dealt)
    pool_places = [np.flatnonzero(pools == number) for number in range(len(pool_shares))]
    return [
        Stretch(seed=pool_seed, start=before, stop=before + len(places), places=places)
        for pool_seed, before, places in zip(seeds, begun.tolist(), pool_places, strict=True)
    ]


def _before(shares: tuple[int, ...], position: int) -> NDArray[np.int64]:
    """Count the positions of each pool before the start or the end of a cycle."""
    periods, rest = divmod(position, sum(shares))
    return np.array(
        [periods * share + part for share, part in zip(shares, divide_count(rest, shares), strict=True)],
        np.int64,
    )


@lru_cache(maxsize=16)
def _cycle(seed: int, shares: tuple[int, ...], first: int) -> NDArray[np.intp]:
    """Return the pool of each position of the cycle that begins at ``first``."""
    period = sum(shares)
    stop = min(first + CYCLE, first - first % period + period)
    counts = _before(shares, stop) - _before(shares, first)
    dealt = np.random.default_rng((_CYCLE_STREAM, seed, first)).permutation(
        np.repeat(np.arange(len(shares)), counts)
    )
    dealt.setflags(write=False)
    return dealt
