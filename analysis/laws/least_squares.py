"""Least-squares fits of the forms of a law, many curves at once.

For a given slope and x₀ a law is linear in E and A ≥ 0, whose least-squares values have a closed form
(variable projection, Golub and Pereyra 1973). The remaining one or two parameters are scanned on a grid and
refined by damped Gauss-Newton steps (Levenberg 1944); each curve or draw has its own damping. The loss is the
squared error itself, weighted by runs: laws are read in points of error, and the variance of a mean falls
with its number of runs.
"""

from dataclasses import dataclass, replace

import numpy as np

from analysis.arrays import Floats, Indices, Mask
from analysis.laws.descent import resting
from analysis.laws.forms import FLOOR, POWER, SHIFT_REACH, SLOPE_BOUNDS, VALUES, Curves, Form, joined

# The same for the midpoint of a bounded law, which may lie far outside the measured x.
_MIDPOINT_REACH = (1e-4, 1e4)
_SLOPES, _SHIFTS = 40, 20
_DIFFERENCE, _STEPS, _MOST_DAMPED, _FLAT = 1e-4, 80, 1e8, 1e-10
_SAME = 1e-6  # relative gain of the objective below which a shift is not kept
_ROWS = 256  # rows fitted at once if each has its own x and thus its own grid
_BLOCK = 64  # rows scanned at once, whose grids then fit into the processor's cache
# Starts as shares of the way between the bounds of (ln slope, ln x₀).
_RESTARTS = (
    (0.05, 0.1), (0.05, 0.9), (0.3, 0.5), (0.5, 0.1), (0.5, 0.9), (0.7, 0.5), (0.95, 0.1), (0.95, 0.9)
)  # fmt: skip


def fit(form: Form, x: Floats, y: Floats, *, weights: Floats, chance: float = np.nan) -> Curves:
    """Fit one law to each row of errors, shape (rows, cells), weighted by the runs behind each.

    x is above zero, with at least as many distinct values as the form has parameters; its shape, and that of
    the weights, is (cells,), or (rows, cells) if each row has its own. The bounded law needs the error of
    chance.
    """
    if x.ndim > 1 and len(y) > _ROWS:
        return joined([
            fit(form, x[low : low + _ROWS], y[low : low + _ROWS], weights=weights[low : low + _ROWS],
            chance=chance) for low in range(0, len(y), _ROWS)
        ])  # fmt: skip
    data = _Data.of(form, x, y, weights, chance)
    found = data.curves(*_descend(data, data.scan()))
    if not form.shift or form.bounded:
        return found
    # The search in ln x₀ cannot reach x₀ = 0. So the law without shift is fitted as well, and kept unless the
    # shift lowers the objective.
    plain = fit(FLOOR if form.floor else POWER, x, y, weights=weights)
    kept = found.objective < plain.objective * (1 - _SAME)
    return replace(
        found, **{name: np.where(kept, getattr(found, name), getattr(plain, name)) for name in VALUES}
    )


def restarts(form: Form, x: Floats, y: Floats, *, weights: Floats, chance: float = np.nan) -> Floats:
    """Return the objectives of searches from other starts, shape (rows, starts).

    The arguments are those of ``fit``, with x, y and weights of shape (rows, cells).
    """
    starts = np.array(_RESTARTS)
    x, y, runs = (np.repeat(values, len(starts), axis=0) for values in (x, y, weights))
    data = _Data.of(form, x, y, runs, chance)
    shares = np.tile(starts[:, : data.lowest.shape[1]], (len(y) // len(starts), 1))
    ends = _descend(data, data.lowest + shares * (data.highest - data.lowest))[1].reshape(-1, len(starts))
    if not form.shift or form.bounded:
        return ends
    plain = FLOOR if form.floor else POWER
    return np.minimum(ends, restarts(plain, x[:: len(starts)], y[:: len(starts)], weights=weights))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Data:
    """Data of a fit, one row per law, with its functions of θ = (ln slope, ln x₀), or ln slope alone."""

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
        # Every row has its own bounds of x₀, relative to its smallest and largest x.
        slopes = np.broadcast_to(np.log(SLOPE_BOUNDS), (len(x), 2))
        lowest, highest = slopes[:, :1], slopes[:, 1:]
        if form.shift:
            lowest = np.stack([lowest[:, 0], smallest + below], axis=1)
            highest = np.stack([highest[:, 0], largest + above], axis=1)
        return cls(
            form=form, x=x, y=y, weights=weights, chance=chance,
            unit=np.exp(np.log(x).mean(axis=1, keepdims=True)), lowest=lowest, highest=highest,
        )  # fmt: skip

    def rows(self, values: Floats, rows: Indices) -> Floats:
        """Return rows of an array, or the array itself if its one row is shared by all."""
        return values if len(values) == 1 else values[rows]

    def columns(self, theta: Floats, rows: Indices) -> tuple[Floats, Floats]:
        """Return the fixed part of the law and the column v that A (in a bounded law E) multiplies.

        θ has shape (rows, θ); both results have shape (rows, cells). A bounded law is c·q/(1 + q) + E/(1 +
        q): the fixed part plus E times 1/(1 + q).
        """
        x, unit = self.rows(self.x, rows), self.rows(self.unit, rows)
        slope = np.exp(theta[:, :1])
        if not self.form.shift:
            return np.zeros(1), np.exp(-slope * np.log(x / unit))
        shift = np.exp(theta[:, 1:])
        if self.form.bounded:
            below = 1.0 / (1.0 + np.exp(-slope * np.log(x / shift)))
            return self.chance * (1.0 - below), below
        # −d ln (x + x₀)^-α / d ln x = α·x/(x + x₀), which is the slope at x = unit.
        alpha = slope * (1.0 + shift / unit)
        return np.zeros(1), np.exp(-alpha * np.log((x + shift) / (unit + shift)))

    def turns(self, theta: Floats, v: Floats, rows: Indices) -> Floats:
        """Return the derivatives of the column v with respect to θ, shape (θ, rows, cells)."""
        x, unit = self.rows(self.x, rows), self.rows(self.unit, rows)
        slope = np.exp(theta[:, :1])
        if not self.form.shift:
            return np.asarray([-slope * np.log(x / unit) * v])
        shift = np.exp(theta[:, 1:])
        if self.form.bounded:
            # v = 1/(1 + q) is logistic in slope·ln(x/x₀), with derivative v·(1 − v).
            around = v * (1.0 - v) * slope
            return np.stack([around * np.log(x / shift), -around])
        alpha, log = slope * (1.0 + shift / unit), np.log((x + shift) / (unit + shift))
        # α depends on x₀ as well (α = slope·(1 + x₀/unit)), which gives the first term.
        by_shift = slope * shift / unit * log + alpha * (shift / (x + shift) - shift / (unit + shift))
        return np.stack([-alpha * log * v, -by_shift * v])

    def project(self, theta: Floats, rows: Indices) -> tuple[Floats, Floats, Floats]:
        """Return E, the coefficient of v and the residuals times √w, by non-negative least squares."""
        fixed, v = self.columns(theta, rows)
        return self._solve(fixed, v, rows)

    def _solve(self, fixed: Floats, v: Floats, rows: Indices) -> tuple[Floats, Floats, Floats]:
        w, y = self.rows(self.weights, rows), self.y[rows] - fixed
        # Without a floor A = Σ w·v·y / Σ w·v². With one, A and E are the slope and the intercept of the
        # regression of y on v; if the intercept is negative, E = 0 and A is that without a floor.
        wv = w * v
        vy, vv = (wv * y).sum(axis=-1), (wv * v).sum(axis=-1)
        scale, floor = np.maximum(vy / vv, 0.0), np.zeros(len(rows))
        if self.form.floor and not self.form.bounded:
            total = w.sum(axis=-1)
            mean_y, mean_v = (w * y).sum(axis=-1) / total, wv.sum(axis=-1) / total
            # Weighted variance of v and its covariance with y, both times the sum of weights.
            spread = vv - total * mean_v**2
            free = np.maximum((vy - total * mean_v * mean_y) / np.maximum(spread, 1e-300), 0.0)
            bottom = mean_y - free * mean_v
            floor, scale = np.where(bottom >= 0, bottom, 0.0), np.where(bottom >= 0, free, scale)
        return floor, scale, (y - floor[:, None] - scale[:, None] * v) * np.sqrt(w)

    def expand(self, theta: Floats, rows: Indices) -> tuple[Floats, Floats]:
        """Return the Gauss-Newton matrix and the gradient of ½Σ w·r², shapes (rows, θ, θ) and (rows, θ).

        The derivatives include the change of the linear part (E and A) with θ. They jump where E or A
        reaches zero; near such a point central differences replace them, which average both sides.
        """
        fixed, v = self.columns(theta, rows)
        w, y = self.rows(self.weights, rows), self.y[rows] - fixed
        r = self._solve(fixed, v, rows)[2]
        turn = self.turns(theta, v, rows)
        scale, change = _scale(w, v, y, turn, -self.chance * turn if self.form.bounded else np.zeros(1))
        near = _near(scale, change)
        # Derivative of A·v by θ, zero while A is held at zero.
        falls = np.where((scale > 0)[:, None], change[..., None] * v + scale[:, None] * turn, 0.0)
        if self.form.bounded:
            falls = falls - self.chance * turn
        elif self.form.floor:
            total = w.sum(axis=-1, keepdims=True)
            middle_v, middle_y, middle_turn = (
                (w * one).sum(axis=-1, keepdims=True) / total for one in (v, y, turn)
            )
            # With a floor, E + A·v = ȳ + A·(v − v̄): the regression through the weighted means.
            centred_v, centred_turn = v - middle_v, turn - middle_turn
            free, free_change = _scale(w, centred_v, y - middle_y, centred_turn, np.zeros(1))
            floor = middle_y[:, 0] - np.maximum(free, 0.0) * middle_v[:, 0]
            near = _near(floor, free_change * middle_v[:, 0] + free * middle_turn[..., 0])
            near |= _near(free, free_change)
            inside = free_change[..., None] * centred_v + free[:, None] * centred_turn
            falls = np.where((floor >= 0)[:, None], np.where((free > 0)[:, None], inside, 0.0), falls)
        # The residual is (y − law)·√w, so its derivative has the opposite sign.
        slopes = -np.sqrt(w) * falls
        beside = np.flatnonzero(near)
        for place, step in enumerate(_DIFFERENCE * np.eye(theta.shape[1]) if len(beside) else ()):
            ends = (self.project(theta[beside] + sign * step, rows[beside])[2] for sign in (1, -1))
            slopes[place, beside] = np.subtract(*ends) / (2 * _DIFFERENCE)
        gradient = (slopes * r).sum(axis=-1).T
        return np.einsum("irc,jrc->rij", slopes, slopes), np.asarray(gradient, dtype=np.float64)

    def scan(self) -> Floats:
        """Return the best θ on a grid for each row; rows of equal x and weights share a grid."""
        found = np.empty((len(self.y), self.lowest.shape[1]))
        for one, rows in self._alike():
            for low in range(0, len(rows), _BLOCK):
                block = rows[low : low + _BLOCK]
                found[block] = self._scan(one, block)
        return found

    def _alike(self) -> list[tuple[int, Indices]]:
        """Return the groups of rows with equal x and weights, each with the place of these among all."""
        if len(self.x) == 1:
            return [(0, np.arange(len(self.y)))]
        keys = np.concatenate([self.x, np.broadcast_to(self.weights, self.x.shape)], axis=1)
        first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)[1:]
        order, counts = np.argsort(which.ravel(), kind="stable"), np.bincount(which.ravel())
        return list(zip(first.tolist(), np.split(order, np.cumsum(counts)[:-1]), strict=True))

    def _scan(self, one: int, rows: Indices) -> Floats:
        """Return the best θ on a grid for rows that have the x and weights of row ``one``."""
        shares = [np.linspace(0, 1, _SLOPES)] + [np.linspace(0, 1, _SHIFTS)] * self.form.shift
        mesh = np.stack([axis.ravel() for axis in np.meshgrid(*shares, indexing="ij")], axis=1)
        theta = self.lowest[one] + mesh * (self.highest[one] - self.lowest[one])
        fixed, v = self.columns(theta, np.full(len(theta), one))
        w = self.weights[one if len(self.weights) > 1 else 0]
        weighted = self.y[rows] * w
        # Sums over the cells, shape (rows, grid): the objective of each grid point in closed form.
        y_v, y_y, v_v = weighted @ v.T, (weighted * self.y[rows]).sum(axis=1)[:, None], v**2 @ w
        if self.form.bounded:
            y_y = y_y - 2 * weighted @ fixed.T + fixed**2 @ w
            y_v = y_v - (fixed * v) @ w
        # Σ w·y² minus what A·v explains; a negative A is held at zero and explains nothing.
        objective = y_y - np.maximum(y_v / v_v, 0.0) * y_v
        if self.form.floor and not self.form.bounded:
            total, of_v, of_y = w.sum(), v @ w, weighted.sum(axis=1)[:, None]
            pull = y_v - of_y * of_v / total
            free = np.maximum(pull / np.maximum(v_v - of_v**2 / total, 1e-300), 0.0)
            objective = np.where(of_y >= free * of_v, y_y - of_y**2 / total - free * pull, objective)
        return np.asarray(theta[objective.argmin(axis=1)], dtype=np.float64)

    def curves(self, theta: Floats, objective: Floats) -> Curves:
        """Return the laws at each row's θ."""
        rows = np.arange(len(theta))
        floor, scale, _ = self.project(theta, rows)
        slope = np.exp(theta[:, 0])
        shift = np.exp(theta[:, 1]) if self.form.shift else np.zeros(len(rows))
        alpha = slope
        if self.form.bounded:
            floor, scale = scale, np.full(len(rows), self.chance)
        elif self.form.shift:
            alpha = slope * (1.0 + shift / self.unit[:, 0])
        # θ is clipped to the bounds, so an end within 1 % of one means that the search ran into it.
        edge = 0.01
        return Curves(
            form=self.form, floor=floor, scale=scale, alpha=alpha, shift=shift,
            unit=np.broadcast_to(self.unit[:, 0], len(rows)), objective=objective,
            at_bound=(theta[:, 0] < self.lowest[:, 0] + edge) | (theta[:, 0] > self.highest[:, 0] - edge),
        )  # fmt: skip


def _descend(data: _Data, theta: Floats) -> tuple[Floats, Floats]:
    """Search from each row's θ by damped Gauss-Newton steps; return the ends and their objectives."""
    theta, rows = theta.copy(), np.arange(len(theta))
    r = data.project(theta, rows)[2]
    value, damping = (r * r).sum(axis=1), np.full(len(theta), 1e-2)
    gram, gradient = data.expand(theta, rows)
    # Σ w·r² is rounded by about Σ w·y²·1e-16, so smaller gains are rounding.
    flat = 1e-16 * (data.weights * data.y**2).sum(axis=1)
    active = rows
    for _ in range(_STEPS):
        diagonal = np.diagonal(gram[active], axis1=1, axis2=2)
        # Marquardt's scaling, and a little more so that a direction without slope can be solved for.
        ridge = damping[active, None] * diagonal + 1e-12 * diagonal.sum(axis=1, keepdims=True) + 1e-300
        lowest, highest = data.rows(data.lowest, active), data.rows(data.highest, active)
        at_bounds = theta[active] == lowest, theta[active] == highest
        move = _solved(*resting(gram[active], gradient[active], *at_bounds), ridge)
        tried = np.clip(theta[active] - np.clip(move, -1.0, 1.0), lowest, highest)
        new = data.project(tried, active)[2]
        gained = value[active] - (new * new).sum(axis=1)
        better = gained > 0
        moved = active[better]
        theta[moved] = tried[better]
        value[moved] -= gained[better]
        damping[active] *= np.where(better, 1 / 4, 8.0)
        # A search ends when a step gains next to nothing, or when even the shortest step gains nothing.
        done = np.where(
            better, gained <= _FLAT * value[active] + flat[active], damping[active] >= _MOST_DAMPED
        )
        onward = active[better & ~done]
        gram[onward], gradient[onward] = data.expand(theta[onward], onward)
        active = active[~done]
        if not len(active):
            break
    return theta, value


def _scale(w: Floats, v: Floats, y: Floats, turn: Floats, moved: Floats) -> tuple[Floats, Floats]:
    """Return c = Σ w·v·y / Σ w·v² of each row, and its derivatives with respect to θ.

    With dv = ``turn`` and d(fixed part) = ``moved``: dc = (Σ w·(dv·y − v·dfixed) − 2c·Σ w·v·dv) / Σ w·v².
    """
    square = np.maximum((w * v**2).sum(axis=-1), 1e-300)
    scale = (w * v * y).sum(axis=-1) / square
    pulled = (w * (turn * y - v * moved)).sum(axis=-1)
    return scale, (pulled - 2.0 * scale * (w * v * turn).sum(axis=-1)) / square


def _near(value: Floats, change: Floats) -> Mask:
    """Return whether a value may reach zero within two steps of the differences."""
    return np.asarray(np.abs(value) <= 2 * _DIFFERENCE * np.abs(change).max(axis=0))


def _solved(gram: Floats, gradient: Floats, ridge: Floats) -> Floats:
    """Solve (gram + ridge)·step = gradient for one or two parameters per row, by Cramer's rule."""
    if gradient.shape[1] == 1:
        return gradient / (gram[:, 0] + ridge)
    first, second, beside = gram[:, 0, 0] + ridge[:, 0], gram[:, 1, 1] + ridge[:, 1], gram[:, 0, 1]
    turned = [
        second * gradient[:, 0] - beside * gradient[:, 1],
        first * gradient[:, 1] - beside * gradient[:, 0],
    ]
    return np.stack(turned, axis=1) / np.maximum(first * second - beside**2, 1e-300)[:, None]
