"""Intervals of an estimate: central percentiles of its draws."""

from statistics import NormalDist

import numpy as np
import pandas as pd

from analysis.arrays import Floats

COVERAGE = 0.90
"""Probability of every interval of the analysis; intervals are central."""

QUANTILE = NormalDist().inv_cdf((1 + COVERAGE) / 2)
"""Normal quantile of ``COVERAGE``: an interval reaches this many standard deviations to either side."""

NO_BAND = pd.DataFrame({"x": [], "y": [], "low": [], "high": []})
"""A band without points."""


def interval(values: Floats) -> tuple[float, float]:
    """Return the central percentile interval; its ends are values, possibly infinite, or NaN without any."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = (1 - COVERAGE) / 2, (1 + COVERAGE) / 2
    return float(np.quantile(known, low, method="lower")), float(np.quantile(known, high, method="higher"))


def column_intervals(values: Floats) -> tuple[Floats, Floats]:
    """Return the lower and upper ends of ``interval`` for each column of values, shape (draws, columns)."""
    ordered = np.sort(values, axis=0)
    if not len(ordered) or np.isnan(ordered[-1]).any():
        ends = [interval(column) for column in values.T]
        return np.array([end[0] for end in ends]), np.array([end[1] for end in ends])
    last = len(ordered) - 1
    low, high = ((1 - COVERAGE) / 2 * last, (1 + COVERAGE) / 2 * last)
    return ordered[int(np.floor(low))], ordered[int(np.ceil(high))]


def band(x: Floats, drawn: Floats) -> pd.DataFrame:
    """Return columns ``x``, ``y`` (median of draws of shape (draws, points)), ``low`` and ``high``."""
    low, high = column_intervals(drawn)
    return pd.DataFrame({"x": x, "y": np.median(drawn, axis=0), "low": low, "high": high})
