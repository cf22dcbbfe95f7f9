"""The grid of a study as families of curves, the points of its questions, and the price of each trial.

A trial of a trunk needs, and pays, the shorter ones that it continues from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices, Mask
from analysis.cells.bootstrap import curve_numbers
from analysis.cells.pareto import SAME_COST, same_cost
from analysis.cells.table import CONFIGURATION, Trials, budgets, records
from analysis.design.belief import Measured
from analysis.error_unit import chance_error
from analysis.labels import configuration_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """The costs of a grid's trials.

    Attributes:
        paid: FLOPs of each trial if the trials that it continues from were run, shape (trials,).
        order: Rows of the grid, trunk by trunk, the shortest first; shape (trials,).
        start: For each place in ``order``, the place where its trunk begins, shape (trials,).
    """

    paid: Floats
    order: Indices
    start: Indices

    @classmethod
    def of(cls, grid: pd.DataFrame) -> "Prices":
        """Return the costs of a grid with the columns of a plan."""
        paid = grid["paid_flops"].to_numpy(np.float64)
        unit = trunks_of(grid)
        order = np.lexsort((np.arange(len(grid)), grid["train_flops"].to_numpy(np.float64), unit))
        first = np.diff(unit[order], prepend=-1) != 0
        start = np.maximum.accumulate(np.where(first, np.arange(len(grid)), 0))
        return cls(paid=paid, order=order, start=start)

    def now(self, taken: Mask) -> Floats:
        """Return the cost of each trial with the missing shorter trials of its trunk, shape (trials,)."""
        costs = np.where(taken, 0.0, self.paid)[self.order]
        # The running sum over all trunks, minus its value just before the trunk of each trial.
        along = np.cumsum(costs)
        found = np.empty_like(self.paid)
        found[self.order] = along - (along - costs)[self.start]
        return np.where(taken, self.paid, found)

    def brought(self, row: int, taken: Mask) -> list[int]:
        """Return the missing shorter trials of a trial's trunk, the shortest first, then the trial itself."""
        place = int(np.flatnonzero(self.order == row)[0])
        trunk = self.order[self.start[place] : place + 1]
        return [int(each) for each in trunk[~taken[trunk]]]


def trunks_of(grid: pd.DataFrame) -> Indices:
    """Return the number of each trial's trunk, or of the trial itself without one; shape (trials,)."""
    trunk = grid["trunk"].where(grid["trunk"] != "", grid["trial"]) if "trunk" in grid else grid["trial"]
    return np.asarray(pd.factorize(trunk)[0], dtype=np.intp)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The curves of one regime.

    Attributes:
        regime: The regime.
        names: Text of each curve.
        x: Training FLOPs of the points of each curve, shape (curves, points).
        rows: Rows of the grid that belong to the family.
        curve: Curve of each of these rows.
        point: Point of each of these rows.
        computes: Computes of the questions about the best, ascending.
        columns: Point at which each curve is read for each of these; −1 if it does not take part, shape
            (computes, curves).
        target: Point at which each curve is read for the forecast, −1 if there is none, shape (curves,).
    """

    regime: str
    names: tuple[str, ...]
    x: Floats
    rows: Indices
    curve: Indices
    point: Indices
    computes: tuple[float, ...]
    columns: Indices
    target: Indices

    def values(self, draws: Floats, columns: Indices) -> Floats:
        """Return the draws of all curves at one point each; infinite for curves that do not take part."""
        taken = draws[:, np.arange(len(columns)), np.maximum(columns, 0)]
        return np.where(columns >= 0, taken, np.inf)

    def measured(self, trials: Trials, grid: pd.DataFrame) -> Measured:
        """Return the runs so far at the points of the family."""
        error = grid["trial"].map(trials.frame.set_index("trial")["error"]).to_numpy(np.float64)[self.rows]
        known = np.isfinite(error)
        curve, point = self.curve[known], self.point[known]
        trunk = pd.Series(trunks_of(grid.iloc[self.rows[known]]))
        unit = trunk.groupby(curve).rank(method="dense").to_numpy(np.intp) - 1
        errors = np.full((len(self.x), 1 + int(unit.max(initial=0)), self.x.shape[1]), np.nan)
        errors[curve, unit, point] = error[known]
        images = trials.frame["images"].to_numpy(np.float64)
        return Measured(
            x=self.x, errors=errors,
            images=float(np.median(images)) if len(images) else float("nan"),
            chance=chance_error(trials.metric),
        )  # fmt: skip


def layouts(grid: pd.DataFrame, *, best: Sequence[float] | None, forecast: float | None) -> Iterator[Layout]:
    """Yield the family of each regime; the questions are those of ``Ask``."""
    cells = grid.assign(budget=budgets(grid))
    for regime, here in cells.groupby("regime", sort=True):
        rows = np.flatnonzero((grid["regime"] == regime).to_numpy())
        curve = curve_numbers(here)
        yield (_levels if regime == "fixed-compute" else _computes)(here, rows, curve, best, forecast)


def _levels(
    here: pd.DataFrame, rows: Indices, curve: Indices, best: Sequence[float] | None, forecast: float | None
) -> Layout:
    budget = here["budget"].to_numpy(np.float64)
    levels, point = np.unique(budget, return_inverse=True)
    curves = int(curve.max()) + 1
    cell = np.zeros((curves, len(levels)), dtype=bool)
    cell[curve, point] = True
    places = [] if best is None else [
        place for place, level in enumerate(levels)
        if not best or any(level / SAME_COST <= one <= level * SAME_COST for one in best)
    ]  # fmt: skip
    x = np.append(levels, [] if forecast is None else [forecast])
    return Layout(
        regime="fixed-compute", names=_names(here, curve), x=np.tile(x, (curves, 1)), rows=rows, curve=curve,
        point=np.asarray(point, dtype=np.intp), computes=tuple(float(levels[place]) for place in places),
        columns=np.array([np.where(cell[:, place], place, -1) for place in places], dtype=np.intp).reshape(
            len(places), curves
        ),
        target=np.full(curves, -1 if forecast is None else len(levels)),
    )  # fmt: skip


def _computes(
    here: pd.DataFrame, rows: Indices, curve: Indices, best: Sequence[float] | None, forecast: float | None
) -> Layout:
    """Return a family whose curves have computes of their own; the best is asked for at given computes.

    A curve that ends below a compute is read at its largest cell, since it cannot spend more. One with a cell
    at the compute is read there, so that the runs of this cell count as runs at the compute.
    """
    flops = here["train_flops"].to_numpy(np.float64)
    mean = pd.Series(flops).groupby([curve, here["budget"].to_numpy()]).mean()
    own = [mean[each].sort_index() for each in range(int(curve.max()) + 1)]
    most = max(len(one) for one in own)
    place_of = {
        (each, budget): place for each, one in enumerate(own) for place, budget in enumerate(one.index)
    }
    point = np.array([place_of[key] for key in zip(curve, here["budget"], strict=True)], dtype=np.intp)
    computes = np.array([] if best is None else sorted(best or np.unique(mean.to_numpy())))
    # The points of a curve: its own cells (the last repeated, so that all curves have as many), then the
    # computes of the questions and of the forecast.
    at = np.append(computes, [] if forecast is None else [forecast])
    x = np.array([np.concatenate([np.pad(one, (0, most - len(one)), mode="edge"), at]) for one in own])
    columns = np.full((len(at), len(own)), -1, dtype=np.intp)
    for each, costs in enumerate(one.to_numpy(np.float64) for one in own):
        for row, compute in enumerate(at):
            asked = row < len(computes)  # for the best, not for the forecast
            if asked and compute >= costs[-1] / SAME_COST:
                columns[row, each] = len(costs) - 1
            elif asked and same_cost(costs, compute).any():
                columns[row, each] = np.abs(np.log(costs / compute)).argmin()
            elif compute >= costs[0] / SAME_COST:
                columns[row, each] = most + row
    return Layout(
        regime=str(here["regime"].iloc[0]), names=_names(here, curve), x=x, rows=rows, curve=curve,
        point=point, computes=tuple(computes.tolist()), columns=columns[: len(computes)],
        target=np.full(len(own), -1) if forecast is None else columns[-1],
    )  # fmt: skip


def _names(here: pd.DataFrame, curve: Indices) -> tuple[str, ...]:
    first = here.iloc[np.unique(curve, return_index=True)[1]][list(CONFIGURATION)]
    without = "subset_size" if str(here["regime"].iloc[0]) == "one-epoch" else ""
    return tuple(configuration_text(cell, without=without) for cell in records(first))
