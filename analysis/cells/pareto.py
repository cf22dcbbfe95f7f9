"""The Pareto frontier over compute: cells that no other cell beats at equal or lower cost."""

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Mask
from analysis.cells.table import BATCH_ROUNDING

SAME_COST = 1 + BATCH_ROUNDING
"""Factor within which two trials count as equally expensive, since levels are rounded to whole batches."""


def costs(cells: pd.DataFrame) -> Floats:
    """Return the cost of each cell, or trial, in training FLOPs of one trial.

    Cells of one declared level cost the same: rounding to whole batches (195.8 of 200 GFLOP) does not make
    one of them cheaper.
    """
    fixed = cells["regime"].to_numpy(object) == "fixed-compute"
    budget, flops = (cells[name].to_numpy(np.float64) for name in ("budget", "train_flops"))
    return np.where(fixed, budget, flops)


def same_cost(cost: Floats, other: float) -> Mask:
    """Return which costs are the same as another one, up to the rounding of levels to whole batches."""
    return np.asarray(np.abs(np.log(cost / other)) <= np.log(SAME_COST))


def undominated(cost: Floats, error: Floats) -> Mask:
    """Return a mask, shape (draws, cells), of the cells that no other beats.

    Another cell beats one by a lower error (draws, cells) at no higher cost, or by an equal error at a lower
    cost (cells,); costs within ``SAME_COST`` count as the same.
    """
    order = np.argsort(cost, kind="stable")
    lowest = np.minimum.accumulate(error[:, order], axis=1)
    lowest = np.concatenate([np.full((len(error), 1), np.inf), lowest], axis=1)
    no_more = np.searchsorted(cost[order], cost * SAME_COST, side="right")
    less = np.searchsorted(cost[order], cost / SAME_COST, side="left")
    return (error <= lowest[:, no_more]) & (error < lowest[:, less])
