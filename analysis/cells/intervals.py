"""Intervals of an estimate over the draws of a study: percentile, and bias-corrected and accelerated.

What is read off a study is computed for a stack of rows at once: the measured errors, then each draw, then
the measured errors without each run in turn. The first rows give the estimate, the draws its percentiles; the
last give the jackknife, with which the percentiles are corrected for bias and for a spread that changes with
the estimate (BCa, Efron 1987): second-order correct for a smooth estimate.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NORMAL = NormalDist()

COVERAGE = 0.90
"""Every interval of the analysis is the central one of this probability."""

FEWEST = 8
"""Runs below which the jackknife says nothing on the skewness: no corrected interval is given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """Both intervals of one estimate; NaN where there is none."""

    low: float = float("nan")
    high: float = float("nan")
    bca_low: float = float("nan")
    bca_high: float = float("nan")

    def open_at(self, lowest: float, highest: float) -> "Interval":
        """Ends that reach the ends of what was measured become 0 and infinite: they lie there or beyond."""
        return Interval(
            low=0.0 if self.low <= lowest else self.low,
            high=np.inf if self.high >= highest else self.high,
            bca_low=0.0 if self.bca_low <= lowest else self.bca_low,
            bca_high=np.inf if self.bca_high >= highest else self.bca_high,
        )


def interval(values: Floats) -> tuple[float, float]:
    """Central percentile interval; its ends are values themselves, which may be infinite; NaN without any."""
    return _between(values, (1 - COVERAGE) / 2, (1 + COVERAGE) / 2)


def column_intervals(values: Floats) -> tuple[Floats, Floats]:
    """What ``interval`` gives for each column of values, shape (draws, columns): lower and upper ends."""
    ordered = np.sort(values, axis=0)
    if not len(ordered) or np.isnan(ordered[-1]).any():
        ends = [interval(column) for column in values.T]
        return np.array([end[0] for end in ends]), np.array([end[1] for end in ends])
    last = len(ordered) - 1
    low, high = ((1 - COVERAGE) / 2 * last, (1 + COVERAGE) / 2 * last)
    return ordered[int(np.floor(low))], ordered[int(np.ceil(high))]


def bca(values: Floats, estimate: float, jackknife: Floats) -> tuple[float, float]:
    """Bias-corrected and accelerated interval.

    Args:
        values: The estimate in each bootstrap draw, shape (draws,).
        estimate: The estimate on all runs.
        jackknife: The estimate without each run in turn, shape (runs,).

    Returns:
        Both ends; NaN when there are fewer than ``FEWEST`` runs, an estimate is not finite, or no draws.
    """
    values = values[~np.isnan(values)]
    if len(jackknife) < FEWEST or not len(values) or not np.isfinite([estimate, *jackknife]).all():
        return float("nan"), float("nan")
    # Half of the draws that equal the estimate count as below it; a share of 0 or 1 has no quantile.
    below = float((values < estimate).mean() + (values == estimate).mean() / 2)
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / len(values)), 1 - 0.5 / len(values)))
    deviation = jackknife.mean() - jackknife
    spread = float((deviation**2).sum())
    if spread == 0:
        return interval(values)
    acceleration = float((deviation**3).sum()) / (6 * spread**1.5)
    ends = (bias + _NORMAL.inv_cdf(share) for share in ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
    low, high = (_NORMAL.cdf(bias + end / (1 - acceleration * end)) for end in ends)
    return _between(values, low, high)


def intervals(stack: Floats, draws: int) -> Interval:
    """Both intervals of an estimate.

    Args:
        stack: The estimate of each row of a stack: as measured, of ``draws`` draws, without each run.
        draws: How many draws there are.
    """
    values = stack[1 : 1 + draws]
    low, high = interval(values)
    bca_low, bca_high = bca(values, float(stack[0]), stack[1 + draws :])
    return Interval(low=low, high=high, bca_low=bca_low, bca_high=bca_high)


def _between(values: Floats, low: float, high: float) -> tuple[float, float]:
    """The values at two shares of their order, rounded outwards."""
    ordered = np.sort(values[~np.isnan(values)])
    if not len(ordered):
        return float("nan"), float("nan")
    last = len(ordered) - 1
    return float(ordered[int(np.floor(low * last))]), float(ordered[int(np.ceil(high * last))])
