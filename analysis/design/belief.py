"""Joint draws of the true errors of all cells of a grid, run or not.

Along a curve the error is a law plus a discrepancy, and a run is the error plus its noise:

    f(x) = law(x; slope, x₀, E, A) + d(x),   run = f(x) + N(0, v)
    cov(d(x), d(x')) = s²·(½·[x = x'] + ½·min(ln x/x₁, ln x'/x₁)),   x₁ the smallest x

The law has one of two forms of ``analysis.laws.forms``: the power law with floor and shift, and, if the error
of chance is known, the bounded law. Slope, x₀ and E lie on a grid. Around a point of it the law is linear in
A and, to first order, in the others' deviations of about half a step, all normal: so the grid may be coarse,
and f is normal, with mean, covariance and evidence in closed form. The belief about a curve is the mixture
over the grid, weighted by the evidence and by shares that all curves of a family have in common:

* The shares are estimated from all curves by expectation maximisation (Kiefer and Wolfowitz 1956), most of
  them kept uniform. A curve with few runs takes its shape from its family.
* The evidence of the whole family weighs the values of s; for a forecast some of it is kept uniform.
  Evidence is the product of the densities of each result given those before it, so cells without a run are
  as wide as forecasts of results have missed.
* The noise of a run is measured between seeds in units of the counting noise, and shrunk towards the pooled
  noise (``analysis.cells.noise``) and a weak prior. The levels of one trunk share their noise: all pairs of
  levels correlate alike, by a correlation that is measured between seeds and shrunk towards a weak prior.
* The errors are estimated by generalised least squares, so a level with one seed is corrected by how this
  seed did at the other levels. Each draw stretches a curve by √(ν/χ²ν), ν its noise's degrees of freedom.

The draws are Matheron's: a draw of the prior, moved by the gain times (data − drawn data).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from analysis.arrays import Floats, Indices, Mask
from analysis.cells.bootstrap import agresti_coull
from analysis.cells.noise import level_excess, moderated

# Prior of the noise of a run: a multiple of the counting noise, at least this standard deviation, and the
# degrees of freedom that the prior counts as.
_PRIOR_NOISE, _PRIOR_SD, _PRIOR_FREEDOM = 1.5, 0.008, 4.0
# Prior of the correlation between the levels of a trunk: its mean, the pairs of levels that it counts as, and
# the largest correlation.
_PRIOR_SHARED, _PRIOR_PAIRS, _MOST_SHARED = 0.5, 10.0, 0.95
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
DISCREPANCIES = (0.004, 0.01, 0.02, 0.04)
"""Values of s."""
_KEPT_UNIFORM, _ROUNDS = 0.75, 6
_FAR_UNIFORM = 0.3  # share of the weights of s; smooth runs do not rule out a break beyond them
_WHITE, _WALK = 0.5, 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The runs of a family of curves at some points each.

    Attributes:
        x: Training FLOPs of the points, shape (curves, points).
        errors: Errors of the runs as fractions (no metric of a declared study is a loss), NaN without a run;
            a unit is a trunk, or a run without one; shape (curves, units, points).
        images: Images that the error is counted over; NaN if it counts none.
        chance: Error of chance; NaN if unknown.
    """

    x: Floats
    errors: Floats
    images: float
    chance: float

    @property
    def runs(self) -> Floats:
        """Number of runs, shape (curves, points)."""
        return np.asarray(np.isfinite(self.errors).sum(axis=1), dtype=np.float64)

    @property
    def mean(self) -> Floats:
        """Mean error of the runs; 0 without runs; shape (curves, points)."""
        return np.asarray(np.nansum(self.errors, axis=1) / np.maximum(self.runs, 1.0))


def _noise_of(measured: Measured) -> tuple[Floats, Floats, float]:
    """Return the noise of runs.

    Returns:
        Variance of a run, shape (curves, points); its degrees of freedom, shape (curves, 1); and the
        correlation between the levels of a unit.
    """
    runs, seen = measured.runs, measured.runs > 0
    typical = measured.mean[seen].mean() if seen.any() else 0.5
    error = np.where(seen, measured.mean, typical)
    if np.isfinite(measured.images):
        share = agresti_coull(error, measured.images)
        unit = share * (1.0 - share) / measured.images
    else:  # a metric that counts no images: half a point takes the place of its counting noise
        unit = np.full_like(error, 0.005**2)
    expected = np.maximum(_PRIOR_NOISE**2, _PRIOR_SD**2 / unit.mean())
    off = (measured.errors - measured.mean[:, None]) / np.sqrt(unit)[:, None]
    off = np.where(np.isfinite(off) & (runs > 1)[:, None], off, np.nan)
    shared, levels = _shared(off)
    fewer = level_excess(levels, shared)
    squares = np.nansum(off**2, axis=(1, 2)) / fewer
    freedom = np.maximum(runs - 1.0, 0.0).sum(axis=1) / fewer
    total = freedom.sum()
    ratio, degrees = np.full(len(runs), np.sqrt(expected)), np.full(len(runs), np.inf)
    if total and squares.any():
        ratio, degrees = moderated(squares, freedom)
    # The prior joins as so many further degrees of freedom: few seeds leave the noise near what is usual.
    degrees = np.minimum(degrees, total) + _PRIOR_FREEDOM
    variance = (ratio**2 * (degrees - _PRIOR_FREEDOM) + expected * _PRIOR_FREEDOM) / degrees
    if np.isfinite(measured.images):  # no noise is below that of counting
        variance = np.maximum(variance, 1.0)
    return unit * variance[:, None], degrees, shared


def estimates(measured: Measured, noise: Floats, shared: float) -> tuple[Floats, Floats]:
    """Return generalised least-squares estimates of the errors from the runs, and their covariance.

    Points without runs have a variance so large that they carry no information.

    Args:
        measured: The runs.
        noise: Variance of a run, shape (curves, points).
        shared: Correlation between the levels of a unit.

    Returns:
        Estimates, shape (curves, points), and covariances, shape (curves, points, points).
    """
    run = np.isfinite(measured.errors)
    seen, deviation = np.asarray(run.any(axis=1)), np.sqrt(noise)
    levels = run.sum(axis=2, keepdims=True)
    # The inverse of (1 − r)·I + r·11ᵀ over k levels is (I − r/(1 + (k − 1)r)·11ᵀ)/(1 − r).
    weight = shared / (1 + np.maximum(levels - 1, 0) * shared)
    off = np.where(run, (measured.errors - measured.mean[:, None]) / deviation[:, None], 0.0)
    pull = (off - weight * off.sum(axis=2, keepdims=True)) * run / (1 - shared)
    weighted = weight * run
    precision = (run.sum(axis=1)[:, None] * np.eye(run.shape[2])
                 - np.einsum("cup,cuq->cpq", weighted, run)) / (1 - shared)  # fmt: skip
    inverse = np.linalg.inv(precision + ~seen[:, None] * np.eye(run.shape[2]))
    estimate = measured.mean + deviation * np.einsum("cpq,cq->cp", inverse, pull.sum(axis=1))
    deviation = np.where(seen, deviation, 1e2)
    return estimate, deviation[:, :, None] * inverse * deviation[:, None]


def _shared(off: Floats) -> tuple[float, Floats]:
    """Return the correlation between the levels of a unit, and the mean number of levels of a curve's units.

    ``off`` has the deviations of runs from the mean of their point, NaN without, shape (curves, units,
    points).
    """
    levels = np.isfinite(off).sum(axis=2)
    squares = np.nansum(off**2, axis=2)
    # Σ rᵢrⱼ over the pairs of each unit, over Σ (rᵢ² + rⱼ²)/2.
    together = float((np.nansum(off, axis=2) ** 2 - squares).sum())
    apart = float(((levels - 1.0) * squares)[levels > 1].sum())
    pairs = float((levels * (levels - 1.0) / 2).sum())
    measured = together / apart if apart else 0.0
    shared = (pairs * measured + _PRIOR_PAIRS * _PRIOR_SHARED) / (pairs + _PRIOR_PAIRS)
    units = np.maximum((levels > 0).sum(axis=1), 1)
    return float(np.clip(shared, 0.0, _MOST_SHARED)), np.asarray(levels.sum(axis=1) / units)


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
    """Return the laws at computes (curves, points); cached, since all decisions of a study use the same ones.

    The error of chance is NaN if unknown.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Belief:
    """Joint draws of the true errors, shape (draws, curves, points).

    The noise is the variance of one run, shape (curves, points).
    """

    draws: Floats
    noise: Floats


def believe(measured: Measured, *, draws: int, generator: np.random.Generator, far: bool = False) -> Belief:
    """Draw the true errors of all points of a family.

    ``far`` says that the draws are read beyond the levels that were run, where a law may break: some of the
    weights of s are then kept uniform.
    """
    noise, freedom, shared = _noise_of(measured)
    laws = law_grid(measured.x, chance=measured.chance)
    seen = measured.runs > 0
    estimate, covariance = estimates(measured, noise, shared)
    residual = np.where(seen, estimate - laws.middle, 0.0)
    # Covariance of d in units of s². Axes below: h values of s, g shapes, c curves, p and q points, s draws.
    along = np.log(measured.x / measured.x.min())
    walked = np.minimum(along[:, :, None], along[:, None, :])
    beside = _WHITE * np.eye(along.shape[1]) + _WALK * walked
    sigmas = np.array(DISCREPANCIES)
    prior = laws.covariance[None] + (sigmas**2)[:, None, None, None, None] * beside
    inverse = np.linalg.inv(prior + covariance)
    pull = np.einsum("hgcpq,gcq->hgcp", inverse, residual)
    # ln evidence = −½·ln|K| − ½·rᵀ·K⁻¹·r up to a constant, with K = prior + covariance and ln|K⁻¹| = −ln|K|.
    evidence = 0.5 * np.linalg.slogdet(inverse)[1] - 0.5 * (residual * pull).sum(axis=-1)
    weights, by_sigma = _weights(evidence, np.asarray(seen.any(axis=1)))
    if far:
        by_sigma = _FAR_UNIFORM / len(by_sigma) + (1 - _FAR_UNIFORM) * by_sigma
    # Posterior mean of f for each s and shape: μ + G·r with the gain G = prior·K⁻¹.
    gains = (prior @ inverse) * seen[:, None, :]
    centre = laws.middle + np.einsum("hgcpq,gcq->hgcp", gains, residual)

    # Each draw has one s for the family and one shape for each curve, at the weights of the mixture.
    curves, points = measured.x.shape
    sigma = generator.choice(len(sigmas), size=draws, p=by_sigma)
    ahead = np.cumsum(weights, axis=1)
    chosen = np.empty((draws, curves), dtype=np.intp)
    uniform = generator.random((draws, curves))
    for h in range(len(sigmas)):
        here = sigma == h
        chosen[here] = _drawn(ahead[h], uniform[here])
    chosen = np.minimum(chosen, len(laws.middle) - 1)
    # Matheron: a draw of the prior (law and discrepancy) and of the data around it; the draw of the
    # posterior is the posterior mean plus prior draw − G·(drawn data).
    each = np.arange(curves)[None, :]
    path = np.einsum(
        "scpk,sck->scp", laws.columns[chosen, each], generator.standard_normal((draws, curves, 4))
    )
    loose = np.einsum("cpq,scq->scp", np.linalg.cholesky(beside),
                      generator.standard_normal((draws, curves, points)))  # fmt: skip
    path += sigmas[sigma][:, None, None] * loose
    of_runs = np.einsum("cpq,scq->scp", np.linalg.cholesky(covariance),
                        generator.standard_normal((draws, curves, points)))  # fmt: skip
    drawn = path + np.where(seen, of_runs, 0.0)
    here = sigma[:, None]
    spread = path - np.einsum("scpq,scq->scp", gains[here, chosen, each], drawn)
    stretch = np.sqrt(freedom / generator.chisquare(freedom, size=(draws, curves)))
    found = centre[here, chosen, each] + stretch[:, :, None] * spread
    return Belief(draws=np.clip(found, 0.0, 1.0), noise=noise)


def _weights(evidence: Floats, known: Mask) -> tuple[Floats, Floats]:
    """Return the weights of the shapes for each s and curve, shape (s, shapes, curves), and those of s.

    The ln evidence has that shape too; ``known`` marks the curves with runs.
    """
    shapes = evidence.shape[1]
    top = evidence.max(axis=1, keepdims=True)  # subtracted before exp, so that nothing overflows
    likelihood = np.exp(evidence - top)
    shared = np.full((len(evidence), shapes, 1), 1 / shapes)
    # Expectation maximisation: the weights of each curve given the shares, then the shares as their mean.
    for _ in range(_ROUNDS if known.any() else 0):
        each = shared * likelihood
        each /= each.sum(axis=1, keepdims=True)
        mean = each[:, :, known].mean(axis=2, keepdims=True)
        shared = _KEPT_UNIFORM / shapes + (1 - _KEPT_UNIFORM) * mean
    each = shared * likelihood
    total = each.sum(axis=1, keepdims=True)
    # Curves are independent given s: the evidence of s is the product over them.
    whole = (np.log(total) + top)[:, 0, :].sum(axis=1)
    by_sigma = np.exp(whole - whole.max())
    return each / total, by_sigma / by_sigma.sum()


def _drawn(ahead: Floats, uniform: Floats) -> Indices:
    """Return the shape that each uniform number of (draws, curves) draws.

    ``ahead`` has the summed weights of the shapes up to each, (shapes, curves).
    """
    return np.stack(list(map(np.searchsorted, ahead.T, uniform.T)), axis=1)
