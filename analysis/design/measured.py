"""The runs of a family of curves, the noise of a run, and the errors estimated from the runs alone.

The noise is measured between seeds in units of the counting noise, and shrunk towards the pooled noise
(``analysis.cells.moderated``) and a weak prior. The levels of one trunk share their noise: all pairs of
levels correlate alike, by a correlation that is measured between seeds and shrunk towards a weak prior. The
errors are estimated by generalised least squares, so a level with one seed is corrected by how this seed did
at the other levels.
"""

from dataclasses import dataclass

import numpy as np

from analysis.arrays import Floats
from analysis.cells.bootstrap import agresti_coull
from analysis.cells.moderated import moderated
from analysis.cells.shared_noise import level_excess

# Prior of the noise of a run: a multiple of the counting noise, at least this standard deviation, and the
# degrees of freedom that the prior counts as.
_PRIOR_NOISE, _PRIOR_SD, _PRIOR_FREEDOM = 1.5, 0.008, 4.0
# Prior of the correlation between the levels of a trunk: its mean, the pairs of levels that it counts as, and
# the largest correlation.
_PRIOR_SHARED, _PRIOR_PAIRS, _MOST_SHARED = 0.5, 10.0, 0.95


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


def noise_of(measured: Measured) -> tuple[Floats, Floats, float]:
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
    else:
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
    degrees = np.minimum(degrees, total) + _PRIOR_FREEDOM
    variance = (ratio**2 * (degrees - _PRIOR_FREEDOM) + expected * _PRIOR_FREEDOM) / degrees
    if np.isfinite(measured.images):
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

    Args:
        off: Deviations of runs from the mean of their point, NaN without, shape (curves, units, points).
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
