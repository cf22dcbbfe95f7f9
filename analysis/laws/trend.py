"""Test of whether a curve falls: without a trend, a law with a floor would follow noise.

Three parameters fit most sequences of four errors. So a law is drawn only if the slope of the error over ln x
is below zero at a one-sided level of 5 %. If the noise between seeds was measured, the draws of the study
give that level. Otherwise permutations of the measured errors do, which need four levels but no noise.
"""

from functools import cache
from itertools import permutations
from math import factorial

import numpy as np

from analysis.arrays import Floats, Indices
from analysis.cells.bootstrap import NoiseSource, stream

LEVEL = 0.05
"""Level of the test: share of curves of pure noise that count as falling."""
_PERMUTATIONS = 720
_FEWEST = 4
_SAME = 1e-9


def chance_of_no_fall(x: Floats, y: Floats, *, draws: Floats, source: NoiseSource) -> float:
    """Return the probability of a slope this far below zero if the error did not depend on x (p-value).

    Args:
        x: Shape (cells,).
        y: Measured errors, shape (cells,).
        draws: Drawn errors, shape (draws, cells).
        source: Source of the draws, see ``bootstrap``.

    Returns:
        The p-value; NaN with fewer than four levels and no measured noise.
    """
    # With centred ln x the slope has the sign of Σ y·ln x.
    log_x = np.log(x) - np.log(x).mean()
    if source == "runs":
        return float((draws @ log_x >= 0).mean())
    if len(np.unique(x)) < _FEWEST:
        return float("nan")
    # The first permutation is the measured order, so the p-value is at least 1 / permutations.
    slopes = y[_orders(len(x))] @ log_x
    return float((slopes <= slopes[0] + _SAME * np.abs(slopes).max()).mean())


@cache
def _orders(count: int) -> Indices:
    """Return permutations of ``count`` items, the identity first: all of them, or a random sample."""
    if factorial(count) <= _PERMUTATIONS:
        return np.array(list(permutations(range(count))), dtype=np.intp)
    generator = stream("permutations", count)
    drawn = [np.arange(count), *(generator.permutation(count) for _ in range(_PERMUTATIONS - 1))]
    return np.stack(drawn).astype(np.intp)
