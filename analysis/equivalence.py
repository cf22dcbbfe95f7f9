"""What a training strategy is worth in data or compute.

The ratio k such that the strategy at x has the error of the baseline at k·x: k = 2 means that it does with
half of the data what the baseline does with all of them. The baseline's curve is made non-increasing (its
running minimum) and read off at the strategy's measured error; past the ends of what was measured k is only
bounded, and a draw there counts as beyond the bound.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.bootstrap import CellDraws
from analysis.intervals import Interval, intervals
from analysis.labels import strategy_text
from analysis.laws import X_COLUMNS, Law, aligned, alike, curve_draws, curve_text

Floats = NDArray[np.float64]

BASELINE = "clip"
_POINTS = 300


def equivalent(error: Floats, baseline: Floats, at: Floats) -> Floats:
    """The x at which the baseline has an error: 0 below what was measured, infinite above it.

    Args:
        error: Shape (draws,).
        baseline: The baseline's curve in each draw, shape (draws, points).
        at: Rising x, shape (points,).
    """
    falling = np.minimum.accumulate(baseline, axis=1)
    log_x = np.log(at)
    value, rows = error, np.arange(len(error))
    left = np.clip((falling > value[:, None]).sum(axis=1) - 1, 0, len(at) - 2)
    high, low = falling[rows, left], falling[rows, left + 1]
    share = np.where(high > low, (high - value) / np.where(high > low, high - low, 1.0), 0.0)
    share = np.clip(share, 0.0, 1.0)  # beyond the curve, where what follows puts 0 or infinity
    found = np.exp(log_x[left] + share * (log_x[left + 1] - log_x[left]))
    found[value > falling[:, 0]] = 0.0
    found[value < falling[:, -1]] = np.inf
    return np.asarray(found, dtype=np.float64)


def equivalences(
    draws: CellDraws, laws: tuple[Law, ...], *, along: str, baseline: str = BASELINE
) -> pd.DataFrame:
    """Every strategy against the baseline, at each measured x.

    Args:
        draws: The cells that the laws were fitted to.
        laws: Of both axes.
        along: ``compute`` or ``data``.
        baseline: The strategy that the others are measured by.

    Returns:
        One row a strategy, curve and x: ``along``, ``held`` (text), ``strategy`` (text), ``x``, ``ratio``
        with the fields of ``Interval`` (0 or infinite where it is only bounded), ``bound`` (the ratios that
        the baseline's measurements reach, lowest and highest), ``verdict``: ``worth more``, ``worth less``
        (the interval lies above or below 1), or ``undecided``.
    """
    rows = []
    for group in alike(laws, along=along, axis="strategy"):
        bases = [law for law in group if law.identity["strategy"] == baseline]
        rows += [row for base in bases for law in group if law is not base for row in _rows(draws, base, law)]
    return pd.DataFrame(rows)


def _rows(draws: CellDraws, base: Law, law: Law) -> list[dict[str, Any]]:
    column = X_COLUMNS[law.along]
    measured = draws.cells[column].to_numpy(np.float64)
    reach = measured[base.positions]
    at = np.geomspace(reach.min(), reach.max(), _POINTS)
    curve = curve_draws(draws, base, at)
    rows = []
    for position in law.positions:
        x = float(measured[position])
        error, falling = aligned(draws.take(np.array([position])).resampled(), curve, draws.refits)
        ratio = equivalent(error[:, 0], falling, at) / x
        bound = (float(reach.min() / x), float(reach.max() / x))
        ends = Interval()
        if draws.source == "runs":
            ends = intervals(np.clip(ratio, *bound), draws.refits).open_at(*bound)
        verdict = "worth more" if ends.low > 1 else ("worth less" if ends.high < 1 else "undecided")
        rows.append({
            "along": law.along, "held": curve_text(law, without="strategy"),
            "strategy": strategy_text(str(law.identity["strategy"])), "x": x, "ratio": float(ratio[0]),
            "bound": bound, "verdict": verdict,
        } | asdict(ends))  # fmt: skip
    return rows
