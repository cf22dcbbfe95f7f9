"""Whether a curve falls at all: without that, a law with a floor follows noise.

Three parameters bend to most sequences of four errors. A law is drawn only where the slope of the error over
ln x is below zero at a one-sided level of 5 %: by the draws of the study where the noise between seeds was
measured, and otherwise by permutations of the measured errors, which need no noise but four levels.
"""

from functools import cache
from itertools import permutations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from analysis.cells.bootstrap import Source, stream

Floats = NDArray[np.float64]

LEVEL = 0.05
"""Share of curves of pure noise that pass as falling."""
_PERMUTATIONS = 720
_FEWEST = 4
_SAME = 1e-9


def chance_of_no_fall(x: Floats, y: Floats, *, draws: Floats, source: Source) -> float:
    """How often the slope would be so far below zero if the error did not depend on x.

    Args:
        x: Shape (cells,).
        y: Errors as measured, shape (cells,).
        draws: Errors as they might have been, shape (draws, cells).
        source: What the draws stand for, see ``bootstrap``.

    Returns:
        The chance; NaN where nothing tells it: fewer than four levels and no measured noise.
    """
    log_x = np.log(x) - np.log(x).mean()
    if source == "runs":
        return float((draws @ log_x >= 0).mean())
    if len(np.unique(x)) < _FEWEST:
        return float("nan")
    slopes = y[_orders(len(x))] @ log_x
    return float((slopes <= slopes[0] + _SAME * np.abs(slopes).max()).mean())


@cache
def _orders(count: int) -> NDArray[np.intp]:
    """Orders of so many things, the given one first: all of them, or as many random ones."""
    if factorial(count) <= _PERMUTATIONS:
        return np.array(list(permutations(range(count))), dtype=np.intp)
    generator = stream("permutations", count)
    drawn = [np.arange(count), *(generator.permutation(count) for _ in range(_PERMUTATIONS - 1))]
    return np.stack(drawn).astype(np.intp)
