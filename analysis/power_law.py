"""Power law with floor, y = E + A·x^-α, by variable projection.

For a given α the law is linear in E and A, and their least-squares values with E, A ≥ 0 are known in closed
form. What is left is one function of α (Golub and Pereyra 1973), whose derivative follows from the envelope
theorem: with v = x^-α and residuals r = y − E − A·v, the objective f = Σ w·r² has df/dα = 2·A·Σ w·r·v·ln x.
It is scanned on a grid of α and refined by bisection of that derivative, for one set of y or thousands of
them at once; descents from several other exponents then check that no lower optimum was missed.

Loss: squares on y itself, each point weighted by its runs. A law of errors is read in points of error, and
the noise of a cell's mean falls with its runs; logarithms would weigh the small errors of large budgets more
than was measured.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.bootstrap import Source
from analysis.labels import plural
from analysis.trend import LEVEL, chance_of_no_fall

Floats = NDArray[np.float64]
Status = Literal[
    "ok", "saturated", "floor undetermined", "exponent at bound", "misfit", "no decrease", "too few levels"
]

ALPHA_BOUNDS = (0.02, 5.0)
_GRID = np.geomspace(*ALPHA_BOUNDS, 64)
_STARTS = np.geomspace(0.03, 4.0, 7)
_BISECTIONS = 32
_LEVELS = 3
_MISFIT = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Laws of many sets of y, each value of shape (draws,)."""

    floor: Floats
    scale: Floats
    alpha: Floats
    objective: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerLawFit:
    """A fitted law y = floor + scale·(x/unit)^-alpha.

    Attributes:
        floor: E ≥ 0, in units of y.
        scale: A ≥ 0, in units of y: the part above the floor at x = ``unit``.
        alpha: Exponent.
        unit: Geometric mean of the fitted x, so that ``scale`` is a number one can read.
        status: ``ok``; ``saturated`` (as many levels as parameters: no residual is left to judge it by);
            ``floor undetermined`` (E ended at zero); or why there is no law.
        reason: The status in one sentence.
        rows: Runs behind the fit.
        levels: Distinct x.
        objective: Σ w·r² at the optimum.
        starts: Descents from other starting exponents.
        agreement: How many of them ended at the same objective.
    """

    floor: float
    scale: float
    alpha: float
    unit: float
    status: Status
    reason: str
    rows: int
    levels: int
    objective: float
    starts: int
    agreement: int

    @property
    def supported(self) -> bool:
        """Whether the data bear the law, so that it may be drawn within them."""
        return self.status in ("ok", "saturated", "floor undetermined")

    def __call__(self, x: Floats) -> Floats:
        """The law at x."""
        return self.floor + self.scale * (x / self.unit) ** -self.alpha


def fit(
    x: Floats,
    y: Floats,
    *,
    runs: NDArray[np.int64],
    draws: Floats | None = None,
    source: Source = "none",
) -> PowerLawFit:
    """Fits one curve.

    Args:
        x: Compute, samples or pairs of each cell, above zero, shape (cells,).
        y: Mean error of each cell, shape (cells,).
        runs: Runs behind each mean: the weights.
        draws: Means as they might have been, shape (draws, cells), where that is known: a law that misses a
            mean by more than three of their standard deviations is a misfit.
        source: What the draws stand for, see ``bootstrap``.

    Raises:
        ValueError: A value is not finite, or an x is not above zero.
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all()):
        raise ValueError("a power law needs finite values and x above zero")
    levels, rows = len(np.unique(x)), int(runs.sum())
    if levels < _LEVELS:
        reason = f"{plural(levels, 'distinct level')}; a law with floor needs at least {_LEVELS}"
        nan = float("nan")
        return PowerLawFit(
            floor=nan, scale=nan, alpha=nan, unit=nan, status="too few levels", reason=reason,
            rows=rows, levels=levels, objective=nan, starts=0, agreement=0,
        )  # fmt: skip
    unit = float(np.exp(np.log(x).mean()))
    weights = runs.astype(np.float64)
    found = fit_draws(x, y[None, :], runs=runs)
    floor, scale, alpha = float(found.floor[0]), float(found.scale[0]), float(found.alpha[0])
    objective = float(found.objective[0])
    ends = _restarts(np.log(x / unit), y, weights)
    # Rounding of Σ w·r² is of the order of Σ w·y²·1e-16; differences below are no other optimum.
    tolerance = 1e-6 * objective + 1e-12 * float(weights @ y**2)
    miss = np.abs(y - floor - scale * (x / unit) ** -alpha)
    draws = np.empty((0, len(x))) if draws is None else draws
    missed = float((miss / np.maximum(draws.std(axis=0), 1e-12)).max()) if len(draws) else 0.0
    chance = chance_of_no_fall(x, y, draws=draws, source=source)
    status, reason = _judge(floor, scale, alpha, levels=levels, missed=missed, chance=chance)
    return PowerLawFit(
        floor=floor, scale=scale, alpha=alpha, unit=unit, status=status, reason=reason, rows=rows,
        levels=levels, objective=objective, starts=len(ends),
        agreement=int((np.abs(ends - objective) <= tolerance).sum()),
    )  # fmt: skip


def fit_draws(x: Floats, y: Floats, *, runs: NDArray[np.int64], floor: bool = True) -> Draws:
    """Fits the same law to many sets of y at once.

    Args:
        x: Shape (cells,), at least three distinct values (two without a floor); or (draws, cells), where each
            draw has its own.
        y: Shape (draws, cells).
        runs: Weights, shape (cells,), or (draws, cells).
        floor: Whether the law has one; without, y = A·x^-α.

    Returns:
        The laws; ``scale`` is in the unit of the geometric mean of x, as in ``PowerLawFit``.
    """
    log_x = np.log(x) - np.log(x).mean(axis=-1, keepdims=True)
    weights = runs.astype(np.float64)
    tried = [_project(log_x, y, weights, np.full(len(y), alpha), floor=floor)[2] for alpha in _GRID]
    objectives = np.stack(tried, axis=1)
    return _refine(log_x, y, weights, objectives.argmin(axis=1), floor=floor)


def _refine(
    log_x: Floats, y: Floats, weights: Floats, place: NDArray[np.intp], *, floor: bool = True
) -> Draws:
    """Bisects the derivative between the neighbours of a place on the grid of exponents, row by row."""
    low = np.log(_GRID[np.maximum(place - 1, 0)])
    high = np.log(_GRID[np.minimum(place + 1, len(_GRID) - 1)])
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        rising = _project(log_x, y, weights, np.exp(middle), floor=floor)[3] > 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    alpha = np.exp((low + high) / 2)
    bottom, scale, objective, _ = _project(log_x, y, weights, alpha, floor=floor)
    return Draws(floor=bottom, scale=scale, alpha=alpha, objective=objective)


def _project(
    log_x: Floats, y: Floats, weights: Floats, alpha: Floats, *, floor: bool = True
) -> tuple[Floats, Floats, Floats, Floats]:
    """E, A, objective and df/dα at the given α of each row of y: two-variable non-negative least squares."""
    v = np.exp(-alpha[:, None] * log_x)
    total = weights.sum(axis=-1)
    mean_y, mean_v = _sum(y, weights) / total, _sum(v, weights) / total
    centred = v - mean_v[:, None]
    scale = np.maximum(_sum(centred * y, weights) / _sum(centred * centred, weights), 0.0)
    # y and v are positive: the edge A = 0 is met by the clip above, E = 0 by the line through the origin.
    through_origin = np.maximum(_sum(v * y, weights) / _sum(v * v, weights), 0.0)
    bottom = mean_y - scale * mean_v
    positive = bottom >= 0 if floor else np.zeros(len(y), dtype=bool)
    scale = np.where(positive, scale, through_origin)
    bottom = np.where(positive, bottom, 0.0)
    residual = y - bottom[:, None] - scale[:, None] * v
    objective = _sum(residual * residual, weights)
    slope = 2.0 * scale * _sum(residual * v * log_x, weights)
    return bottom, scale, objective, slope


def _sum(values: Floats, weights: Floats) -> Floats:
    """Weighted sums of rows; the weights are shared by them or stand row by row."""
    if weights.ndim == 1:
        return np.asarray(values @ weights, dtype=np.float64)
    return np.asarray(np.einsum("ij,ij->i", values, weights), dtype=np.float64)


def _restarts(log_x: Floats, y: Floats, weights: Floats) -> Floats:
    """Objectives where descents from each of the starting exponents end."""
    scanned = np.array([_project(log_x, y[None, :], weights, np.array([alpha]))[2][0] for alpha in _GRID])
    ends = []
    for start in _STARTS:
        place = int(np.abs(np.log(_GRID / start)).argmin())
        while True:
            near = [max(place - 1, 0), place, min(place + 1, len(_GRID) - 1)]
            lowest = near[int(np.argmin(scanned[near]))]
            if scanned[lowest] >= scanned[place]:
                break
            place = lowest
        ends.append(place)
    found = _refine(log_x, np.repeat(y[None, :], len(ends), axis=0), weights, np.array(ends))
    return found.objective


def _judge(  # noqa: PLR0913 (a law, and what it is judged by)
    floor: float, scale: float, alpha: float, *, levels: int, missed: float, chance: float
) -> tuple[Status, str]:
    low, high = ALPHA_BOUNDS
    at_bound = alpha < low * 1.01 or alpha > high * 0.99
    found: tuple[tuple[bool, Status, str], ...] = (
        (scale <= 0, "no decrease", "the error does not fall along the curve"),
        (at_bound, "exponent at bound",
         f"the exponent ended at a bound of [{low:g}, {high:g}]: no such law is seen"),
        (chance > LEVEL, "no decrease",
         f"the error does not fall beyond the noise: without any law it would fall so far in {chance:.0%}"),
        (missed > _MISFIT, "misfit",
         f"the law misses a point by {missed:.1f} times its noise: the curve is of another form"),
        (floor <= 0, "floor undetermined", "the floor ended at zero: these budgets do not show one"),
        (levels == _LEVELS, "saturated",
         "three levels for three parameters: the law passes through them and nothing is left to test"),
    )  # fmt: skip
    return next(((status, reason) for holds, status, reason in found if holds), ("ok", "fitted"))
