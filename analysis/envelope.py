"""The lower envelope over compute: the lowest error that any configuration reaches for so many FLOPs.

The Pareto frontier keeps the cells that no other beats for as much compute or less; each with the share of
the draws in which it is one of them. The law of the envelope runs through the lowest of all configurations'
curves at every compute that was measured (Hoffmann et al. 2022, approach 1): each curve is read off there
between its own cells, see ``read_off``. The law is refitted to each draw's envelope.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.bootstrap import CellDraws
from analysis.intervals import Interval, intervals
from analysis.pareto import costs, undominated
from analysis.power_law import PowerLawFit, fit, fit_draws
from analysis.read_off import curves, read

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """The envelope of one regime.

    Attributes:
        regime: Whose cells these are.
        pareto: The cells of the frontier by rising compute: the columns of ``CellDraws.cells`` and
            ``probability``, that the cell is one of them.
        read: What the law runs through: ``train_flops``, ``error`` and the ``runs`` of the cell that it was
            read off at or before.
        fit: The law.
        alpha: Intervals of its exponent; NaN without draws of runs.
        floor: Intervals of its floor.
    """

    regime: str
    pareto: pd.DataFrame
    read: pd.DataFrame
    fit: PowerLawFit
    alpha: Interval
    floor: Interval


def envelopes(draws: CellDraws) -> tuple[Envelope, ...]:
    """The envelope of each regime."""
    return tuple(_envelope(str(key[0]), draws.take(places)) for key, places in draws.groups(["regime"]))


def _envelope(regime: str, draws: CellDraws) -> Envelope:
    cost = costs(draws.cells)
    kept = undominated(cost, draws.with_measured())
    share = kept[1:].mean(axis=0) if len(kept) > 1 else np.full(len(cost), np.nan)
    pareto = draws.cells.assign(probability=share)[kept[0]].sort_values("train_flops")
    grid = np.unique(cost[cost <= cost[kept[0]].max()])
    x = np.array([draws.cells["train_flops"].to_numpy(np.float64)[cost == at].mean() for at in grid])
    y, runs = _lowest(draws, cost, grid)
    law, alpha, floor = _law(draws, x, y, runs)
    read_off = pd.DataFrame({"train_flops": x, "error": y[0], "runs": runs[0]})
    return Envelope(
        regime=regime, pareto=pareto.reset_index(drop=True), read=read_off, fit=law, alpha=alpha, floor=floor
    )


def _lowest(draws: CellDraws, cost: Floats, grid: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """The lowest curve at each compute, and the runs of its cell there, for each row of the cells' stack."""
    stack, runs = draws.resampled(), draws.cells["runs"].to_numpy(np.int64)
    found, behind = [], []
    for positions in curves(draws, cost):
        x = cost[positions]
        found.append(read(x, stack[:, positions], grid))
        behind.append(runs[positions][np.clip(np.searchsorted(x, grid), 0, len(x) - 1)])
    readings = np.stack(found)
    lowest = readings.argmin(axis=0)
    y = np.take_along_axis(readings, lowest[None], axis=0)[0]
    return y, np.stack(behind)[lowest, np.arange(len(grid))]


def _law(
    draws: CellDraws, x: Floats, y: Floats, runs: NDArray[np.int64]
) -> tuple[PowerLawFit, Interval, Interval]:
    """The law through the envelope, with the intervals of its exponent and floor.

    Args:
        draws: Of the regime's cells.
        x: Training FLOPs.
        y: The envelope for each row of the cells' stack (``CellDraws.resampled``).
        runs: Weights, of the same shape.
    """
    law = fit(x, y[0], runs=runs[0], draws=y[1 : 1 + draws.refits], source=draws.source)
    if not law.supported or draws.source != "runs":
        return law, Interval(), Interval()
    laws = fit_draws(x, y, runs=runs)
    return law, intervals(laws.alpha, draws.refits), intervals(laws.floor, draws.refits)
