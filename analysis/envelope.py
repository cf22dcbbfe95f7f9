"""The lower envelope over compute: the lowest error that any configuration reaches for so many FLOPs.

The Pareto frontier keeps the cells that no cheaper cell beats; each with the share of the draws in which it
is one of them. The law of the envelope is the power law with floor through the best cell of each budget
(Hoffmann et al. 2022, approach 1), refitted in each draw to that draw's best cells.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.bootstrap import CellDraws
from analysis.curves import X_COLUMNS
from analysis.forms import FLOOR, fit
from analysis.intervals import Interval, intervals
from analysis.law_fit import LawFit, fit_law

Floats = NDArray[np.float64]

_SAME_COST = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """The envelope of one regime.

    Attributes:
        regime: Whose cells these are.
        pareto: The cells of the frontier by rising compute: the columns of ``CellDraws.cells`` and
            ``probability``, that the cell is one of them.
        fit: Law through the best cell of each budget.
        alpha: Intervals of its exponent; NaN without draws of runs.
        floor: Intervals of its floor.
    """

    regime: str
    pareto: pd.DataFrame
    fit: LawFit
    alpha: Interval
    floor: Interval


def envelopes(draws: CellDraws) -> tuple[Envelope, ...]:
    """The envelope of each regime."""
    return tuple(_envelope(str(key[0]), draws.take(places)) for key, places in draws.groups(["regime"]))


def on_frontier(compute: Floats, error: Floats) -> NDArray[np.bool_]:
    """Which cells no other one beats that costs as much (to two percent, what whole batches leave) or less.

    Args:
        compute: Shape (cells,).
        error: Shape (draws, cells).
    """
    step = np.round(np.log(compute) / _SAME_COST)
    kept = np.zeros(error.shape, dtype=bool)
    before = np.full((len(error), 1), np.inf)
    for cost in np.unique(step):
        here = step == cost
        lowest = np.minimum(before, error[:, here].min(axis=1, keepdims=True))
        kept[:, here] = (error[:, here] == lowest) & (error[:, here] < before)
        before = lowest
    return kept


def _envelope(regime: str, draws: CellDraws) -> Envelope:
    compute = draws.cells[X_COLUMNS["compute"]].to_numpy(np.float64)
    error = draws.with_measured()
    kept = on_frontier(compute, error)
    share = kept[1:].mean(axis=0) if len(kept) > 1 else np.full(len(compute), np.nan)
    pareto = draws.cells.assign(probability=share)[kept[0]].sort_values(X_COLUMNS["compute"])
    best = [places[error[:, places].argmin(axis=1)] for _, places in draws.groups(["budget"])]
    chosen = np.stack(best, axis=1)
    x, y = compute[chosen], np.take_along_axis(error, chosen, axis=1)
    runs = draws.cells["runs"].to_numpy(np.int64)[chosen]
    law = fit_law(FLOOR, x[0], y[0], runs=runs[0], draws=y[1:], source=draws.source)
    alpha = floor = Interval()
    if law.supported and draws.source == "runs":
        # A run left out leaves the best cells the best: the jackknife is over theirs alone.
        without = draws.take(chosen[0]).resampled()[1 + draws.refits :]
        x, runs = (np.concatenate([rows, np.repeat(rows[:1], len(without), axis=0)]) for rows in (x, runs))
        laws = fit(FLOOR, x, np.concatenate([y, without]), weights=runs)
        alpha, floor = (intervals(values, draws.refits) for values in (laws.alpha, laws.floor))
    return Envelope(regime=regime, pareto=pareto.reset_index(drop=True), fit=law, alpha=alpha, floor=floor)
