"""Order in which a trial sees its samples: a pure function of the seed and the position."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Neighbours that a windowed shuffle keeps together until they are in memory: one long read of a shard."""

WINDOW = 16
"""Number of blocks that a windowed shuffle mixes."""

# Separate these random numbers from other uses of the same seed.
_STREAM, _WINDOWED_STREAM = 0x0DDE5, 0x0DDE6


def positions(*, seed: int, count: int, start: int, stop: int, windowed: bool = False) -> NDArray[np.int64]:
    """Return the row of the subset at each position of training.

    Every epoch (``count`` positions) is its own permutation, derived from (seed, epoch). The row at a
    position does not depend on batches, workers or resumed runs.

    Args:
        seed: The trial's seed.
        count: Rows in the subset.
        start: First position, counted in samples from the start of training.
        stop: One after the last position.
        windowed: True for the shuffle of data streamed from disk: blocks of 1,024 neighbours in random order,
            and all rows of 16 blocks mixed with each other. False to shuffle all rows.

    Returns:
        int64 (stop - start,), each in [0, count).
    """
    assert count > 0
    assert 0 <= start <= stop
    parts = [np.empty(0, np.int64)]
    # Every epoch that [start, stop) touches, with the part of it that is needed.
    for epoch in range(start // count, -(-stop // count)):
        first, last = max(start - epoch * count, 0), min(stop - epoch * count, count)
        if windowed:
            starts = _window_starts(seed, count, epoch)
            parts += [
                _window(seed, count, epoch, window)[max(first - starts[window], 0) : last - starts[window]]
                for window in _windows_of(seed, count, epoch, first, last)
            ]
        else:
            parts.append(_permutation(seed, count, epoch)[first:last])
    return np.concatenate(parts)


def windows(*, seed: int, count: int, start: int, stop: int) -> list[tuple[int, int]]:
    """Return the windows that positions ``start`` to ``stop`` lie in, and the one that follows.

    Returns:
        Epoch and number of each window within it.
    """
    found: list[tuple[int, int]] = []
    for epoch in range(start // count, -(-stop // count)):
        first, last = max(start - epoch * count, 0), min(stop - epoch * count, count)
        found += [(epoch, window) for window in _windows_of(seed, count, epoch, first, last)]
    epoch, window = found[-1]
    ended = window + 1 == -(-count // (BLOCK * WINDOW))
    return [*found, (epoch + 1, 0) if ended else (epoch, window + 1)]


def rows_of_window(*, seed: int, count: int, epoch: int, window: int) -> NDArray[np.int64]:
    """Return the rows of the subset in a window, block by block, int64 (rows,)."""
    blocks = _blocks(seed, count, epoch)[window * WINDOW : (window + 1) * WINDOW]
    # The last block of the subset is cut at `count`.
    return np.concatenate([np.arange(each * BLOCK, min((each + 1) * BLOCK, count)) for each in blocks])


# A batch needs a slice of its epoch, or of two epochs if it spans both, of each pool of a mixture.
@lru_cache(maxsize=8)
def _permutation(seed: int, count: int, epoch: int) -> NDArray[np.int64]:
    order = np.random.default_rng((_STREAM, seed, epoch)).permutation(count)
    order.setflags(write=False)
    return order


def _windows_of(seed: int, count: int, epoch: int, first: int, last: int) -> range:
    """Return the numbers of the windows that hold positions ``first`` to ``last`` of an epoch."""
    starts = _window_starts(seed, count, epoch)
    begin, end = np.searchsorted(starts, [first, last - 1], side="right") - 1
    return range(begin, end + 1)


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
def _window(seed: int, count: int, epoch: int, window: int) -> NDArray[np.int64]:
    rows = rows_of_window(seed=seed, count=count, epoch=epoch, window=window)
    order = np.random.default_rng((_WINDOWED_STREAM, seed, epoch, window)).permutation(rows)
    order.setflags(write=False)
    return order
