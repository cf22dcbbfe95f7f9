"""Bias-corrected and accelerated interval (Efron 1987) beside the percentile interval of `bootstrap`."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from analysis.bootstrap import COVERAGE, interval

Floats = NDArray[np.float64]

FEWEST = 8
"""Runs below which the jackknife says nothing on the skewness: no interval is given."""


def bca(values: Floats, estimate: float, jackknife: Floats) -> tuple[float, float]:
    """Central interval of probability ``COVERAGE``, second-order correct for a smooth estimate.

    Args:
        values: The estimate in each bootstrap draw, shape (draws,).
        estimate: The estimate on all runs.
        jackknife: The estimate without each run in turn, shape (runs,).

    Returns:
        Both ends; NaN when there are fewer than ``FEWEST`` runs or no finite draws.
    """
    values, jackknife = values[np.isfinite(values)], jackknife[np.isfinite(jackknife)]
    if len(jackknife) < FEWEST or not len(values):
        return float("nan"), float("nan")
    # Half of the draws that equal the estimate count as below it; a share of 0 or 1 has no quantile.
    below = float((values < estimate).mean() + (values == estimate).mean() / 2)
    bias = float(ndtri(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values))))
    deviation = jackknife.mean() - jackknife
    spread = float((deviation**2).sum())
    if spread == 0:
        return interval(values)
    acceleration = float((deviation**3).sum()) / (6 * spread**1.5)
    ends = bias + ndtri(np.array([(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]))
    low, high = np.quantile(values, ndtr(bias + ends / (1 - acceleration * ends)))
    return float(low), float(high)
