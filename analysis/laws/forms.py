"""The forms that the law of one curve can have, and their least-squares fits, many curves at once.

    power law                        A·x^-α
    power law with floor             E + A·x^-α
    power law with shift             A·(x + x₀)^-α
    power law with floor and shift   E + A·(x + x₀)^-α                      (Zhai et al. 2022, §2.2)
    bounded law                      E + (c − E)·q/(1 + q), q = (x/x₀)^-α   (Alabdulmohsin et al. 2022, M4)

c is the error of chance, so the bounded law needs a metric with a known one; it is their M4 with its first
exponent at 1. In the search α is replaced by the slope at the geometric mean of x, which has the same bounds
in each form.

For a given slope and x₀ a law is linear in E, A ≥ 0, whose least-squares values are closed-form (variable
projection, Golub and Pereyra 1973). What is left, one or two numbers, is scanned on a grid and refined by
damped Gauss-Newton steps (Levenberg 1944), each curve or draw with its own damping. Squares on the error
itself, each point weighted by its runs: a law of errors is read in points of error, and the noise of a mean
falls with its runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SLOPE_BOUNDS = (0.02, 5.0)
"""Of the slope −d ln(error − E)/d ln x at the geometric mean of x (bounded law: of α)."""
SHIFT_REACH = (0.01, 10.0)
"""x₀ of a shift lies between these multiples of the smallest and the largest x."""

_MIDPOINT_REACH = (1e-4, 1e4)
_SLOPES, _SHIFTS = 40, 20
_DIFFERENCE, _STEPS, _MOST_DAMPED, _FLAT = 1e-4, 80, 1e8, 1e-10
_SAME = 1e-6
_ROWS = 256  # with an x of their own: each has a grid of its own
_RESTARTS = (
    (0.05, 0.1),
    (0.05, 0.9),
    (0.3, 0.5),
    (0.5, 0.1),
    (0.5, 0.9),
    (0.7, 0.5),
    (0.95, 0.1),
    (0.95, 0.9),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A form of law.

    Attributes:
        name: Its name in tables.
        formula: The error as a function of x, in words that a caption can use.
        parameters: How many are fitted.
        floor: Whether E is one of them.
        shift: Whether x₀ is one of them.
        bounded: Whether it rises to the error of chance at small x.
    """

    name: str
    formula: str
    parameters: int
    floor: bool
    shift: bool
    bounded: bool = False


POWER = Form(name="power law", formula="A·x^-α", parameters=2, floor=False, shift=False)
FLOOR = Form(name="power law with floor", formula="E + A·x^-α", parameters=3, floor=True, shift=False)
SHIFT = Form(name="power law with shift", formula="A·(x + x₀)^-α", parameters=3, floor=False, shift=True)
FLOOR_SHIFT = Form(
    name="power law with floor and shift", formula="E + A·(x + x₀)^-α", parameters=4, floor=True, shift=True
)
BOUNDED = Form(
    name="bounded law", formula="E + (c − E)·q/(1 + q), q = (x/x₀)^-α", parameters=3, floor=True, shift=True,
    bounded=True,
)  # fmt: skip
FORMS = {form.name: form for form in (POWER, FLOOR, BOUNDED, SHIFT, FLOOR_SHIFT)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """Laws of one form, one a row; each value has the shape (rows,).

    Attributes:
        form: Their form.
        floor: E ≥ 0, in units of the error.
        scale: A ≥ 0: the part above the floor at x = ``unit``; the error of chance in a bounded law.
        alpha: Exponent.
        shift: x₀ ≥ 0, in units of x; the x half-way between chance and floor in a bounded law.
        unit: Geometric mean of the fitted x.
        objective: Σ w·r² at the optimum.
        at_bound: Whether the slope ended at one of ``SLOPE_BOUNDS``.
    """

    form: Form
    floor: Floats
    scale: Floats
    alpha: Floats
    shift: Floats
    unit: Floats
    objective: Floats
    at_bound: NDArray[np.bool_]

    def __call__(self, x: Floats) -> Floats:
        """Return the laws at x, shape (points,) or (rows, points), as errors of shape (rows, points)."""
        floor, scale, alpha, shift, unit = (
            values[:, None] for values in (self.floor, self.scale, self.alpha, self.shift, self.unit)
        )
        if self.form.bounded:
            above = 1.0 / (1.0 + np.exp(-alpha * np.log(shift / x)))
            return np.asarray(floor + (scale - floor) * above, dtype=np.float64)
        power = np.exp(-alpha * np.log((x + shift) / (unit + shift)))
        return np.asarray(floor + scale * power, dtype=np.float64)


def fit(form: Form, x: Floats, y: Floats, *, weights: Floats, chance: float = np.nan) -> Curves:
    """Fit one law to each row.

    Args:
        form: Its form.
        x: Above zero, at least as many distinct values as the form has parameters, shape (cells,), or (rows,
            cells) where each row has its own.
        y: Errors, shape (rows, cells).
        weights: Runs behind each error, of the shape of x.
        chance: The error of chance, for the bounded law.
    """
    if x.ndim > 1 and len(y) > _ROWS:
        return _joined([
            fit(form, x[low : low + _ROWS], y[low : low + _ROWS], weights=weights[low : low + _ROWS],
            chance=chance) for low in range(0, len(y), _ROWS)
        ])  # fmt: skip
    data = _Data.of(form, x, y, weights, chance)
    found = data.curves(*_descend(data, data.scan()))
    if not form.shift or form.bounded:
        return found
    # x₀ = 0 lies beyond every logarithm; between equals, a shift that the data do not ask for is left out.
    plain = fit(FLOOR if form.floor else POWER, x, y, weights=weights)
    kept = found.objective < plain.objective * (1 - _SAME)
    names = ("floor", "scale", "alpha", "shift", "objective", "at_bound")
    return replace(
        found, **{name: np.where(kept, getattr(found, name), getattr(plain, name)) for name in names}
    )


def _joined(parts: Sequence[Curves]) -> Curves:
    return Curves(
        form=parts[0].form,
        floor=np.concatenate([part.floor for part in parts]),
        scale=np.concatenate([part.scale for part in parts]),
        alpha=np.concatenate([part.alpha for part in parts]),
        shift=np.concatenate([part.shift for part in parts]),
        unit=np.concatenate([part.unit for part in parts]),
        objective=np.concatenate([part.objective for part in parts]),
        at_bound=np.concatenate([part.at_bound for part in parts]),
    )


def restarts(form: Form, x: Floats, y: Floats, *, weights: Floats, chance: float = np.nan) -> Floats:
    """Return the objectives at which searches from other starts end, shape (starts,).

    Args:
        form: As in ``fit``.
        x: Shape (cells,).
        y: One row, shape (cells,).
        weights: Shape (cells,).
        chance: As in ``fit``.
    """
    data = _Data.of(form, x, np.repeat(y[None, :], len(_RESTARTS), axis=0), weights, chance)
    low, high = data.lowest[0], data.highest[0]
    ends = _descend(data, low + np.array(_RESTARTS)[:, : len(low)] * (high - low))[1]
    if not form.shift or form.bounded:
        return ends
    return np.minimum(ends, restarts(FLOOR if form.floor else POWER, x, y, weights=weights))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Data:
    """What is fitted: rows of cells; θ = (ln slope, ln x₀), or ln slope alone."""

    form: Form
    x: Floats
    y: Floats
    weights: Floats
    chance: float
    unit: Floats
    lowest: Floats
    highest: Floats

    @classmethod
    def of(cls, form: Form, x: Floats, y: Floats, weights: Floats, chance: float) -> "_Data":
        x, weights = np.atleast_2d(x), np.atleast_2d(weights.astype(np.float64))
        smallest, largest = np.log(x.min(axis=1)), np.log(x.max(axis=1))
        below, above = np.log(_MIDPOINT_REACH if form.bounded else SHIFT_REACH)
        slopes = np.broadcast_to(np.log(SLOPE_BOUNDS), (len(x), 2))
        lowest, highest = slopes[:, :1], slopes[:, 1:]
        if form.shift:
            lowest = np.stack([lowest[:, 0], smallest + below], axis=1)
            highest = np.stack([highest[:, 0], largest + above], axis=1)
        return cls(
            form=form, x=x, y=y, weights=weights, chance=chance,
            unit=np.exp(np.log(x).mean(axis=1, keepdims=True)), lowest=lowest, highest=highest,
        )  # fmt: skip

    def rows(self, values: Floats, rows: NDArray[np.intp]) -> Floats:
        """Return the rows of an array that may be shared by all of them."""
        return values if len(values) == 1 else values[rows]

    def columns(self, theta: Floats, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Return what is added as it is and what A (or the bounded law's E) multiplies, shape (…, cells).

        θ of shape (rows, θ), or (rows or 1, grid, θ).
        """
        x, unit = self.rows(self.x, rows), self.rows(self.unit, rows)
        if theta.ndim > 2:  # noqa: PLR2004 (a grid in each row)
            x, unit = x[:, None, :], unit[:, None, :]
        slope = np.exp(theta[..., :1])
        if not self.form.shift:
            return np.zeros(1), np.exp(-slope * np.log(x / unit))
        shift = np.exp(theta[..., 1:])
        if self.form.bounded:
            below = 1.0 / (1.0 + np.exp(-slope * np.log(x / shift)))
            return self.chance * (1.0 - below), below
        alpha = slope * (1.0 + shift / unit)
        return np.zeros(1), np.exp(-alpha * np.log((x + shift) / (unit + shift)))

    def project(self, theta: Floats, rows: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
        """Return E, the coefficient of the column, and the residuals times √w: non-negative least squares."""
        fixed, v = self.columns(theta, rows)
        w, y = self.rows(self.weights, rows), self.y[rows] - fixed
        vy, vv = (w * v * y).sum(axis=-1), (w * v * v).sum(axis=-1)
        scale, floor = np.maximum(vy / vv, 0.0), np.zeros(len(rows))
        if self.form.floor and not self.form.bounded:
            total = w.sum(axis=-1)
            mean_y, mean_v = (w * y).sum(axis=-1) / total, (w * v).sum(axis=-1) / total
            spread = vv - total * mean_v**2
            free = np.maximum((vy - total * mean_v * mean_y) / np.maximum(spread, 1e-300), 0.0)
            bottom = mean_y - free * mean_v
            floor, scale = np.where(bottom >= 0, bottom, 0.0), np.where(bottom >= 0, free, scale)
        return floor, scale, (y - floor[:, None] - scale[:, None] * v) * np.sqrt(w)

    def scan(self) -> Floats:
        """Return the best θ of a grid for each row."""
        shares = [np.linspace(0, 1, _SLOPES)] + [np.linspace(0, 1, _SHIFTS)] * self.form.shift
        mesh = np.stack([axis.ravel() for axis in np.meshgrid(*shares, indexing="ij")], axis=1)
        low, high = self.lowest[:, None, :], self.highest[:, None, :]
        theta = low + mesh * (high - low)
        fixed, v = self.columns(theta, np.arange(len(self.x)))
        w = self.weights[:, None, :]
        # Sums over the cells, shape (rows, grid); x and w that all rows share are summed once.
        weighted = (self.weights * self.y)[:, :, None]
        y_v, y_y = (v @ weighted)[..., 0], (self.weights * self.y**2).sum(axis=1)[:, None]
        v_v = (w * v * v).sum(axis=-1)
        if self.form.bounded:
            y_y = y_y - 2 * (fixed @ weighted)[..., 0] + (w * fixed**2).sum(axis=-1)
            y_v = y_v - (w * fixed * v).sum(axis=-1)
        scale = np.maximum(y_v / v_v, 0.0)
        objective = y_y - 2 * scale * y_v + scale**2 * v_v
        if self.form.floor and not self.form.bounded:
            total, of_v, of_y = w.sum(axis=-1), (w * v).sum(axis=-1), weighted.sum(axis=1)
            free = np.maximum((y_v - of_y * of_v / total) / np.maximum(v_v - of_v**2 / total, 1e-300), 0.0)
            floor = (of_y - free * of_v) / total
            both = y_y - 2 * floor * of_y - 2 * free * y_v + floor**2 * total
            both = both + 2 * floor * free * of_v + free**2 * v_v
            objective = np.where(floor >= 0, both, objective)
        best = objective.argmin(axis=1)
        shared = np.arange(len(best)) if len(theta) > 1 else np.zeros(len(best), dtype=np.intp)
        return np.asarray(theta[shared, best], dtype=np.float64)

    def curves(self, theta: Floats, objective: Floats) -> Curves:
        """Return the laws at θ of each row."""
        rows = np.arange(len(theta))
        floor, scale, _ = self.project(theta, rows)
        slope = np.exp(theta[:, 0])
        shift = np.exp(theta[:, 1]) if self.form.shift else np.zeros(len(rows))
        alpha = slope
        if self.form.bounded:
            floor, scale = scale, np.full(len(rows), self.chance)
        elif self.form.shift:
            alpha = slope * (1.0 + shift / self.unit[:, 0])
        edge = 0.01
        return Curves(
            form=self.form, floor=floor, scale=scale, alpha=alpha, shift=shift,
            unit=np.broadcast_to(self.unit[:, 0], len(rows)), objective=objective,
            at_bound=(theta[:, 0] < self.lowest[:, 0] + edge) | (theta[:, 0] > self.highest[:, 0] - edge),
        )  # fmt: skip


def _descend(data: _Data, theta: Floats) -> tuple[Floats, Floats]:
    """Search down from each row's θ; return where the searches end and their objectives."""
    theta, rows = theta.copy(), np.arange(len(theta))
    r = data.project(theta, rows)[2]
    value, damping = (r * r).sum(axis=1), np.full(len(theta), 1e-2)
    # Rounding of Σ w·r² is of the order of Σ w·y²·1e-16: gains below are none.
    flat = 1e-16 * (data.weights * data.y**2).sum(axis=1)
    active, size = rows, theta.shape[1]
    for _ in range(_STEPS):
        here = theta[active]
        slopes = np.empty((len(active), size, r.shape[1]))
        for place in range(size):
            step = np.zeros(size)
            step[place] = _DIFFERENCE
            ends = (data.project(here + sign * step, active)[2] for sign in (1, -1))
            slopes[:, place] = np.subtract(*ends) / (2 * _DIFFERENCE)
        gram, gradient = slopes @ slopes.transpose(0, 2, 1), (slopes @ r[active][:, :, None])[:, :, 0]
        diagonal = np.diagonal(gram, axis1=1, axis2=2)
        ridge = damping[active, None] * diagonal + 1e-12 * diagonal.sum(axis=1, keepdims=True) + 1e-300
        move = np.linalg.solve(gram + ridge[:, :, None] * np.eye(size), gradient[:, :, None])[:, :, 0]
        tried = np.clip(
            here - np.clip(move, -1.0, 1.0), data.rows(data.lowest, active), data.rows(data.highest, active)
        )
        new = data.project(tried, active)[2]
        gained = value[active] - (new * new).sum(axis=1)
        better = gained > 0
        moved = active[better]
        theta[moved], r[moved] = tried[better], new[better]
        value[moved] -= gained[better]
        damping[active] *= np.where(better, 1 / 4, 8.0)
        done = np.where(
            better, gained <= _FLAT * value[active] + flat[active], damping[active] >= _MOST_DAMPED
        )
        active = active[~done]
        if not len(active):
            break
    return theta, value
