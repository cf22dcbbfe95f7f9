"""Order in which a trial sees the samples of several pools: a pure function of the seed and the position.

Positions are dealt out to the pools in cycles. Each cycle has as many positions of a pool as the share of the
pool requires, in random order. The samples of a pool have an order of their own (`order`); with a single pool
that is the whole order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from budgets.quantity import divide
from runners.data.reading.order import positions
from runners.host.seeds import derive_seed

CYCLE = 4096
"""Most positions of a cycle."""

# Separates these random numbers from other uses of the same seed.
_STREAM = 0x0DDE7


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Consecutive samples of one pool.

    Attributes:
        seed: Seed of the pool's order.
        start: First position in it.
        stop: One after the last position.
        places: Their positions among the samples of all pools, int64 (stop - start,).
    """

    seed: int
    start: int
    stop: int
    places: NDArray[np.int64]


def stretches(*, seed: int, shares: Sequence[int], start: int, stop: int) -> list[Stretch]:
    """Return the samples that each pool has at some positions of training.

    Args:
        seed: The trial's seed.
        shares: Positions of each pool in every period, which is their sum. The periods are exact.
        start: First position, counted in samples from the start of training.
        stop: One after the last position.
    """
    found = tuple(shares)
    # Two pools of one size have different orders.
    seeds = [seed, *(derive_seed(seed, "pool of a mixture", number) for number in range(1, len(found)))]
    if len(found) == 1:
        return [Stretch(seed=seed, start=start, stop=stop, places=np.arange(stop - start))]
    # The first cycle begins at or before ``start``: cycles begin anew with each period. ``begun`` counts the
    # positions that each pool has had before ``start``, which is where it continues in its own order.
    first = start - start % sum(found) % CYCLE
    begun = _before(found, first)
    begun += np.bincount(_cycle(seed, found, first)[: start - first], minlength=len(found))
    dealt = [np.empty(0, np.intp)]
    while first < stop:
        cycle = _cycle(seed, found, first)
        dealt.append(cycle[max(start - first, 0) : stop - first])
        first += len(cycle)
    pools = np.concatenate(dealt)
    each = [np.flatnonzero(pools == number) for number in range(len(found))]
    return [
        Stretch(seed=own, start=before, stop=before + len(places), places=places)
        for own, before, places in zip(seeds, begun.tolist(), each, strict=True)
    ]


def mixed_positions(
    *,
    seed: int,
    counts: Sequence[int],
    shares: Sequence[int],
    start: int,
    stop: int,
) -> NDArray[np.int64]:
    """Return the row at each position of training, of the rows of all pools one after another.

    The rows of each pool are shuffled as a whole.

    Args:
        seed: The trial's seed.
        counts: Rows of each pool.
        shares: As in `stretches`.
        start: As in `stretches`.
        stop: As in `stretches`.

    Returns:
        int64 (stop - start,), each in [0, sum of counts).
    """
    found, before = np.empty(stop - start, np.int64), 0
    for count, own in zip(counts, stretches(seed=seed, shares=shares, start=start, stop=stop), strict=True):
        rows = positions(seed=own.seed, count=count, start=own.start, stop=own.stop)
        found[own.places] = before + rows
        before += count
    return found


def _before(shares: tuple[int, ...], position: int) -> NDArray[np.int64]:
    """Count the positions of each pool before the start or the end of a cycle."""
    periods, rest = divmod(position, sum(shares))
    return np.array(
        [periods * share + part for share, part in zip(shares, divide(rest, shares), strict=True)], np.int64
    )


@lru_cache(maxsize=16)
def _cycle(seed: int, shares: tuple[int, ...], first: int) -> NDArray[np.intp]:
    """Return the pool of each position of the cycle that begins at ``first``."""
    period = sum(shares)
    stop = min(first + CYCLE, first - first % period + period)
    counts = _before(shares, stop) - _before(shares, first)
    dealt = np.random.default_rng((_STREAM, seed, first)).permutation(
        np.repeat(np.arange(len(shares)), counts)
    )
    dealt.setflags(write=False)
    return dealt
