"""The lower envelope over compute: the lowest error that any configuration reaches for so many FLOPs.

The Pareto frontier keeps the cells that no cheaper cell beats; each with the share of the draws in which it
is one of them. The law of the envelope is the power law with floor through the best cell of each budget
(Hoffmann et al. 2022, approach 1), refitted in each draw to that draw's best cells.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.bootstrap import CellDraws, interval
from analysis.laws import X_COLUMNS, with_measured
from analysis.power_law import PowerLawFit, fit, fit_draws

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
        alpha: Interval of its exponent; NaN without draws of runs.
        floor: Interval of its floor.
    """

    regime: str
    pareto: pd.DataFrame
    fit: PowerLawFit
    alpha: tuple[float, float]
    floor: tuple[float, float]


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
    error = with_measured(draws)
    kept = on_frontier(compute, error)
    share = kept[1:].mean(axis=0) if len(kept) > 1 else np.full(len(compute), np.nan)
    pareto = draws.cells.assign(probability=share)[kept[0]].sort_values(X_COLUMNS["compute"])
    best = [places[error[:, places].argmin(axis=1)] for _, places in draws.groups(["budget"])]
    chosen = np.stack(best, axis=1)
    x, y = compute[chosen], np.take_along_axis(error, chosen, axis=1)
    runs = draws.cells["runs"].to_numpy(np.int64)[chosen]
    law = fit(x[0], y[0], runs=runs[0])
    alpha = floor = (float("nan"), float("nan"))
    if law.supported and draws.source == "runs":
        drawn = fit_draws(x[1:], y[1:], runs=runs[1:])
        alpha, floor = interval(drawn.alpha), interval(drawn.floor)
    return Envelope(regime=regime, pareto=pareto.reset_index(drop=True), fit=law, alpha=alpha, floor=floor)
