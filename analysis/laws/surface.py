"""Surface over model size and data, y = E + A·N^-α + B·D^-β (Hoffmann et al. 2022, §3.3, eq. 2).

The objective is Σ w·Huber_δ(ln y − ln ŷ), equation 3 there; an infinite δ gives squared logarithms. For given
α and β the surface is linear in E, A, B ≥ 0, so a start needs only the two exponents: its linear part is
solved exactly (least squares on y/ŷ; the best non-negative solution among the subsets of the three terms).
From there a Newton search with analytic first and second derivatives minimises over (ln E, ln A, ln B, α, β),
damped separately for each fit (Levenberg 1944) by the reweighted Gauss-Newton matrix. All fits share N and D,
so thousands of fits with their own weights run at once. Small grids may use a single exponent, α = β, and
thus four parameters (Gadre et al. 2024, eq. 4: L = E + (a·M^η + b·M^-η)·C^-η with D = M·N and η = α/2).
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analysis.arrays import Floats
from analysis.laws.surface_search import BOUNDS, SMALLEST, Data, project, search
from budgets.quantity import plural

SurfaceStatus = Literal["ok", "term undetermined", "exponent at bound", "restarts disagree", "too few points"]

HUBER_DELTA = 1e-3
# Exponents to start from; published ones lie between 0.1 and 1.2.
_STARTS = np.array([(alpha, beta) for alpha in (0.1, 0.3, 0.6, 1.2) for beta in (0.1, 0.3, 0.6, 1.2)])
_SHARED_STARTS = np.repeat(np.geomspace(0.1, 1.2, 8)[:, None], 2, axis=1)
_SIZES = 3
_SAME = 1e-8


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceFit:
    """A fitted surface y = floor + a·N^-alpha + b·D^-beta.

    Attributes:
        floor: E, in units of y.
        a: A, the term of model size at N = 1, in units of y.
        b: B, the term of data at D = 1, in units of y.
        alpha: Exponent of model size.
        beta: Exponent of data.
        status: ``ok``, or what the data do not determine.
        reason: The status in one sentence.
        rows: Number of runs behind the fit.
        objective: Σ w·Huber(residual of ln y) at the optimum.
        starts: Number of searches, each from other exponents.
        agreement: Number of these that ended at the same objective.
        shared: True if the two exponents were held equal.
    """

    floor: float = float("nan")
    a: float = float("nan")
    b: float = float("nan")
    alpha: float = float("nan")
    beta: float = float("nan")
    status: SurfaceStatus
    reason: str
    rows: int
    objective: float = float("nan")
    starts: int = 0
    agreement: int = 0
    shared: bool = False

    @property
    def parameters(self) -> int:
        """Number of fitted parameters."""
        return _parameters(shared=self.shared)

    @property
    def supported(self) -> bool:
        """True if the data support the surface."""
        return self.status in ("ok", "term undetermined")

    def __call__(self, n: Floats, d: Floats) -> Floats:
        """Return the surface at model sizes and data."""
        return self.floor + self.a * n**-self.alpha + self.b * d**-self.beta


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceDraws:
    """Surfaces fitted to many draws; every value has the shape (draws,) and the units of `SurfaceFit`."""

    floor: Floats
    a: Floats
    b: Floats
    alpha: Floats
    beta: Floats
    objective: Floats

    def __call__(self, n: Floats, d: Floats) -> Floats:
        """Return the surfaces at model sizes and data, shape (draws, points)."""
        of_size = self.a[:, None] * np.exp(-self.alpha[:, None] * np.log(n))
        of_data = self.b[:, None] * np.exp(-self.beta[:, None] * np.log(d))
        return self.floor[:, None] + of_size + of_data

    def one(self, draw: int, like: SurfaceFit) -> SurfaceFit:
        """Return the surface of one draw; status and the like are those of the fit ``like``."""
        return replace(
            like, floor=float(self.floor[draw]), a=float(self.a[draw]), b=float(self.b[draw]),
            alpha=float(self.alpha[draw]), beta=float(self.beta[draw]), objective=float(self.objective[draw]),
        )  # fmt: skip


def fit(  # noqa: PLR0913 (a surface has two axes)
    n: Floats,
    d: Floats,
    y: Floats,
    *,
    weights: Floats | None = None,
    delta: float = HUBER_DELTA,
    starts: Floats | None = None,
    shared: bool = False,
) -> SurfaceFit:
    """Fit one surface.

    Args:
        n: Model sizes, above zero, shape (points,): parameters or FLOPs per sample.
        d: Data, above zero, shape (points,): tokens or samples seen.
        y: Loss or error, above zero, shape (points,).
        weights: Runs behind each point; one by default.
        delta: Residual of ln y at which Huber's loss turns from squares to absolute values; infinite for
            squares.
        starts: Exponents (α, β) to search from, shape (starts, 2); a grid by default.
        shared: Fit with α = β.

    Raises:
        ValueError: A value is not finite or not above zero.
    """
    if not all(np.isfinite(values).all() and (values > 0).all() for values in (n, d, y)):
        raise ValueError("a surface needs finite model sizes, data and values above zero")
    weights = np.ones(len(y)) if weights is None else weights
    sizes = min(len(np.unique(n)), len(np.unique(d)))
    rows = int(weights.sum())
    parameters = _parameters(shared=shared)
    if len(y) <= parameters or sizes < _SIZES:
        reason = (
            f"{plural(len(y), 'point')}, {plural(sizes, 'size')} of model or data; {parameters} parameters "
            f"need at least {parameters + 1} points and {_SIZES} of each"
        )
        return SurfaceFit(status="too few points", reason=reason, rows=rows, shared=shared)
    data = Data.of(n, d, y[None, :], weights[None, :], delta, shared=shared)
    starts = starts if starts is not None else (_SHARED_STARTS if shared else _STARTS)
    ends, objectives = search(data, project(data, starts))
    best = int(objectives.argmin())
    # Searches that end within rounding of the best objective found the same optimum.
    agreement = int((objectives <= objectives[best] * (1 + _SAME) + 1e-15).sum())
    status, reason = _judge(data, ends[best], agreement)
    judged = SurfaceFit(
        status=status, reason=reason, rows=rows, starts=len(objectives), agreement=agreement, shared=shared
    )
    return _natural(data, ends, objectives).one(best, judged)


def fit_draws(  # noqa: PLR0913 (a surface has two axes)
    n: Floats, d: Floats, y: Floats, *, weights: Floats, around: SurfaceFit, delta: float = HUBER_DELTA
) -> SurfaceDraws:
    """Fit the surface to many sets of y, weights or data at once.

    Args:
        n: Shape (points,).
        d: Shape (points,), or (draws, points).
        y: Shape (draws, points), or (1, points) if all draws share it.
        weights: Shape (draws, points), or (1, points) if all draws share them; in a bootstrap, how often each
            run was drawn.
        around: Fit to all the data. Each search starts there; it also sets whether α = β.
        delta: As in `fit`.
    """
    data = Data.of(n, d, y, weights, delta, shared=around.shared)
    # E, A and B in centred logarithms, not below the smallest term that a search follows.
    parts = (around.floor, around.a * data.unit_n**-around.alpha, around.b * data.unit_d**-around.beta)
    logs = np.log(np.maximum(parts, np.exp(data.lowest)))
    start = np.array([*logs, around.alpha, around.beta])
    draws = max(len(y), len(weights), len(np.atleast_2d(d)))
    ends, objectives = search(data, np.tile(start, (draws, 1)))
    return _natural(data, ends, objectives)


def _parameters(*, shared: bool) -> int:
    return 4 if shared else 5


def _natural(data: Data, ends: Floats, objectives: Floats) -> SurfaceDraws:
    # A and B at N = D = 1, from their values at the geometric means of N and D.
    parts = np.exp(ends[:, :3])
    alpha, beta = ends[:, 3], ends[:, 4]
    return SurfaceDraws(
        floor=parts[:, 0], a=parts[:, 1] * data.unit_n**alpha, b=parts[:, 2] * data.unit_d**beta,
        alpha=alpha, beta=beta, objective=objectives,
    )  # fmt: skip


def _judge(data: Data, end: Floats, agreement: int) -> tuple[SurfaceStatus, str]:
    low, high = BOUNDS
    names = ("the floor", "the term of model size", "the term of data")
    # A term counts as zero half-way (in logarithms) down to the smallest followed one.
    lost = [
        name for name, value in zip(names, end[:3], strict=True) if value < data.lowest - np.log(SMALLEST) / 2
    ]
    if (end[3:] < low * 1.01).any() or (end[3:] > high * 0.99).any():
        return "exponent at bound", f"an exponent ended at a bound of [{low:g}, {high:g}]"
    if lost:
        return "term undetermined", f"{' and '.join(lost)} ended at zero, so the data do not determine it"
    if agreement < 2:  # noqa: PLR2004 (one start alone is no agreement)
        return "restarts disagree", "no two searches ended at the same optimum"
    return "ok", "fitted"
