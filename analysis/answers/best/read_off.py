"""Errors of all configurations at one compute, each interpolated on its own curve.

Outside fixed compute configurations need not have cells of equal cost. A curve is one configuration over its
cells (see ``bootstrap.curve_numbers``). It is read by straight lines in ln x through the lowest error so far.
It has no value before its first cell and keeps its last value beyond its last cell.

For a falling curve this is an upper bound: between two cells of a flattening curve it lies below the straight
line, and beyond the last cell it falls on. Without a correction, the one of two equal configurations that has
a cell at the compute in question would appear better. So each draw lies below the reading by a random share:
between cells by 0 to 2 times the larger estimate of ``interpolation.bends``, beyond the last cell by 0 to 1.5
times the fall along the last line, since a curve near chance still steepens. A curve of a single cell has no
such line and is marked as ``short``.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices
from analysis.cells.bootstrap import CellDraws, curve_numbers, stream
from analysis.cells.interpolation import between, sags, straight_lines
from analysis.cells.pareto import SAME_COST

_STEEPEST = 1.5
"""Largest fall beyond the last cell, in units of that along the last line.

A curve that leaves chance as x^-α steepens from level to level by at most the α-th power of their ratio. With
1, one of two equal configurations that was run one level further was clear in 9 of 12 studies whose error
falls by the same amount at each level, and in 12 of 12 near chance; with 1.5 in none.
"""


def cells_by_curve(draws: CellDraws, cost: Floats) -> list[Indices]:
    """Return the cells of each curve by rising cost."""
    number = curve_numbers(draws.cells)
    order = np.lexsort((cost, number))
    return np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if len(order) else []


def read(cost: Floats, error: Floats, at: Floats) -> Floats:
    """Return a curve's error at each compute, shape (rows, len(at)); infinite before its first cell.

    Args:
        cost: Costs of its cells, rising, shape (cells,).
        error: Errors of its cells, shape (rows, cells).
        at: Training FLOPs to read it at.
    """
    found = straight_lines(cost, np.minimum.accumulate(error, axis=1), at)
    return np.where(at * SAME_COST < cost[0], np.inf, found)


def at_compute(draws: CellDraws, cost: Floats, flops: float, *, falling: bool = True) -> CellDraws:
    """Return one cell per configuration, as it would be at a compute.

    Args:
        draws: Cells of one regime.
        cost: Cost of each cell, see ``pareto.costs``.
        flops: Compute to read the curves at.
        falling: False to let curves keep their last value in the draws, too.

    Returns:
        For each configuration with a cell at that compute or below: the columns of its nearest cell, with the
        interpolated ``error``, the smaller ``runs`` and the summed ``diverged`` of the two cells around it,
        ``beyond``, whether its last cell is at less compute, and ``short``, whether that is its only cell.
    """
    nearest, rows, drawn = [], [], []
    at = np.array([flops])
    errors, runs, diverged = (draws.column(name) for name in ("error", "runs", "diverged"))
    generator = stream("read off")
    for positions in cells_by_curve(draws, cost):
        x = cost[positions]
        if x[0] > flops * SAME_COST:
            continue
        error = errors[positions]
        (below,), (share,) = between(x, at)
        sides = positions[below : below + (1 if share == 0 else 2)]
        value = float(read(x, error[None, :], at)[0, 0])
        beyond = bool(x[-1] * SAME_COST < flops)
        nearest.append(positions[int(below + round(share))])
        rows.append((value, int(runs[sides].min()), diverged[sides].sum(), beyond, beyond and len(x) == 1))
        line = draws.draws[:, positions]
        if beyond:
            open_below = falling * fall_beyond(x, line, flops) * generator.random(len(line))
        else:
            open_below = sags(x, error, flops, len(line), generator)
        drawn.append(np.maximum(read(x, line, at)[:, 0] - open_below, 0.0))
    nothing = np.empty(0, dtype=np.intp)
    changed = pd.DataFrame(rows, columns=["error", "runs", "diverged", "beyond", "short"])
    return replace(
        draws,
        cells=draws.cells.iloc[nearest].reset_index(drop=True).assign(**changed),
        draws=np.stack(drawn, axis=1),
        left_out=nothing,
        without=nothing.astype(np.float64),
        unit=nothing,
    )


def fall_beyond(cost: Floats, error: Floats, flops: float) -> Floats:
    """Return the largest fall of each row from its last cell to a compute beyond it."""
    if len(cost) == 1:
        return np.zeros(len(error))
    (before, last), fall = np.log(cost[-2:]), error[:, -2] - error[:, -1]
    steepest = _STEEPEST * np.maximum(fall, 0.0) / (last - before)
    return np.asarray(steepest * (np.log(flops) - last), dtype=np.float64)
