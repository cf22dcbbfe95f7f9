"""Surface over model size and repeated data: y = E + A·N'^-α + B·D'^-β (Muennighoff et al. 2023, eq. 5).

A pair that is seen again is worth less than a new one. Of U unique pairs and R = D/U − 1 repetitions the
effective data are D' = U + U·R*·(1 − exp(−R/R*)): all of D while R ≪ R*, never more than U·(1 + R*).
Parameters beyond those that are best for the unique pairs are worth less, too: N' is made of N in the same
way, with N_opt(U) = G·(G·U)^(β/α), G = (αA/βB)^(1/(α+β)), in the place of U and a decay of its own.

With parameters at their full worth, and for a given decay of data, this is the surface of `surface`; the
decay is scanned on a grid and refined by a bounded search on its logarithm. From there all seven parameters
are searched together, N_opt following the law. The decay of parameters is kept only where it lowers the
objective by more than a parameter without meaning would (F, 5 %): it bends the law as α does, and data that
do not hold models both far below and far above N_opt cannot tell the two apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.surface import HUBER_DELTA, SurfaceFit, fit, fit_draws
from analysis.surface_search import BOUNDS, SMALLEST

Floats = NDArray[np.float64]
Status = Literal["ok", "no repetition", "decay undetermined", "no surface"]

DECAY_BOUNDS = (0.1, 1000.0)
_UNDECIDED = "could not be decided: with it the law fits no better than chance allows"
_GRID = np.geomspace(*DECAY_BOUNDS, 17)
_SECTIONS = 24
_SIZE_STARTS = (0.5, 5.0, 50.0)
_MIDDLING = 0.3
_PARAMETERS = 7
_LEVEL = 0.95
_EDGE = 1e-3
_ENDLESS = 300.0  # ln of a size that no model has
_STEP, _STEPS, _MOST_DAMPED, _FLAT = 1e-6, 300, 1e9, 1e-10


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedFit:
    """A fitted surface with decay.

    Attributes:
        surface: In effective model size and effective data.
        decay: R* of data: repetitions after which a repeated pair has lost 1 − 1/e of its worth.
        status: ``ok``, or why there is no decay to tell.
        reason: The status in one sentence.
        size_decay: R* of parameters; infinite where the data do not show one.
        size_reason: What the data say about it, in one sentence.
        base: The law that N_opt is read off.
    """

    surface: SurfaceFit
    decay: float
    status: Status
    reason: str
    size_decay: float
    size_reason: str
    base: SurfaceFit

    def effective(self, n: Floats, unique: Floats, seen: Floats) -> tuple[Floats, Floats]:
        """Effective model sizes and data."""
        return (
            effective(best_size(self.base, unique), n, self.size_decay),
            effective(unique, seen, self.decay),
        )

    def __call__(self, n: Floats, unique: Floats, seen: Floats) -> Floats:
        """The law at model sizes, unique pairs and samples seen."""
        return self.surface(*self.effective(n, unique, seen))


def effective(unique: Floats, seen: Floats, decay: float) -> Floats:
    """Effective data: all that is seen up to one epoch, less and less of it after."""
    if np.isinf(decay) or np.isnan(decay):
        return seen
    repeats = np.maximum(seen / unique - 1.0, 0.0)
    once = np.minimum(seen, unique)
    return np.asarray(once - unique * decay * np.expm1(-repeats / decay), dtype=np.float64)


def best_size(law: SurfaceFit, unique: Floats) -> Floats:
    """N_opt: the model size whose compute-optimal data are so many pairs, each seen once."""
    if not (law.a > 0 and law.b > 0):
        return np.full(len(unique), np.inf)
    ratio = np.log((law.alpha * law.a) / (law.beta * law.b)) / (law.alpha + law.beta)
    log_size = ratio + (ratio + np.log(unique)) * law.beta / law.alpha
    return np.asarray(np.exp(np.clip(log_size, -_ENDLESS, _ENDLESS)), dtype=np.float64)


def fit_repeated(  # noqa: PLR0913 (three axes and a value)
    n: Floats,
    unique: Floats,
    seen: Floats,
    y: Floats,
    *,
    weights: Floats | None = None,
    delta: float = HUBER_DELTA,
) -> RepeatedFit:
    """Fits one surface with decay.

    Args:
        n: Model sizes, shape (points,).
        unique: Unique pairs of each point's subset.
        seen: Samples seen.
        y: Loss or error, above zero.
        weights: Runs behind each point; one by default.
        delta: As in `surface.fit`.

    Raises:
        ValueError: A value is not finite or not above zero.
    """
    weights = np.ones(len(y)) if weights is None else weights
    plain = fit(n, seen, y, weights=weights, delta=delta)
    none = RepeatedFit(
        surface=plain, decay=float("nan"), status="no surface", reason=plain.reason, size_decay=float("inf"),
        size_reason=_UNDECIDED, base=plain,
    )  # fmt: skip
    if not plain.starts:
        return none
    if (seen <= unique).all():
        reason = "no pair is seen twice: nothing tells what a repetition is worth"
        return replace(none, decay=float("inf"), status="no repetition", reason=reason)

    def law(sizes: Floats, decay: float) -> SurfaceFit:
        return fit(sizes, effective(unique, seen, decay), y, weights=weights, delta=delta)

    def objective(sizes: Floats, decay: float, around: SurfaceFit) -> float:
        data = effective(unique, seen, decay)
        drawn = fit_draws(sizes, data, y[None, :], weights=weights[None, :], around=around, delta=delta)
        return float(drawn.objective[0])

    decay, inside = _search(lambda value: objective(n, value, plain))
    surface = law(n, decay)
    found = replace(none, surface=surface, base=surface, decay=decay, status="ok", reason="fitted")
    if not inside:
        end = "nothing" if decay == DECAY_BOUNDS[0] else "as much as a new pair"
        reason = f"R* ended at a bound: a repeated pair is worth {end} as far as these data tell"
        return replace(found, status="decay undetermined", reason=reason)
    if not surface.supported:
        return replace(found, status="no surface", reason=surface.reason)
    return _with_size_decay(found, n, unique, seen, y, weights=weights, delta=delta)


def _with_size_decay(  # noqa: PLR0913 (three axes and a value)
    found: RepeatedFit, n: Floats, unique: Floats, seen: Floats, y: Floats, *, weights: Floats, delta: float
) -> RepeatedFit:
    """Keeps a decay of parameters where it is worth a parameter."""
    units = np.exp([np.log(n).mean(), np.log(unique).mean()])
    points = np.stack([n, unique, seen])

    def built(theta: Floats) -> RepeatedFit:
        alpha, beta = float(theta[3]), float(theta[4])
        floor, a, b = (float(value) for value in np.exp(theta[:3]) * [1, units[0] ** alpha, units[1] ** beta])
        surface = replace(found.surface, floor=floor, a=a, b=b, alpha=alpha, beta=beta)
        decay, size_decay = (float(value) for value in np.exp(theta[5:]))
        return replace(found, surface=surface, base=surface, decay=decay, size_decay=size_decay)

    def residual(theta: Floats) -> Floats:
        return np.asarray(np.log(y) - np.log(built(theta)(*points)), dtype=np.float64)

    law = found.surface
    parts = (law.floor, law.a * units[0] ** -law.alpha, law.b * units[1] ** -law.beta)
    logs = np.log(np.maximum(parts, SMALLEST * y.min()))
    lowest = np.array([*[np.log(SMALLEST * y.min())] * 3, *[BOUNDS[0]] * 2, *np.log(DECAY_BOUNDS[:1] * 2)])
    highest = np.array([*[np.log(y.max() / SMALLEST)] * 3, *[BOUNDS[1]] * 2, *np.log(DECAY_BOUNDS[1:] * 2)])
    middling = [*[np.log(y.min() / 3)] * 3, *[_MIDDLING] * 2]
    starts = product(([*logs, law.alpha, law.beta], middling), np.log(_SIZE_STARTS))
    ends = [
        _descend(
            residual,
            np.array([*start, np.log(found.decay), decay]),
            weights=weights,
            delta=delta,
            bounds=(lowest, highest),
        )
        for start, decay in starts
    ]
    theta, objective = min(ends, key=lambda end: end[1])
    from scipy.special import fdtri  # noqa: PLC0415 (a fifth of the report's import, for one number)

    freedom = len(y) - _PARAMETERS
    needed = fdtri(1, freedom, _LEVEL) / freedom if freedom > 0 else np.inf
    bound = (np.abs(theta[5:] - lowest[5:]) < _EDGE).any() or (np.abs(theta[5:] - highest[5:]) < _EDGE).any()
    if bound or law.objective - objective <= needed * objective:
        return found
    best = built(theta)
    surface = replace(best.surface, objective=objective)
    return replace(best, surface=surface, base=surface, size_reason="fitted")


def _descend(
    residual: Callable[[Floats], Floats], theta: Floats, *, weights: Floats, delta: float,
    bounds: tuple[Floats, Floats],
) -> tuple[Floats, float]:  # fmt: skip
    """Levenberg's damped Gauss-Newton steps on reweighted squares, with differences for derivatives."""

    def objective(r: Floats) -> float:
        slope = np.clip(r, -delta, delta)
        return float(weights @ (slope * (r - slope / 2)))

    theta = np.clip(theta, *bounds)
    r, damping = residual(theta), 1e-2
    value = objective(r)
    for _ in range(_STEPS):
        shifts = _STEP * np.eye(len(theta))
        slopes = np.stack([(residual(theta + shift) - r) / _STEP for shift in shifts], axis=1)
        pull = weights * np.minimum(1.0, delta / np.maximum(np.abs(r), 1e-300))
        gram = slopes.T @ (pull[:, None] * slopes)
        while damping < _MOST_DAMPED:
            matrix = gram + damping * np.diag(np.diag(gram)) + 1e-12 * np.trace(gram) * np.eye(len(theta))
            step = np.clip(np.linalg.solve(matrix, slopes.T @ (pull * r)), -1.0, 1.0)
            tried = np.clip(theta - step, *bounds)
            new = residual(tried)
            gained = value - objective(new)
            if gained > 0:
                break
            damping *= 8
        else:
            break
        theta, r, value, damping = tried, new, value - gained, damping / 4
        if gained <= _FLAT * value:
            break
    return theta, value


def _search(objective: Callable[[float], float]) -> tuple[float, bool]:
    """The decay of the lowest objective, and whether it lies between the bounds."""
    scanned = [objective(float(decay)) for decay in _GRID]
    best = int(np.argmin(scanned))
    if best in (0, len(_GRID) - 1):
        return float(_GRID[best]), False
    ends = np.log(_GRID[[best - 1, best + 1]])
    return float(np.exp(_golden(lambda log_decay: objective(float(np.exp(log_decay))), *ends))), True


def _golden(objective: Callable[[float], float], low: float, high: float) -> float:
    """The minimum between two ends, by golden sections (Kiefer 1953)."""
    ratio = (5**0.5 - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = objective(left), objective(right)
    for _ in range(_SECTIONS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = objective(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = objective(right)
    return (low + high) / 2
