"""Crossovers: the x at which one architecture or training strategy overtakes another.

Two curves that differ only in architecture or strategy are compared over the range of x that both cover. In
each draw of the study the crossover is the last sign change of their difference. A draw without a sign change
counts as a crossover before the first or after the last x, so that an interval that reaches an end is open
there.
"""

from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.cells.bootstrap import CellDraws
from analysis.cells.curves import X_COLUMNS, alike, curve_text
from analysis.cells.intervals import COVERAGE, Interval, intervals
from analysis.labels import axis_text
from analysis.laws.laws import Law, pair

CrossoverVerdict = Literal["overtakes", "none within the data", "undecided"]

_AXES = ("architecture", "strategy")
_POINTS = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """The crossover of two curves, at which the second falls below the first.

    Attributes:
        verdict: ``overtakes``; ``none within the data``: one is ahead throughout; or ``undecided``.
        reason: The verdict in one sentence, without names.
        ahead_first: Probability that the second is ahead at the smallest x.
        ahead_last: Probability that it is ahead at the largest x.
        x: Measured crossover; NaN unless ``verdict`` is ``overtakes``.
        ends: Intervals of ``x``, with open ends at 0 and infinity; NaN unless ``verdict`` is ``overtakes``.
    """

    verdict: CrossoverVerdict
    reason: str
    ahead_first: float
    ahead_last: float
    x: float
    ends: Interval


def cross(
    first: Floats, second: Floats, at: Floats, *, informed: bool = True, refits: int | None = None
) -> Crossing:
    """Compare two curves, given as errors of shape (rows, points) at the same rising x.

    The rows are as measured, in each draw, and without each run in turn; ``refits`` of them are draws, by
    default all but the first. ``informed`` is true if the draws carry the uncertainty, see ``laws.Law``.
    """
    gap = first - second
    refits = len(gap) - 1 if refits is None else refits
    ahead = (gap > 0)[1 : 1 + refits]
    start, end = (float(ahead[:, side].mean()) if refits else float("nan") for side in (0, -1))
    verdict: CrossoverVerdict = "undecided"
    reason = "neither the noise between seeds nor the discrepancy of the laws was measured"
    x, ends = float("nan"), Interval()
    if informed:
        overtaking = (~ahead[:, 0] & ahead[:, -1]).mean()
        behind = (gap < 0)[1 : 1 + refits]  # a draw with equal curves counts for neither side
        steady = max(float(side.all(axis=1).mean()) for side in (behind, ahead))
        reason = f"in {overtaking:.0%} of the draws it starts behind and ends ahead"
        if overtaking >= COVERAGE:
            verdict, places = "overtakes", _places(gap, at)
            x = float(places[0])
            ends = intervals(np.clip(places, at[0], at[-1]), refits).open_at(at[0], at[-1])
        elif steady >= COVERAGE:
            verdict, reason = "none within the data", f"one is ahead throughout in {steady:.0%} of the draws"
        else:
            reason += f"; in {steady:.0%} one is ahead throughout"
    return Crossing(verdict=verdict, reason=reason, ahead_first=start, ahead_last=end, x=x, ends=ends)


def _places(gap: Floats, at: Floats) -> Floats:
    """Return the last x at which the gap turns positive: 0 if it always is, infinite if it ends negative."""
    behind = gap <= 0
    # The last point where the second curve is not ahead; the crossing lies between it and the next point,
    # where the gap is zero on the straight line in ln x between the two.
    last = len(at) - 1 - behind[:, ::-1].argmax(axis=1)
    rows, left = np.arange(len(gap)), np.minimum(last, len(at) - 2)
    step = gap[rows, left] - gap[rows, left + 1]
    share = np.clip(gap[rows, left] / np.where(step == 0, 1.0, step), 0.0, 1.0)
    log_x = np.log(at)
    found = np.exp(log_x[left] + share * (log_x[left + 1] - log_x[left]))
    found[behind[:, -1]] = np.inf
    found[~behind.any(axis=1)] = 0.0
    return np.asarray(found, dtype=np.float64)


def crossovers(draws: CellDraws, laws: tuple[Law, ...], *, along: str) -> pd.DataFrame:
    """Compare every pair of curves that differ only in architecture or strategy, along compute or data.

    Returns:
        One row per pair: ``along``, ``axis``, ``held`` (text), ``behind`` and ``ahead`` (texts, as of the
        largest x), ``x_low`` and ``x_high`` (compared range), and the fields of ``Crossing`` and of its
        ``ends``.
    """
    rows = []
    for axis in _AXES:
        for group in alike(laws, along=along, axis=axis):
            found = (_pair(draws, one, other, axis) for one, other in combinations(group, 2))
            rows += [row for row in found if row is not None]
    return pd.DataFrame(rows)


def _pair(draws: CellDraws, one: Law, other: Law, axis: str) -> dict[str, Any] | None:
    ends = [draws.column(X_COLUMNS[law.along])[law.positions] for law in (one, other)]
    low, high = max(x.min() for x in ends), min(x.max() for x in ends)
    if low >= high:
        return None
    at = np.geomspace(low, high, _POINTS)
    first, second, refits, informed = pair(draws, one, other, at)
    names = [axis_text(axis, law.identity[axis]) for law in (one, other)]
    # The second is the one that is ahead in the end, so that a crossing is always its overtaking.
    if first[0, -1] < second[0, -1]:
        first, second, names = second, first, names[::-1]
    found = asdict(cross(first, second, at, informed=informed, refits=refits))
    interval: dict[str, Any] = found.pop("ends")
    return {
        "along": one.along, "axis": axis, "held": curve_text(one, without=axis, named=draws.mixed),
        "behind": names[0], "ahead": names[1],
        "x_low": float(low), "x_high": float(high),
    } | found | interval  # fmt: skip
