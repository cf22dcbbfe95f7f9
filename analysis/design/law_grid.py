"""A coarse grid of laws, each with a normal prior around it, as the belief about a curve mixes them.

The laws have the two forms of ``analysis.laws.forms``: the power law with floor and shift, and, if the error
of chance is known, the bounded law. Slope, x₀ and E deviate from the grid by about half its step, to first
order, so the grid may be coarse.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from analysis.arrays import Floats

SLOPES = np.geomspace(0.12, 1.2, 4)
"""Slopes of the power law at the middle of the grid's compute."""
STEEPNESS = np.geomspace(0.4, 2.2, 4)
"""α of the bounded law."""
# x₀ of the power law (besides 0), then of the bounded law: its range as multiples of the smallest and of the
# largest x, and the largest factor between neighbouring values.
_SHIFTED, _SHIFTS = (1.0, 1 / 6), 4.2
_MIDDLES, _MIDPOINTS = (1 / 20, 1.0), 5.0
FLOORS = (0.15, 0.4, 0.65)
"""Values of E."""
_HEIGHT = (0.35, 0.30)  # mean and standard deviation of the prior of A
_STEP_FLOOR, _STEP_SLOPE, _STEP_SHIFT = 0.13, 1.4, 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LawGrid:
    """Laws of every form, slope, x₀ and E of the grid, and their derivatives times prior standard deviations.

    Attributes:
        middle: Prior mean of the law, shape (shapes, curves, points).
        columns: Derivatives by A, E, slope and x₀ times the prior deviations, (shapes, curves, points, 4).
        covariance: Prior covariance of the law, shape (shapes, curves, points, points).
    """

    middle: Floats
    columns: Floats
    covariance: Floats


def law_grid(x: Floats, *, chance: float) -> LawGrid:
    """Return the laws at some computes; cached, because every decision of a study uses the same ones.

    Args:
        x: Training FLOPs, shape (curves, points).
        chance: Error of chance; NaN if unknown.
    """
    return _law_grid(x.tobytes(), x.shape, chance)


@lru_cache(maxsize=4)
def _law_grid(x_bytes: bytes, shape: tuple[int, ...], chance: float) -> LawGrid:
    x = np.frombuffer(x_bytes).reshape(shape)
    unit = np.sqrt(x.min() * x.max())
    middles, columns = [], []

    def add(
        law: Callable[[float, float, float], Floats], slope: float, shift: float, by_height: Floats
    ) -> None:
        for floor in FLOORS:
            # Differences by half a step of the grid, to both sides.
            by_floor = law(slope, shift, floor + _STEP_FLOOR) - law(slope, shift, floor - _STEP_FLOOR)
            by_slope = law(slope * _STEP_SLOPE, shift, floor) - law(slope / _STEP_SLOPE, shift, floor)
            by_shift = law(slope, shift * _STEP_SHIFT, floor) - law(slope, shift / _STEP_SHIFT, floor)
            middles.append(law(slope, shift, floor))
            columns.append(np.stack([by_height, by_floor / 2, by_slope / 2, by_shift / 2], axis=-1))

    def power(slope: float, shift: float, floor: float) -> Floats:
        # As in ``analysis.laws.forms``: α such that the slope at x = unit is the given one.
        alpha = slope * (1 + shift / unit)
        return np.asarray(floor + _HEIGHT[0] * ((x + shift) / (unit + shift)) ** -alpha)

    def bounded(slope: float, half: float, floor: float) -> Floats:
        return floor + (chance - floor) / (1 + (x / half) ** slope)

    for slope in SLOPES:
        for shift in (0.0, *_spaced(x, _SHIFTED, _SHIFTS)):
            add(power, slope, shift, power(slope, shift, 0.0) / _HEIGHT[0] * _HEIGHT[1])
    if np.isfinite(chance):
        for slope in STEEPNESS:
            for half in _spaced(x, _MIDDLES, _MIDPOINTS):
                add(bounded, slope, half, np.zeros_like(x))
    by = np.array(columns)
    return LawGrid(middle=np.array(middles), columns=by, covariance=np.einsum("gcpk,gcqk->gcpq", by, by))


def _spaced(x: Floats, reach: tuple[float, float], step: float) -> list[float]:
    low, high = float(x.min()) * reach[0], float(x.max()) * reach[1]
    count = 1 + int(np.ceil(np.log(max(high / low, step)) / np.log(step)))
    return [float(one) for one in np.geomspace(low, max(high, low * step), count)]
