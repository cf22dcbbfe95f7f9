"""Every configuration's error at one compute, read off its own curve between the cells that were measured.

Outside of fixed compute no two configurations need have a cell of the same cost. A curve is one
configuration over its cells (see ``bootstrap.curve_numbers``). It is read off by straight lines in ln x
through the lowest error it has reached so far: never before its first cell, and beyond its last one it stays
as low as it was.

That is the most that a curve's error can be, where it falls and flattens: between two cells it lies below
the straight line, and beyond the last one it goes on falling, at most as steeply as along the last line.
Without regard to that, of two equal configurations the one that has a cell at the compute in question would
be called the better one. So each draw goes below the reading by a share of what is open: between cells by 0
to 2 times what the parabola through the cell before or the power law with floor through the cell after does
(of two cells alone, an eighth of their fall at the middle), beyond the last one by 0 to 1 times the fall
along the last line. A curve of one cell has no such line: it is marked as ``short``.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells.bootstrap import CellDraws, stream
from analysis.cells.interpolation import bends, straight_lines
from analysis.cells.pareto import SAME_COST

Floats = NDArray[np.float64]
Positions = NDArray[np.intp]


def curves(draws: CellDraws, cost: Floats) -> list[Positions]:
    """Return the cells of each curve by rising cost."""
    number = draws.curves()
    order = np.lexsort((cost, number))
    return np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if len(order) else []


def read(cost: Floats, error: Floats, at: Floats) -> Floats:
    """Return a curve's error at each compute, shape (rows, len(at)); infinite before its first cell.

    Args:
        cost: Of its cells, rising, shape (cells,).
        error: Of its cells, shape (rows, cells).
        at: Training FLOPs.
    """
    found = straight_lines(cost, np.minimum.accumulate(error, axis=1), at)
    return np.where(at * SAME_COST < cost[0], np.inf, found)


def at_compute(draws: CellDraws, cost: Floats, flops: float) -> CellDraws:
    """Return one cell a configuration: what it reaches for so much compute.

    Args:
        draws: Cells of one regime.
        cost: Of each of them, see ``pareto.costs``.
        flops: Where the curves are read off.

    Returns:
        Of each configuration that has a cell for no more compute, the columns of the nearest of its cells,
        with the ``error`` read off, the fewer ``runs`` and all the ``diverged`` ones of the two cells that it
        was read between, and ``short``: it is of one cell, for less compute.
    """
    rows, drawn = [], []
    at = np.array([flops])
    generator = stream("read off", 0)
    for positions in curves(draws, cost):
        x = cost[positions]
        if x[0] > flops * SAME_COST:
            continue
        cells = draws.cells.iloc[positions]
        error = cells["error"].to_numpy(np.float64)
        (below,), (share,) = _between(x, at)
        sides = cells.iloc[below : below + (1 if share == 0 else 2)]
        value = float(read(x, error[None, :], at)[0, 0])
        beyond = bool(x[-1] * SAME_COST < flops)
        rows.append(
            cells.iloc[int(below + round(share))].to_dict()
            | {"error": value, "runs": sides["runs"].min(), "diverged": sides["diverged"].sum()}
            | {"short": beyond and len(x) == 1}
        )
        line = draws.draws[:, positions]
        if beyond:
            open_below = _fall_beyond(x, line, flops) * generator.random(len(line))
        else:
            bend = max(0.0, float(np.nanmax(bends(x, error, at)[:, 0])))
            open_below = bend * generator.uniform(0.0, 2.0, len(line))
        drawn.append(np.maximum(read(x, line, at)[:, 0] - open_below, 0.0))
    nothing = np.empty(0, dtype=np.intp)
    return replace(
        draws,
        cells=pd.DataFrame(rows),
        draws=np.stack(drawn, axis=1),
        left_out=nothing,
        without=nothing.astype(np.float64),
    )


def _between(cost: Floats, at: Floats) -> tuple[Positions, Floats]:
    """The cell below each compute, and how far towards the next it lies: 0 at or beyond the last cell."""
    log_x, log_at = np.log(cost), np.log(at)
    below = np.clip(np.searchsorted(log_x, log_at, side="right") - 1, 0, len(cost) - 1)
    step = np.append(np.diff(log_x), np.inf)[below]
    share = np.clip((log_at - log_x[below]) / np.where(step > 0, step, np.inf), 0.0, 1.0)
    return below.astype(np.intp), share


def _fall_beyond(cost: Floats, error: Floats, flops: float) -> Floats:
    """How far each row of a curve falls from its last cell to a compute beyond it, along the last line."""
    if len(cost) == 1:
        return np.zeros(len(error))
    (before, last), fall = np.log(cost[-2:]), error[:, -2] - error[:, -1]
    return np.asarray(np.maximum(fall, 0.0) * (np.log(flops) - last) / (last - before), dtype=np.float64)
