"""The order in which a trial sees its samples: a pure function of the seed and the position."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Keeps the order's random numbers apart from any other use of the same seed.
_STREAM = 0x0DDE5


def positions(*, seed: int, count: int, start: int, stop: int) -> NDArray[np.int64]:
    """Which row of the subset stands at each position of training.

    Every epoch, ``count`` positions long, is a permutation of its own from (seed, epoch). A position's row is
    the same however training is cut into batches, workers and resumed runs.

    Args:
        seed: The trial's.
        count: Rows in the subset.
        start: First position, counted in samples from the start of training.
        stop: One after the last position.

    Returns:
        int64 (stop - start,), each in [0, count).
    """
    assert count > 0
    assert 0 <= start <= stop
    parts = [np.empty(0, np.int64)]
    for epoch in range(start // count, -(-stop // count)):
        first = epoch * count
        parts.append(_permutation(seed, count, epoch)[max(start - first, 0) : stop - first])
    return np.concatenate(parts)


# A batch asks for a slice of the epoch it is in; two, for one that spans the seam.
@lru_cache(maxsize=2)
def _permutation(seed: int, count: int, epoch: int) -> NDArray[np.int64]:
    order = np.random.default_rng((_STREAM, seed, epoch)).permutation(count)
    order.setflags(write=False)
    return order
