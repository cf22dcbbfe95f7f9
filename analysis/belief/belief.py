"""Joint draws of the true errors of all configurations of a table, run or not.

The runs of a cell say what its error is, with a noise that is measured between seeds, in units of the
counting noise, and shrunk towards the pooled noise (``analysis.cells.noise``) and a weak prior. The levels
of one trunk share their noise: all pairs of levels correlate alike, by a correlation that is measured between
seeds and shrunk towards a weak prior. The errors are estimated by generalised least squares, so a level with
one seed is corrected by how this seed did at the other levels. The joint law (``law``) is fitted to these
estimates, and its draws are the belief.
"""

from dataclasses import dataclass

import numpy as np

from analysis.arrays import Floats, Indices
from analysis.belief.law import Estimates, JointLaw, joint_law
from analysis.belief.space import Axes
from analysis.cells.noise import agresti_coull, level_excess, moderated

# Prior of the noise of a run: a multiple of the counting noise, at least this standard deviation, and the
# degrees of freedom that the prior counts as.
_PRIOR_NOISE, _PRIOR_SD, _PRIOR_FREEDOM = 1.5, 0.008, 1.5
# Prior of the correlation between the levels of a trunk: its mean, the pairs of levels that it counts as, and
# the largest correlation.
_PRIOR_SHARED, _PRIOR_PAIRS, _MOST_SHARED = 0.5, 10.0, 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """What is read along some curves, and what they have in common.

    Attributes:
        x: Training FLOPs of the points, shape (curves, points).
        per_sample: Training FLOPs of a sample, shape (curves,).
        pairs: Pairs of the training set, infinite if it grows with the compute, shape (curves,).
        shared: Effects that curves share, 1 where one acts, shape (curves, effects).
    """

    x: Floats
    per_sample: Floats
    pairs: Floats
    shared: Floats

    def axes(self, x: Floats) -> Axes:
        """Return where the curves are at other FLOPs, shape (curves, points)."""
        samples = x / self.per_sample[:, None]
        return Axes(
            size=np.broadcast_to(np.log(self.per_sample / 3)[:, None], x.shape), samples=np.log(samples),
            distinct=np.log(np.minimum(samples, self.pairs[:, None])),
            along=np.log(x / self.x[:, :1]),
        )  # fmt: skip

    def take(self, curves: Indices) -> "Curves":
        """Return some of the curves."""
        return Curves(
            x=self.x[curves], per_sample=self.per_sample[curves], pairs=self.pairs[curves],
            shared=self.shared[curves],
        )  # fmt: skip


def effects(*parts: Indices) -> Floats:
    """Return a column for each value of each part that several curves share, shape (curves, effects)."""
    found = [np.eye(int(part.max()) + 1)[part] for part in parts]
    kept = [one for one in found if 1 < one.shape[1] < len(one)]
    return np.concatenate(kept, axis=1) if kept else np.zeros((len(parts[0]), 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The runs of a family of curves at some points each.

    Attributes:
        curves: The curves.
        errors: Errors of the runs, NaN without a run; a unit is a trunk, or a run without one; shape
            (curves, units, points).
        images: Images that the error is counted over; NaN if it counts none.
        reading: Standard deviation with which errors were read off a figure.
        loss: True for a loss, which has a unit and counts no images.
        chance: Error of chance; NaN if unknown.
    """

    curves: Curves
    errors: Floats
    images: float
    chance: float
    reading: float = 0.0
    loss: bool = False

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
    counted = np.isfinite(measured.images) and not measured.loss
    if counted:
        share = agresti_coull(error, measured.images)
        unit = share * (1.0 - share) / measured.images
    else:  # half a point, or half a percent of a loss, takes the place of the counting noise
        unit = np.full_like(error, (0.005 * (typical if measured.loss else 1.0)) ** 2)
    if runs.max(initial=0.0) < 2:  # noqa: PLR2004 - no seeds: the law tells what runs miss beside this
        least = (unit if counted else unit / 25) + measured.reading**2
        return least, np.full(len(runs), np.inf), 0.0
    unit += measured.reading**2
    usual = _PRIOR_SD * (typical if measured.loss else 1.0)
    expected = np.maximum(_PRIOR_NOISE**2, usual**2 / unit.mean())
    off = (measured.errors - measured.mean[:, None]) / np.sqrt(unit)[:, None]
    off = np.where(np.isfinite(off) & (runs > 1)[:, None], off, np.nan)
    # Levels differ in their noise, and curves in units of that: levels first, by the runs of all curves.
    squares, beside = np.nansum(off**2, axis=(0, 1)), np.maximum(runs - 1.0, 0.0)
    if squares.any():
        pooled = np.sqrt(squares.sum() / beside.sum())
        by_level = moderated(squares, beside.sum(axis=0))[0] / pooled
        off, unit = off / by_level, unit * by_level**2
    shared, levels = _shared(off)
    fewer = level_excess(levels, shared)
    squares = np.nansum(off**2, axis=(1, 2)) / fewer
    freedom = beside.sum(axis=1) / fewer
    total = freedom.sum()
    ratio, degrees = np.full(len(runs), np.sqrt(expected)), np.full(len(runs), np.inf)
    if total and squares.any():
        ratio, degrees = moderated(squares, freedom)
    # The prior joins as further degrees of freedom, the fewer the more seeds there are in all: few seeds
    # leave the noise near what is usual.
    prior = _PRIOR_FREEDOM**2 / (_PRIOR_FREEDOM + total)
    degrees = np.minimum(degrees, total) + prior
    variance = (ratio**2 * (degrees - prior) + expected * prior) / degrees
    if counted:  # no noise is below that of counting
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
class Belief:
    """What is known of a family.

    Attributes:
        draws: Joint draws of the true errors at all points, shape (draws, curves, points).
        noise: Variance of one run, shape (curves, points).
        freedom: Degrees of freedom by which the noise between seeds was measured; 0 without seeds.
        law: The joint law, whose errors are in units of ``scale``.
        scale: The typical loss; 1 of errors.
    """

    draws: Floats
    noise: Floats
    freedom: int
    law: JointLaw
    scale: float

    def errors(self, axes: Axes, curves: Indices) -> Floats:
        """Return draws of the true errors at other points, shape (draws, curves, points)."""
        return self.law.errors(axes, curves) * self.scale


def believe(measured: Measured, *, draws: int, generator: np.random.Generator) -> Belief:
    """Draw the true errors of all points of a family."""
    seen = measured.runs > 0
    noise, freedom, shared = _noise_of(measured)
    estimate, covariance = estimates(measured, noise, shared)
    scale = float(np.median(measured.mean[seen])) if measured.loss and seen.any() else 1.0
    axes, points = measured.curves.axes(measured.curves.x), measured.curves.x.shape[1]
    seeds = int(np.maximum(measured.runs - 1, 0).sum())
    known = Estimates(
        error=estimate / scale, covariance=covariance / scale**2, seen=seen, freedom=freedom[:, None]
    )
    law = joint_law(
        axes, known, measured.curves.shared, chance=measured.chance, draws=draws, generator=generator
    )
    where = np.broadcast_to(np.arange(points), axes.samples.shape) if seeds else None
    found = law.errors(axes, np.arange(len(estimate)), where) * scale
    found = np.clip(found, 0.0, np.inf if measured.loss else 1.0)
    return Belief(draws=found, noise=noise, freedom=seeds, law=law, scale=scale)
