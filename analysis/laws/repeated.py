"""Surface over model size and repeated data, y = E + A·N'^-α + B·D'^-β.

The law is equation 5 of Muennighoff et al. 2023. A repeated pair is worth less than a new one. For U unique
pairs and R = D/U − 1 repetitions the effective data are D' = U + U·R*·(1 − exp(−R/R*)): nearly D while R ≪
R*, and at most U·(1 + R*). Parameters in excess of N_opt(U), the best size for the unique pairs, are worth
less as well: N' follows from N by the same formula with N_opt(U) = G·(G·U)^(β/α), G = (αA/βB)^(1/(α+β)), in
place of U and its own R*.

If parameters keep their full worth and the decay of data is given, this is the surface of `surface`. So all
decays on a grid are searched at once, then on finer grids around the best one. From there all seven
parameters are searched together, and N_opt follows the law. The decay of parameters bends the law as α does;
data without models both far below and far above N_opt cannot tell the two apart. It is therefore kept only if
an F test at 5 % finds that it lowers the objective.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from math import isfinite
from typing import Literal

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices, Mask
from analysis.laws.descent import descend
from analysis.laws.surface import HUBER_DELTA, SurfaceFit, fit, fit_draws
from analysis.laws.surface_search import BOUNDS, SMALLEST

RepeatedStatus = Literal["ok", "no repetition", "decay undetermined", "no surface"]

DECAY_BOUNDS = (0.1, 1000.0)
_UNDECIDED = "undecided: it does not improve the fit by more than chance would"
_GRID = np.geomspace(*DECAY_BOUNDS, 17)
_ZOOMS = 2
_SIZE_STARTS = (0.5, 5.0, 50.0)
_MIDDLING = 0.3
_PARAMETERS = 7
_LEVEL = 0.95
_EDGE = 1e-3
_ENDLESS = 300.0  # bound of ln N_opt, beyond any model size


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """Points of a surface: model sizes, unique pairs and samples seen, each of shape (points,)."""

    n: Floats
    unique: Floats
    seen: Floats

    @classmethod
    def of(cls, cells: pd.DataFrame) -> "Points":
        """Return the points of cells, whose model size is training FLOPs per sample."""
        columns = ("train_flops_per_sample", "subset_size", "samples_seen")
        n, unique, seen = (cells[name].to_numpy(np.float64) for name in columns)
        return cls(n=n, unique=unique, seen=seen)

    def take(self, kept: Mask | Indices) -> "Points":
        """Return the selected points."""
        return Points(n=self.n[kept], unique=self.unique[kept], seen=self.seen[kept])


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedFit:
    """A fitted surface with decay.

    Attributes:
        surface: Surface in effective model size and effective data.
        decay: R* of data: repetitions after which a repeated pair has lost 1 − 1/e of its worth.
        status: ``ok``, or why the decay is unknown.
        reason: The status in one sentence.
        size_decay: R* of parameters; infinite if the data do not show one.
        size_reason: Status of ``size_decay`` in one sentence.
        base: Law that N_opt is computed from.
    """

    surface: SurfaceFit
    decay: float
    status: RepeatedStatus
    reason: str
    size_decay: float
    size_reason: str
    base: SurfaceFit

    @property
    def parameters(self) -> int:
        """Number of fitted parameters."""
        return self.surface.parameters + sum(map(isfinite, (self.decay, self.size_decay)))

    def effective(self, at: Points) -> tuple[Floats, Floats]:
        """Return effective model sizes and effective data."""
        return (
            effective(best_size(self.base, at.unique), at.n, self.size_decay),
            effective(at.unique, at.seen, self.decay),
        )

    def __call__(self, at: Points) -> Floats:
        """Return the law at some points."""
        return self.surface(*self.effective(at))


def once(surface: SurfaceFit) -> RepeatedFit:
    """Return a surface as a law without decay, in which repeated pairs keep their full worth."""
    return RepeatedFit(
        surface=surface, decay=float("inf"), status="no repetition", reason="repetition is not modelled",
        size_decay=float("inf"), size_reason=_UNDECIDED, base=surface,
    )  # fmt: skip


def effective(unique: Floats, seen: Floats, decay: Floats | float) -> Floats:
    """Return D': all samples up to one epoch, and a decaying share of those after it."""
    if not np.isfinite(decay).all():
        return seen
    # R, and D' = min(D, U) + U·R*·(1 − e^(−R/R*)); expm1 keeps precision for small R.
    repeats = np.maximum(seen / unique - 1.0, 0.0)
    once = np.minimum(seen, unique)
    return once - unique * decay * np.expm1(-repeats / decay)


def best_size(law: SurfaceFit, unique: Floats) -> Floats:
    """Return N_opt, the model size whose compute-optimal data are ``unique`` pairs seen once."""
    if not (law.a > 0 and law.b > 0):
        return np.full(len(unique), np.inf)
    log_a, log_b, alpha, beta = np.array([np.log(law.a), np.log(law.b), law.alpha, law.beta])[:, None]
    return np.exp(_log_best_size(log_a, log_b, alpha, beta, unique))


def _log_best_size(log_a: Floats, log_b: Floats, alpha: Floats, beta: Floats, unique: Floats) -> Floats:
    # ln N_opt = ln G + (β/α)·(ln G + ln U), with ``ratio`` = ln G.
    ratio = (np.log(alpha / beta) + log_a - log_b) / (alpha + beta)
    return np.clip(ratio + (ratio + np.log(unique)) * beta / alpha, -_ENDLESS, _ENDLESS)


def fit_repeated(  # noqa: PLR0913 (three axes and a value)
    n: Floats,
    unique: Floats,
    seen: Floats,
    y: Floats,
    *,
    weights: Floats | None = None,
    delta: float = HUBER_DELTA,
) -> RepeatedFit:
    """Fit one surface with decay; weights, one by default, are the runs behind each point.

    Raises:
        ValueError: A value is not finite or not above zero.
    """
    weights = np.ones(len(y)) if weights is None else weights
    plain = fit(n, seen, y, weights=weights, delta=delta)
    none = once(plain)
    if not plain.starts:
        return replace(none, decay=float("nan"), status="no surface", reason=plain.reason)
    if (seen <= unique).all():
        return replace(none, reason="no pair is seen twice, so the worth of repetition is unknown")

    def lowest(decays: Floats, around: SurfaceFit) -> tuple[Floats, SurfaceFit]:
        """Return the objective at each decay, and the surface at the lowest."""
        data = effective(unique, seen, decays[:, None])
        drawn = fit_draws(n, data, y[None, :], weights=weights[None, :], around=around, delta=delta)
        return drawn.objective, drawn.one(int(drawn.objective.argmin()), around)

    decay, inside = _search(lowest, plain)
    surface = fit(n, effective(unique, seen, decay), y, weights=weights, delta=delta)
    found = replace(none, surface=surface, base=surface, decay=decay, status="ok", reason="fitted")
    if not inside:
        end = "nothing" if decay == DECAY_BOUNDS[0] else "as much as a new one"
        reason = f"R* ended at a bound: in these data a repeated pair is worth {end}"
        return replace(found, status="decay undetermined", reason=reason)
    if not surface.supported:
        return replace(found, status="no surface", reason=surface.reason)
    return _with_size_decay(found, n, unique, seen, y, weights=weights, delta=delta)


def _with_size_decay(  # noqa: PLR0913 (three axes and a value)
    found: RepeatedFit, n: Floats, unique: Floats, seen: Floats, y: Floats, *, weights: Floats, delta: float
) -> RepeatedFit:
    """Add a decay of parameters if it improves the fit by more than chance would."""
    unit_n, unit_d = np.log(n).mean(), np.log(unique).mean()

    def residual(theta: Floats) -> Floats:
        log_e, log_a, log_b, alpha, beta, log_decay, log_size_decay = theta.T[:, :, None]
        # A and B are in centred logarithms; α·unit_n and β·unit_d convert them to A and B at N = D = 1.
        best = np.exp(_log_best_size(log_a + alpha * unit_n, log_b + beta * unit_d, alpha, beta, unique))
        of_size = log_a - alpha * (np.log(effective(best, n, np.exp(log_size_decay))) - unit_n)
        of_data = log_b - beta * (np.log(effective(unique, seen, np.exp(log_decay))) - unit_d)
        law = np.logaddexp(np.logaddexp(log_e, of_size), of_data)  # far from the optimum a term may overflow
        return np.asarray(np.log(y) - law, dtype=np.float64)

    law = found.surface
    parts = (law.floor, law.a * np.exp(-law.alpha * unit_n), law.b * np.exp(-law.beta * unit_d))
    logs = np.log(np.maximum(parts, SMALLEST * y.min()))
    lowest = np.array([*[np.log(SMALLEST * y.min())] * 3, *[BOUNDS[0]] * 2, *np.log(DECAY_BOUNDS[:1] * 2)])
    highest = np.array([*[np.log(y.max() / SMALLEST)] * 3, *[BOUNDS[1]] * 2, *np.log(DECAY_BOUNDS[1:] * 2)])
    # Half of the starts begin at the surface found so far, the others at equal terms and middling exponents.
    middling = [*[np.log(y.min() / 3)] * 3, *[_MIDDLING] * 2]
    starts = [
        [*start, np.log(found.decay), decay]
        for start, decay in product(([*logs, law.alpha, law.beta], middling), np.log(_SIZE_STARTS))
    ]
    ends, objectives = descend(
        residual, np.array(starts), weights=weights, delta=delta, bounds=(lowest, highest)
    )
    best = int(objectives.argmin())
    theta, objective = ends[best], float(objectives[best])
    from scipy.special import fdtri  # noqa: PLC0415 (a fifth of the report's import, for one number)

    freedom = len(y) - _PARAMETERS
    # F test of one parameter: (drop of the objective) / (objective / freedom) must exceed the 95 % quantile.
    needed = fdtri(1, freedom, _LEVEL) / freedom if freedom > 0 else np.inf
    # A decay at its bound means that the data do not determine it.
    bound = (np.abs(theta[5:] - lowest[5:]) < _EDGE).any() or (np.abs(theta[5:] - highest[5:]) < _EDGE).any()
    if bound or law.objective - objective <= needed * objective:
        return found
    alpha, beta = float(theta[3]), float(theta[4])
    units = np.array([0.0, alpha * unit_n, beta * unit_d])
    floor, a, b = (float(value) for value in np.exp(theta[:3] + units))
    surface = replace(law, floor=floor, a=a, b=b, alpha=alpha, beta=beta, objective=objective)
    decay, size_decay = (float(value) for value in np.exp(theta[5:]))
    return replace(
        found, surface=surface, base=surface, decay=decay, size_decay=size_decay, size_reason="fitted"
    )


def _search(
    lowest: Callable[[Floats, SurfaceFit], tuple[Floats, SurfaceFit]], around: SurfaceFit
) -> tuple[float, bool]:
    """Return the decay of the lowest objective, and whether it lies between the bounds.

    Successively finer grids are searched, each starting from the best surface on the one before. The minimum
    of a parabola through the best point and its neighbours gives the result.
    """
    logs = np.log(_GRID)
    objectives, around = lowest(np.exp(logs), around)
    best = int(objectives.argmin())
    if best in (0, len(logs) - 1):
        return float(_GRID[best]), False
    for _ in range(_ZOOMS):
        logs = np.linspace(logs[best - 1], logs[best + 1], len(logs))
        objectives, around = lowest(np.exp(logs), around)
        best = min(max(int(objectives.argmin()), 1), len(logs) - 2)
    left, middle, right = objectives[best - 1 : best + 2]
    # Vertex of the parabola through three equidistant points.
    bend = left - 2 * middle + right
    shift = (left - right) / (2 * bend) if bend > 0 else 0.0
    return float(np.exp(logs[best] + np.clip(shift, -1.0, 1.0) * (logs[1] - logs[0]))), True
