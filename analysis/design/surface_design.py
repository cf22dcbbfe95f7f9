"""Choice of runs for the forecast of a surface at target places: which sizes and data to train.

ln y is believed to be a law (`analysis.laws.varying`) plus a smooth discrepancy plus the noise of a run, all
normal. The parameters of the law have priors; the scales of noise and discrepancy are those with the highest
evidence. The covariance between places is that of the law, linearised at several plausible laws and averaged,
plus that of the discrepancy. It does not depend on future results, so the effect of a run on the variance at
the targets is known before the run. ``plan_runs`` repeatedly adds the run with the largest drop of that
variance per cost to some power, until the budget is spent, and returns the plan of the power that leaves the
least variance. The power 1, gain per cost, alone would spend the budget on small runs.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from analysis.arrays import Floats, Indices, Mask
from analysis.laws.descent import descend
from analysis.laws.surfaces.repeated import Points
from analysis.laws.varying import PRIOR, VaryingLaw

# Standard deviations of the noise and of the discrepancy of ln y, and reach of the discrepancy in logarithms.
_NOISES = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
_DISCREPANCIES = (0.001, 0.003, 0.01, 0.03, 0.1)
_REACHES = (1.0, 2.0, 4.0)
# Their priors: the logarithms of the scales are normal around these, with a deviation of 1.
_USUAL_NOISE, _USUAL_DISCREPANCY = 0.002, 0.005
_POWERS = (0.3, 0.5, 0.7, 1.0)
_LAWS = 8
_STARTS = 6
_ROUNDS = 4
_FREEDOM = 3.0  # of the tails, as in Student's t
_BOUND = 5.0  # standard deviations of the prior


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceBelief:
    """Normal belief about ln y at all places.

    Attributes:
        mean: Shape (places,).
        covariance: Shape (places, places).
        noise: Variance of a run.
    """

    mean: Floats
    covariance: Floats
    noise: float


def believe_surface(
    places: Points, runs: Indices, y: Floats, *, generator: np.random.Generator
) -> SurfaceBelief:
    """Return the belief about all places after some runs.

    Args:
        places: Places that may be run, and the targets.
        runs: Places that were run.
        y: Losses or errors of these runs, above zero.
        generator: Draws the starts of the fit and the plausible laws.
    """
    # Coordinates of the discrepancy: ln N, ln D and ln of the epochs.
    axes = [places.n, places.seen, np.maximum(places.seen / places.unique, 1.0)]
    law, logs, log_y = VaryingLaw.about(places), np.log(np.stack(axes, axis=1)), np.log(y)
    # The prior of u₀ is relative to the mean of ln y.
    middle = PRIOR[0] + np.eye(PRIOR.shape[1])[0] * (log_y.mean() if len(log_y) else 0.0)
    fit = _Fit(law=law.at(runs), log_y=log_y, logs=logs[runs], middle=middle, spread=PRIOR[1],
               tails=np.ones(len(log_y)))  # fmt: skip
    scales = _Scales(noise=_USUAL_NOISE, discrepancy=_USUAL_DISCREPANCY, reach=_REACHES[1])
    theta = middle
    # Parameters, scales and tails depend on one another, so each is updated in turn.
    for _ in range(_ROUNDS if len(log_y) else 0):
        theta = fit.theta(scales, theta, generator)
        scales = fit.scales(theta)
        fit = replace(fit, tails=fit.longer_tails(scales, theta))
    # Prior covariance: that of the laws, linearised at each plausible one and averaged, plus the discrepancy.
    slopes = np.stack([law.slopes(one) * fit.spread for one in fit.draws(scales, theta, generator)])
    prior = np.einsum("kpi,kqi->pq", slopes, slopes) / _LAWS + scales.between(logs, logs)
    gain = np.linalg.solve(prior[np.ix_(runs, runs)] + scales.noise**2 * np.diag(fit.tails), prior[runs])
    off = np.linalg.solve(fit.rest(scales), log_y - fit.law(theta[None])[0])
    return SurfaceBelief(
        mean=law(theta[None])[0] + scales.between(logs, logs[runs]) @ off,
        covariance=prior - prior[:, runs] @ gain,
        noise=scales.noise**2,
    )


def plan_runs(  # noqa: PLR0913 (a belief, what may be run, and what for)
    belief: SurfaceBelief, *, cost: Floats, free: Mask, target: Indices, weights: Floats, room: float
) -> Indices:
    """Return the runs that leave the least variance at the targets, in the order of their choice.

    Args:
        belief: The belief so far.
        cost: Cost of a run at each place.
        free: Places that may be run.
        target: Places of the forecast.
        weights: Weight of the variance of ln y at each target.
        room: Most that the runs may cost together.
    """
    kept = np.union1d(np.flatnonzero(free & (cost <= room)), target)
    targets = np.searchsorted(kept, target)

    def plan(power: float) -> tuple[float, list[int]]:
        """Return the variance that is left, and the runs."""
        covariance, price = belief.covariance[np.ix_(kept, kept)], cost[kept]
        open_, left = free[kept], room
        picks: list[int] = []
        while (able := np.flatnonzero(open_ & (price <= left))).size:
            variance = covariance[able, able] + belief.noise
            # A run at place j lowers the variance at a target t by Cov(t, j)² / (Var(j) + noise).
            drop = weights @ covariance[np.ix_(targets, able)] ** 2 / variance
            pick = int(able[np.argmax(drop / price[able] ** power)])
            picks.append(pick)
            open_[pick] = False
            left -= float(price[pick])
            # The posterior covariance after that run; it does not depend on the run's result.
            row = covariance[pick] / np.sqrt(covariance[pick, pick] + belief.noise)
            covariance -= np.outer(row, row)
        return float(weights @ covariance[targets, targets]), picks

    return kept[np.array(min(map(plan, _POWERS))[1], dtype=np.intp)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scales:
    """Standard deviations of noise and discrepancy, and the reach of the latter."""

    noise: float
    discrepancy: float
    reach: float

    def between(self, logs: Floats, others: Floats) -> Floats:
        """Return the covariance of the discrepancy between places."""
        apart = ((logs[:, None, :] - others[None, :, :]) ** 2).sum(axis=-1)
        return np.asarray(self.discrepancy**2 * np.exp(-apart / (2 * self.reach**2)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fit:
    """Data and prior of a fit.

    Attributes:
        law: The law at the runs.
        log_y: ln y of the runs.
        logs: Coordinates of the runs in the covariance of the discrepancy, shape (runs, 3).
        middle: Prior mean of the parameters.
        spread: Prior standard deviation of the parameters.
        tails: Variance of each run's noise as a multiple of the usual one, since some runs fail unnoticed.
    """

    law: VaryingLaw
    log_y: Floats
    logs: Floats
    middle: Floats
    spread: Floats
    tails: Floats

    def rest(self, scales: _Scales) -> Floats:
        """Return the covariance of the runs around the law: discrepancy and noise."""
        return scales.between(self.logs, self.logs) + scales.noise**2 * np.diag(self.tails)

    def theta(self, scales: _Scales, start: Floats, generator: np.random.Generator) -> Floats:
        """Return the likeliest parameters, searched from a start and from draws of the prior."""
        # With K = L·Lᵀ, r·L⁻ᵀ has independent parts of variance 1. The squares of the whitened residuals and
        # of the standardised parameters add up to −2·ln posterior.
        whiten = np.linalg.inv(np.linalg.cholesky(self.rest(scales))).T

        def residual(theta: Floats) -> Floats:
            of_prior = (theta - self.middle) / self.spread
            return np.concatenate([(self.log_y - self.law(theta)) @ whiten, of_prior], axis=1)

        starts = self.middle + self.spread * generator.standard_normal((_STARTS, len(self.middle)))
        ends, objectives = descend(
            residual, np.vstack([start, starts]), weights=np.ones(len(self.log_y) + len(self.middle)),
            delta=np.inf, bounds=self._bounds,
        )  # fmt: skip
        return np.asarray(ends[int(objectives.argmin())])

    def scales(self, theta: Floats) -> _Scales:
        """Return the scales with the highest evidence times prior, with the law linearised at ``theta``."""
        off, of_law = self._linear(theta)

        def evidence(scales: _Scales) -> float:
            root = np.linalg.cholesky(of_law + self.rest(scales))
            white = np.linalg.solve(root, off)
            usual = np.log([scales.noise / _USUAL_NOISE, scales.discrepancy / _USUAL_DISCREPANCY])
            return -float(white @ white + usual @ usual) / 2 - float(np.log(np.diag(root)).sum())

        return max((_Scales(noise=noise, discrepancy=discrepancy, reach=reach)
                    for noise, discrepancy, reach in product(_NOISES, _DISCREPANCIES, _REACHES)),
                   key=evidence)  # fmt: skip

    def longer_tails(self, scales: _Scales, theta: Floats) -> Floats:
        """Return the tails of the runs, from the miss of each when the other runs forecast it.

        Only the part of a squared miss above the variance of the forecast counts. Without that, the large
        miss of a costly run that has no neighbours would count as noise.
        """
        off, of_law = self._linear(theta)
        inverse = np.linalg.inv(of_law + self.rest(scales))
        # The other runs miss run i by (K⁻¹·off)ᵢ / K⁻¹ᵢᵢ, with the variance 1 / K⁻¹ᵢᵢ (Rasmussen and Williams
        # 2006, eq. 5.12).
        variance = 1 / np.diag(inverse)
        excess = np.maximum((inverse @ off * variance) ** 2 - variance, 0.0) / scales.noise**2
        return 1 + excess / (_FREEDOM + 1)

    def _linear(self, theta: Floats) -> tuple[Floats, Floats]:
        """Return the misses of the prior's law at the runs, and the law's covariance, linearised at θ."""
        slopes = self.law.slopes(theta)
        off = self.log_y - self.law(theta[None])[0] + slopes @ (theta - self.middle)
        return off, (slopes * self.spread) @ (slopes * self.spread).T

    def draws(self, scales: _Scales, theta: Floats, generator: np.random.Generator) -> Floats:
        """Return draws of the parameters from their posterior (Laplace), shape (laws, parameters)."""
        slopes = self.law.slopes(theta)
        precision = slopes.T @ np.linalg.solve(self.rest(scales), slopes) + np.diag(self.spread**-2.0)
        # If R·Rᵀ is the precision, R⁻ᵀ·z has the inverse of the precision as covariance.
        normal = generator.standard_normal((len(theta), _LAWS))
        drawn = theta + np.linalg.solve(np.linalg.cholesky(precision).T, normal).T
        return np.clip(drawn, *self._bounds)

    @property
    def _bounds(self) -> tuple[Floats, Floats]:
        return self.middle - _BOUND * self.spread, self.middle + _BOUND * self.spread
