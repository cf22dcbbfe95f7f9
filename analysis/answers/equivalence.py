"""What a training strategy is worth in data or compute.

The ratio k such that the strategy at x has the error of the baseline at k·x: k = 2 means that it does with
half of the data what the baseline does with all of them. Both are read off in the same way, by their laws or
by the best so far between their cells (``laws.pair``), as crossovers are, so that no strategy is worth more
or less than itself. Past the ends of what was measured of the baseline k is only bounded, and a draw there
counts as beyond the bound.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells.bootstrap import CellDraws
from analysis.cells.curves import X_COLUMNS, alike, curve_text
from analysis.cells.intervals import Interval, intervals
from analysis.labels import strategy_text
from analysis.laws.laws import Law, pair

Floats = NDArray[np.float64]

BASELINE = "clip"
_POINTS = 300
_SAME = 1e-9


def equivalent(error: Floats, baseline: Floats, at: Floats, *, x: float) -> Floats:
    """Return the x at which the baseline has an error: 0 below what was measured, infinite above it.

    Args:
        error: Shape (draws,).
        baseline: The baseline's curve in each draw, nowhere rising, shape (draws, points).
        at: Rising x, shape (points,).
        x: Where the error was reached: of a stretch of the baseline that has it all along, the nearest point.
    """
    first = _crossing(error, baseline, at)
    # From the other end: the last point at which the baseline is still as high.
    last = 1.0 / _crossing(-error, -baseline[:, ::-1], 1.0 / at[::-1])
    found = np.clip(x, first, np.maximum(first, last))
    found[error > baseline[:, 0]] = 0.0
    found[error < baseline[:, -1]] = np.inf
    return np.asarray(found, dtype=np.float64)


def _crossing(error: Floats, falling: Floats, at: Floats) -> Floats:
    """The first x at which a curve that nowhere rises is as low as an error, by straight lines in ln x."""
    rows, log_x = np.arange(len(error)), np.log(at)
    right = np.clip((falling > error[:, None]).sum(axis=1), 0, len(at) - 1)
    left = np.maximum(right - 1, 0)
    high, low = falling[rows, left], falling[rows, right]
    share = np.clip(
        np.where(high > low, (high - error) / np.where(high > low, high - low, 1.0), 1.0), 0.0, 1.0
    )
    return np.asarray(np.exp(log_x[left] + share * (log_x[right] - log_x[left])), dtype=np.float64)


def equivalences(
    draws: CellDraws, laws: tuple[Law, ...], *, along: str, baseline: str = BASELINE
) -> pd.DataFrame:
    """Compare every strategy with the baseline, at each measured x.

    Args:
        draws: The cells that the laws were fitted to.
        laws: Of both axes.
        along: ``compute`` or ``data``.
        baseline: The strategy that the others are measured by.

    Returns:
        One row a strategy, curve and x: ``along``, ``held`` (text), ``strategy`` (text), ``x``, ``ratio``
        with the fields of ``Interval`` (0 or infinite where it is only bounded), ``bound`` (the ratios that
        the baseline's measurements reach, lowest and highest), ``by`` (``laws`` or ``cells``: how both were
        read), ``verdict``: ``worth more``, ``worth less`` (the interval lies above or below 1), or
        ``undecided``.
    """
    rows = []
    for group in alike(laws, along=along, axis="strategy"):
        bases = [law for law in group if law.identity["strategy"] == baseline]
        rows += [row for base in bases for law in group if law is not base for row in worth(draws, base, law)]
    return pd.DataFrame(rows)


def worth(draws: CellDraws, base: Law, law: Law) -> list[dict[str, Any]]:
    """Compare one curve with a baseline's, at each x that was measured of it; see ``equivalences``."""
    measured = draws.cells[X_COLUMNS[law.along]].to_numpy(np.float64)
    reach, places = measured[base.positions], measured[law.positions]
    every = np.unique(np.concatenate([np.geomspace(reach.min(), reach.max(), _POINTS), places]))
    *several, refits, informed = pair(draws, base, law, every)
    # What is reached with less is reached with more as well.
    curve, own = (np.minimum.accumulate(one, axis=1) for one in several)
    within = (every >= reach.min()) & (every <= reach.max())
    at, curve, own = every[within], curve[:, within], own[:, np.searchsorted(every, places)]
    rows = []
    for place, x in enumerate(places.tolist()):
        ratio = equivalent(own[:, place], curve, at, x=x) / x
        bound = (float(reach.min() / x), float(reach.max() / x))
        ends = Interval()
        if informed:
            ends = intervals(np.clip(ratio, *bound), refits).open_at(*bound)
        more, less = ends.low > 1 + _SAME, ends.high < 1 - _SAME
        verdict = "worth more" if more else ("worth less" if less else "undecided")
        rows.append({
            "along": law.along, "held": curve_text(law, without="strategy"),
            "strategy": strategy_text(str(law.identity["strategy"])), "x": x, "ratio": float(ratio[0]),
            "bound": bound, "by": "laws" if base.drawn is not None and law.drawn is not None else "cells",
            "verdict": verdict,
        } | asdict(ends))  # fmt: skip
    return rows
