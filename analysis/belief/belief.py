"""Joint draws of the true errors of all configurations of a table, run or not.

The runs of a cell say what its error is, with a noise that is measured between seeds, in units of the
counting noise, and shrunk towards the pooled noise (``analysis.cells.noise``) and a weak prior. The levels
of one trunk share their noise: all pairs of levels correlate alike, by a correlation that is measured between
seeds and shrunk towards a weak prior. The errors are estimated by generalised least squares, so a level with
one seed is corrected by how this seed did at the other levels. The joint law (``law``) is fitted to these
estimates, and its draws are the belief.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from analysis.arrays import Floats, Indices, Mask
from analysis.belief import outlying
from analysis.belief.law import JointFit, JointLaw, fit_joint_law
from analysis.belief.space import Axes, Estimates
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

    def axes(self, x: Floats, trunk: Floats | float = 0.0) -> Axes:
        """Return where the curves are at other FLOPs, shape (curves, points)."""
        samples = x / self.per_sample[:, None]
        return Axes(
            size=np.broadcast_to(np.log(self.per_sample / 3)[:, None], x.shape), samples=np.log(samples),
            distinct=np.log(np.minimum(samples, self.pairs[:, None])),
            along=np.log(x / self.x[:, :1]), trunk=trunk,
        )  # fmt: skip

    def take(self, curves: Indices) -> "Curves":
        """Return some of the curves."""
        return Curves(
            x=self.x[curves], per_sample=self.per_sample[curves], pairs=self.pairs[curves],
            shared=self.shared[curves],
        )  # fmt: skip


def effects(*parts: Indices) -> Floats:
    """Return a column for each value of each part that several curves share, shape (curves, effects)."""
    indicators = [np.eye(int(part.max()) + 1)[part] for part in parts]
    shared = [one for one in indicators if 1 < one.shape[1] < len(one)]
    return np.concatenate(shared, axis=1) if shared else np.zeros((len(parts[0]), 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The runs of a family of curves at some points each.

    Attributes:
        curves: The curves.
        errors: Errors of the runs, NaN without a run; a unit is a trunk, or a run without one; shape
            (curves, units, points). With states of trunks there are twice the points of the curves: the
            cooled ones, then the states in the same order.
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
    def axes(self) -> Axes:
        """Where the points are."""
        points, cooled = self.errors.shape[2], self.curves.x.shape[1]
        x = np.tile(self.curves.x, (1, points // cooled))
        return self.curves.axes(x, np.broadcast_to(np.arange(points) // cooled, x.shape) * 1.0)

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


def estimates(
    measured: Measured, noise: Floats, shared: float, extra: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return generalised least-squares estimates of the errors from the runs, and their covariance.

    Points without runs have a variance so large that they carry no information.

    Args:
        measured: The runs.
        noise: Variance of a run, shape (curves, points).
        shared: Correlation between the levels of a unit.
        extra: Further variance of single runs, shape (curves, units, points).

    Returns:
        Estimates, shape (curves, points), covariances, shape (curves, points, points), and the inverse of the
        covariance of the runs of each unit, 0 without, shape (curves, units, points, points).
    """
    run, eye = np.isfinite(measured.errors), np.eye(measured.errors.shape[2])
    seen, deviation = np.asarray(run.any(axis=1)), np.sqrt(noise)
    both = run[..., None] & run[..., None, :]
    ratio = (shared + (1 - shared) * eye) + (extra / noise[:, None])[..., None] * eye
    gain = np.linalg.inv(np.where(both, ratio, eye)) * both
    off = np.where(run, (measured.errors - measured.mean[:, None]) / deviation[:, None], 0.0)
    inverse = np.linalg.inv(gain.sum(axis=1) + ~seen[:, None] * eye)
    pull = (gain @ off[..., None])[..., 0].sum(axis=1)
    estimate = measured.mean + deviation * np.einsum("cpq,cq->cp", inverse, pull)
    wide = np.where(seen, deviation, 1e2)
    scale = deviation[:, :, None] * deviation[:, None]
    return estimate, wide[:, :, None] * inverse * wide[:, None], gain / scale[:, None]


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
        aside: Outliers (`outlying`). They have a further variance, the square of what they miss.
        miss: Runs minus their predictions by all others, NaN without a run, shape (curves, units, points).
        far: Their size in standard deviations.
        beside: With states of trunks: cooled runs minus their predictions by all but the cooled runs of their
            curve, and the deviation of that, NaN elsewhere; shape (2, curves, units, points).
    """

    draws: Floats
    noise: Floats
    freedom: int
    law: JointLaw
    scale: float
    aside: Mask
    miss: Floats
    far: Floats
    beside: Floats

    def errors(self, axes: Axes, curves: Indices) -> Floats:
        """Return draws of the true errors at other points, shape (draws, curves, points)."""
        return self.law.errors(axes, curves) * self.scale


class _Fit(NamedTuple):
    """A fit of the law, and what of a `Belief` follows from it without draws."""

    joint: JointFit
    noise: Floats
    aside: Mask
    miss: Floats
    far: Floats
    runs: Mapping[str, Floats]


def _without(measured: Measured, runs: Mask) -> Measured:
    return replace(measured, errors=np.where(runs, np.nan, measured.errors))


def _noisy(measured: Measured, aside: Mask) -> Mask:
    """Return the runs, at most one a curve, too far from others of their cell for the noise of the others."""
    rest = _without(measured, aside)
    alike = np.sqrt(rest.runs / np.maximum(rest.runs - 1, 1)) * (rest.runs > 1)
    off = np.nan_to_num(np.abs(rest.errors - rest.mean[:, None])) * alike[:, None]
    noisy = _farthest(off)
    for _ in range(2):  # without the farthest of each curve, then without those that are too far
        if noisy.any():
            noise = _noise_of(_without(rest, noisy))[0]
            noisy &= off > outlying.NOISY * np.sqrt(noise)[:, None]
    return noisy


def _farthest(far: Floats) -> Mask:
    return np.asarray((far == far.max(axis=(1, 2), keepdims=True)) & (far > 0))


def believe(measured: Measured, *, draws: int, generator: np.random.Generator) -> Belief:
    """Draw the true errors of all points of a family."""
    seen, points, cooled = measured.runs > 0, measured.errors.shape[2], measured.curves.x.shape[1]
    scale = float(np.median(measured.mean[seen])) if measured.loss and seen.any() else 1.0
    axes = measured.axes
    seeds = int(np.maximum(measured.runs - 1, 0).sum())

    def fit(extra: Floats, silent: Mask) -> _Fit:
        noise, freedom, shared = _noise_of(_without(measured, silent))
        estimate, covariance, gain = estimates(measured, noise, shared, extra)
        known = Estimates(
            error=estimate / scale, covariance=covariance / scale**2, seen=seen, freedom=freedom[:, None]
        )
        joint = fit_joint_law(axes, known, measured.curves.shared, chance=measured.chance)
        true = estimate - (covariance @ joint.likely.pull[..., None])[..., 0] / scale
        runs = {
            "rest": measured.errors - true[:, None], "gain": gain, "covariance": covariance,
            "precision": joint.likely.precision / scale**2,
        }  # fmt: skip
        miss, variance = outlying.left_out(**runs)
        far = outlying.as_normal(miss / np.sqrt(variance - extra), freedom[:, None, None])
        return _Fit(joint, noise, extra > 0, miss, far, runs)

    def search(extra: Floats) -> _Fit:
        """Set the farthest run of each curve aside, which hides others, until all others are near."""
        cleared = np.zeros(extra.shape, dtype=bool)
        while True:
            noisy = _noisy(measured, extra > 0)
            fitted = fit(extra, (extra > 0) | noisy)
            out = (fitted.far > outlying.FAR) & (np.abs(fitted.miss) > outlying.LEAST * scale)
            cleared |= fitted.aside & ~out
            aside = fitted.aside & out | _farthest(np.where(out & ~fitted.aside & ~cleared, fitted.far, 0.0))
            if (aside == fitted.aside).all():
                return fit(extra, aside) if noisy.any() else fitted
            extra = np.where(aside, fitted.miss**2, 0.0)

    def score(fitted: _Fit) -> float:
        better = fitted.miss[fitted.aside] < 0
        return fitted.joint.likely.evidence - float(np.where(better, outlying.TOO_GOOD, outlying.ODDS).sum())

    best = search(np.zeros(measured.errors.shape))
    for curve in np.flatnonzero((best.aside & (best.miss < 0)).any(axis=(1, 2))):
        # What looks too good may be the only run of its curve that is not broken.
        extra = np.where(best.aside, best.miss**2, 0.0)
        extra[curve] = np.where(np.isfinite(best.miss) & ~best.aside, extra[curve].max(), 0.0)[curve]
        best = max(best, search(extra), key=score)
    law = best.joint.draw(draws, generator)
    where = np.broadcast_to(np.arange(points), axes.samples.shape) if seeds else None
    drawn = np.clip(
        law.errors(axes, np.arange(len(seen)), where) * scale, 0.0, np.inf if measured.loss else 1.0
    )
    beside = np.full((2, *best.miss.shape), np.nan)
    if cooled < points:
        beside[0], variance = outlying.left_out_together(**best.runs, points=cooled)
        beside[1] = np.sqrt(variance)
    return Belief(
        draws=drawn, noise=best.noise, freedom=seeds, law=law, scale=scale, aside=best.aside,
        miss=best.miss, far=best.far, beside=beside,
    )  # fmt: skip
