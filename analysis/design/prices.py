"""The price of each trial of a grid: one of a trunk also pays the shorter ones that it continues from.

Where trunks are evaluated, all but the trials of trunks are branches: none continues from these.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices, Mask
from analysis.cells.table import of_trunks


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """The costs of a grid's trials.

    Attributes:
        paid: FLOPs of each trial if the trials that it continues from were run, shape (trials,).
        branch: Trials that no other continues from, shape (trials,).
        order: Rows of the grid, trunk by trunk, the shortest first; shape (trials,).
        start: For each place in ``order``, the place where its trunk begins, shape (trials,).
    """

    paid: Floats
    branch: Mask
    order: Indices
    start: Indices

    @classmethod
    def of(cls, grid: pd.DataFrame) -> "Prices":
        """Return the costs of a grid with the columns of a plan."""
        paid = grid["paid_flops"].to_numpy(np.float64)
        unit, states = trunks_of(grid), of_trunks(grid)
        branch = ~states & states.any()
        size = grid["level_flops" if states.any() else "train_flops"].to_numpy(np.float64)
        order = np.lexsort((np.arange(len(grid)), branch, size, unit))
        first = np.diff(unit[order], prepend=-1) != 0
        start = np.maximum.accumulate(np.where(first, np.arange(len(grid)), 0))
        return cls(paid=paid, branch=branch, order=order, start=start)

    def now(self, taken: Mask) -> Floats:
        """Return the cost of each trial with the missing shorter trials of its trunk, shape (trials,)."""
        costs = np.where(taken | self.branch, 0.0, self.paid)[self.order]
        # The running sum over all trunks, minus its value just before the trunk of each trial.
        along = np.cumsum(costs)
        due = np.empty_like(self.paid)
        due[self.order] = along - (along - costs)[self.start]
        return np.where(taken, self.paid, due + np.where(self.branch, self.paid, 0.0))

    def brought(self, row: int, taken: Mask) -> list[int]:
        """Return the missing shorter trials of a trial's trunk, the shortest first, then the trial itself."""
        place = int(np.flatnonzero(self.order == row)[0])
        trunk = self.order[self.start[place] : place]
        return [*trunk[~(taken | self.branch)[trunk]].tolist(), row]


def trunks_of(grid: pd.DataFrame) -> Indices:
    """Return the number of each trial's trunk, or of the trial itself without one; shape (trials,)."""
    trunk = grid["trunk"].where(grid["trunk"] != "", grid["trial"]) if "trunk" in grid else grid["trial"]
    return np.asarray(pd.factorize(trunk)[0], dtype=np.intp)
