"""Intervals of an estimate over the draws of a study: percentile, and bias-corrected and accelerated.

An estimate is computed for a stack of rows at once: the measured errors, each draw, and the measured errors
without each run in turn. The first row gives the estimate, the draws give its percentiles, and the last rows
give the jackknife. The jackknife corrects the percentiles for bias and for a spread that changes with the
estimate (BCa, Efron 1987), which is second-order correct for smooth estimates.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from analysis.arrays import Floats

_NORMAL = NormalDist()

COVERAGE = 0.90
"""Probability of every interval of the analysis; intervals are central."""

QUANTILE = _NORMAL.inv_cdf((1 + COVERAGE) / 2)
"""Normal quantile of ``COVERAGE``: an interval reaches this many standard deviations to either side."""

FEWEST = 8
"""Fewest runs for a BCa interval: below, the jackknife does not show the skewness."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """Both intervals of one estimate; NaN for an interval that does not exist."""

    low: float = float("nan")
    high: float = float("nan")
    bca_low: float = float("nan")
    bca_high: float = float("nan")

    def open_at(self, lowest: float, highest: float) -> "Interval":
        """Return the intervals with ends at or beyond the measured range opened to 0 and infinity."""
        return Interval(
            low=0.0 if self.low <= lowest else self.low,
            high=np.inf if self.high >= highest else self.high,
            bca_low=0.0 if self.bca_low <= lowest else self.bca_low,
            bca_high=np.inf if self.bca_high >= highest else self.bca_high,
        )


def interval(values: Floats) -> tuple[float, float]:
    """Return the central percentile interval; its ends are values, possibly infinite, or NaN without any."""
    return _between(values, (1 - COVERAGE) / 2, (1 + COVERAGE) / 2)


def column_intervals(values: Floats) -> tuple[Floats, Floats]:
    """Return the lower and upper ends of ``interval`` for each column of values, shape (draws, columns)."""
    ordered = np.sort(values, axis=0)
    if not len(ordered) or np.isnan(ordered[-1]).any():
        ends = [interval(column) for column in values.T]
        return np.array([end[0] for end in ends]), np.array([end[1] for end in ends])
    last = len(ordered) - 1
    low, high = ((1 - COVERAGE) / 2 * last, (1 + COVERAGE) / 2 * last)
    return ordered[int(np.floor(low))], ordered[int(np.ceil(high))]


def half_width(draws: Floats) -> Floats:
    """Return half the width of the central 68 % of draws, along their first axis.

    For normal draws it is their standard deviation. Draws from few degrees of freedom have long tails, which
    inflate the ordinary standard deviation.
    """
    low, high = np.quantile(draws, [0.1587, 0.8413], axis=0)
    return np.asarray((high - low) / 2, dtype=np.float64)


def bca(values: Floats, estimate: float, jackknife: Floats) -> tuple[float, float]:
    """Return the bias-corrected and accelerated interval.

    Args:
        values: Estimate in each bootstrap draw, shape (draws,).
        estimate: Estimate from all runs.
        jackknife: Estimate without each run in turn, shape (runs,).

    Returns:
        Both ends; NaN with fewer than ``FEWEST`` runs, without draws, or when an estimate is not finite.
    """
    values = values[~np.isnan(values)]
    if len(jackknife) < FEWEST or not len(values) or not np.isfinite([estimate, *jackknife]).all():
        return float("nan"), float("nan")
    # z₀, the normal quantile of the share of draws below the estimate. Draws equal to it count half, and the
    # share stays half a draw away from 0 and 1, which have no finite quantile.
    below = float((values < estimate).mean() + (values == estimate).mean() / 2)
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / len(values)), 1 - 0.5 / len(values)))
    deviation = jackknife.mean() - jackknife
    spread = float((deviation**2).sum())
    if spread == 0:
        return interval(values)
    # a = Σ d³ / (6·(Σ d²)^1.5) over the jackknife deviations d: the skewness (Efron 1987, eq. 6.6).
    acceleration = float((deviation**3).sum()) / (6 * spread**1.5)
    ends = (bias + _NORMAL.inv_cdf(share) for share in ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
    low, high = (_NORMAL.cdf(bias + end / (1 - acceleration * end)) for end in ends)
    return _between(values, low, high)


def intervals(stack: Floats, draws: int) -> Interval:
    """Return both intervals of an estimate, given as measured, as drawn, and without each run in turn."""
    values = stack[1 : 1 + draws]
    low, high = interval(values)
    bca_low, bca_high = bca(values, float(stack[0]), stack[1 + draws :])
    return Interval(low=low, high=high, bca_low=bca_low, bca_high=bca_high)


def _between(values: Floats, low: float, high: float) -> tuple[float, float]:
    """Return the values at two shares of their sorted order, rounded outwards."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    return float(np.quantile(known, low, method="lower")), float(np.quantile(known, high, method="higher"))
