"""The worth of a training strategy in data or compute.

The worth is the ratio k at which the strategy at x has the error of the baseline at k·x: k = 2 means that the
strategy needs half of the data of the baseline. Both curves are read in the same way (``laws.pair``), so that
the worth of a strategy against itself is 1. Beyond the measured range of the baseline k is only bounded, and
draws there count as beyond the bound.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.robustness import BASELINE
from analysis.arrays import Floats
from analysis.cells.bootstrap import CellDraws
from analysis.cells.curves import X_COLUMNS, alike, curve_text
from analysis.cells.intervals import Interval, interval, intervals
from analysis.cells.pareto import SAME_COST
from analysis.labels import strategy_text
from analysis.laws.laws import Law, pair

_POINTS = 300
_SAME = 1e-9


def equivalent(error: Floats, baseline: Floats, at: Floats, *, x: float) -> Floats:
    """Return the x at which the baseline has an error; 0 below its range and infinite above it.

    Args:
        error: Shape (draws,).
        baseline: Curve of the baseline in each draw, non-increasing, shape (draws, points).
        at: Rising x, shape (points,).
        x: x of the error on its own curve; if the baseline is flat at that error, the nearest x is returned.
    """
    first = _crossing(error, baseline, at)
    # The same from the other end: the last x at which the baseline is still as high.
    last = 1.0 / _crossing(-error, -baseline[:, ::-1], 1.0 / at[::-1])
    found = np.clip(x, first, np.maximum(first, last))
    found[error > baseline[:, 0]] = 0.0
    found[error < baseline[:, -1]] = np.inf
    return np.asarray(found, dtype=np.float64)


def _crossing(error: Floats, falling: Floats, at: Floats) -> Floats:
    """Return the first x at which a non-increasing curve is as low as an error, linearly in ln x."""
    rows, log_x = np.arange(len(error)), np.log(at)
    # The curve does not increase, so as many points lie above the error as before the first other one.
    right = np.clip((falling > error[:, None]).sum(axis=1), 0, len(at) - 1)
    left = np.maximum(right - 1, 0)
    high, low = falling[rows, left], falling[rows, right]
    share = np.clip(
        np.where(high > low, (high - error) / np.where(high > low, high - low, 1.0), 1.0), 0.0, 1.0
    )
    return np.asarray(np.exp(log_x[left] + share * (log_x[right] - log_x[left])), dtype=np.float64)


def equivalences(draws: CellDraws, laws: tuple[Law, ...], *, along: str) -> pd.DataFrame:
    """Compare every strategy with the baseline, at each measured x along compute or data.

    Returns:
        One row per strategy, curve and x: ``along``, ``held`` (text), ``strategy`` (text), ``x``, ``ratio``
        with the fields of ``Interval`` (0 or infinite if only bounded), ``bound`` (lowest and highest ratio
        within the measured range of the baseline), ``by`` (``laws`` or ``cells``, how both were read) and
        ``verdict``: ``worth more`` or ``worth less`` if the interval lies above or below 1, or ``undecided``;
        draws beyond the range of the baseline count as above or below 1 if this range reaches x.
    """
    rows = []
    for group in alike(laws, along=along, axis="strategy"):
        bases = [law for law in group if law.identity["strategy"] == BASELINE]
        rows += [row for base in bases for law in group if law is not base for row in worth(draws, base, law)]
    return pd.DataFrame(rows)


def worth(draws: CellDraws, base: Law, law: Law) -> list[dict[str, Any]]:
    """Compare one curve with the baseline's at each of its measured x; see ``equivalences``."""
    measured = draws.column(X_COLUMNS[law.along])
    reach, places = measured[base.positions], measured[law.positions]
    every = np.unique(np.concatenate([np.geomspace(reach.min(), reach.max(), _POINTS), places]))
    *several, refits, informed = pair(draws, base, law, every)
    # An error reached with less compute or data counts as reached with more.
    curve, own = (np.minimum.accumulate(one, axis=1) for one in several)
    within = (every >= reach.min()) & (every <= reach.max())
    at, curve, own = every[within], curve[:, within], own[:, np.searchsorted(every, places)]
    rows = []
    for place, x in enumerate(places.tolist()):
        ratio = equivalent(own[:, place], curve, at, x=x) / x
        bound = (float(reach.min() / x), float(reach.max() / x))
        ends, verdict = Interval(), "undecided"
        if informed:
            ends = intervals(np.clip(ratio, *bound), refits).open_at(*bound)
            verdict = _verdict(*interval(ratio[1 : 1 + refits]), bound)
        rows.append({
            "along": law.along, "held": curve_text(law, without="strategy", named=draws.mixed),
            "strategy": strategy_text(str(law.identity["strategy"])), "x": x, "ratio": float(ratio[0]),
            "bound": bound, "by": "laws" if base.drawn is not None and law.drawn is not None else "cells",
            "verdict": verdict,
        } | asdict(ends))  # fmt: skip
    return rows


def _verdict(low: float, high: float, bound: tuple[float, float]) -> str:
    """Return the verdict on an interval of ratios, whose ends are 0 or infinite beyond the bounds.

    A strategy that is better at x than the baseline within its whole range is worth more only if this range
    reaches x, up to the rounding of levels to whole batches.
    """
    if low > 1 + _SAME and (np.isfinite(low) or bound[1] * SAME_COST >= 1):
        return "worth more"
    return "worth less" if high < 1 - _SAME and (high > 0 or bound[0] <= SAME_COST) else "undecided"
