"""Surface over model size and repeated data: y = E + A·N^-α + B·D'^-β (Muennighoff et al. 2023, §3.1, eq. 5).

A pair that is seen again is worth less than a new one. Of U unique pairs and R = D/U − 1 repetitions the
effective data are D' = U + U·R*·(1 − exp(−R/R*)): all of D while R ≪ R*, never more than U·(1 + R*). Their
decay of excess parameters is not fitted. For a given R* this is the surface of `surface`; R* itself is
scanned on a grid and refined by a bounded search on its logarithm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.surface import HUBER_DELTA, SurfaceFit, fit, fit_draws

Floats = NDArray[np.float64]
Status = Literal["ok", "no repetition", "decay undetermined", "no surface"]

DECAY_BOUNDS = (0.1, 1000.0)
_GRID = np.geomspace(*DECAY_BOUNDS, 17)
_SECTIONS = 28


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedFit:
    """A fitted surface with decay.

    Attributes:
        surface: In model size and effective data.
        decay: R*: repetitions after which a repeated pair has lost 1 − 1/e of its worth.
        status: ``ok``, or why there is no decay to tell.
        reason: The status in one sentence.
    """

    surface: SurfaceFit
    decay: float
    status: Status
    reason: str

    def __call__(self, n: Floats, unique: Floats, seen: Floats) -> Floats:
        """The law at model sizes, unique pairs and samples seen."""
        return self.surface(n, effective(unique, seen, self.decay))


def effective(unique: Floats, seen: Floats, decay: float) -> Floats:
    """Effective data: all that is seen up to one epoch, less and less of it after."""
    if np.isinf(decay):
        return seen
    repeats = np.maximum(seen / unique - 1.0, 0.0)
    once = np.minimum(seen, unique)
    return np.asarray(once - unique * decay * np.expm1(-repeats / decay), dtype=np.float64)


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
    if not plain.starts:
        return RepeatedFit(surface=plain, decay=float("nan"), status="no surface", reason=plain.reason)
    if (seen <= unique).all():
        reason = "no pair is seen twice: nothing tells what a repetition is worth"
        return RepeatedFit(surface=plain, decay=float("inf"), status="no repetition", reason=reason)

    def objective(log_decay: float) -> float:
        data = effective(unique, seen, float(np.exp(log_decay)))
        drawn = fit_draws(n, data, y[None, :], weights=weights[None, :], around=plain, delta=delta)
        return float(drawn.objective[0])

    scanned = [objective(log_decay) for log_decay in np.log(_GRID)]
    best = int(np.argmin(scanned))
    if best in (0, len(_GRID) - 1):
        end = "nothing" if best == 0 else "as much as a new pair"
        decay = float(_GRID[best])
        reason = f"R* ended at a bound: a repeated pair is worth {end} as far as these data tell"
        surface = fit(n, effective(unique, seen, decay), y, weights=weights, delta=delta)
        return RepeatedFit(surface=surface, decay=decay, status="decay undetermined", reason=reason)
    decay = float(np.exp(_golden(objective, *np.log(_GRID[[best - 1, best + 1]]))))
    surface = fit(n, effective(unique, seen, decay), y, weights=weights, delta=delta)
    if not surface.supported:
        return RepeatedFit(surface=surface, decay=decay, status="no surface", reason=surface.reason)
    return RepeatedFit(surface=surface, decay=decay, status="ok", reason="fitted")


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
