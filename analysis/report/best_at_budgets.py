"""The best configuration at each budget, with what the plan, the design and lost runs say about it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.choice import lost_text
from analysis.answers.frontier import frontier
from analysis.answers.scope import with_scope
from analysis.cells.bootstrap import CellDraws, curve_numbers
from analysis.cells.pareto import SAME_COST, costs, same_cost
from analysis.cells.study_frames import StudyFrames, lost_cells, with_budgets
from analysis.cells.table import CELL, Trials, records
from analysis.design.course import by_design
from analysis.labels import configuration_text
from budgets.quantity import plural


def best_at_budgets(study: StudyFrames, trials: Trials, draws: CellDraws) -> pd.DataFrame:
    """Return the table of `frontier.frontier` and `scope.with_scope`, with verdicts on unfinished studies.

    A winner is not clear while planned configurations or seeds of its own have no result, or if a
    configuration has lost all of its runs.

    Args:
        study: Frames of the study.
        trials: Its trials.
        draws: Cells of these trials.

    Returns:
        That table with two more columns: the number of configurations planned at each budget (``planned``),
        and the number of those in the grid (``grid``).
    """
    best = frontier(draws)
    if best.empty:
        return best
    planned = with_budgets(study.plan, trials)
    grid = with_budgets(pd.concat([study.plan, study.not_chosen]), trials)
    counts = {"planned": planned, "grid": grid}
    best = best.assign(**{name: _configurations(best, each) for name, each in counts.items()})
    best = _so_far(by_design(best, study.events), planned, lost_cells(trials))
    return with_scope(
        best, draws, plan=planned, left_out=study.left_out, rates=study.tuned_rates, own=study.architectures
    )


def _so_far(best: pd.DataFrame, plan: pd.DataFrame, lost: pd.DataFrame) -> pd.DataFrame:
    verdicts, reasons = [], []
    for row in records(best):
        here = _planned_here(plan, row)
        own = here if here.empty else here[(here[[*CELL]] == [row[name] for name in CELL]).all(axis=1)]
        left, seeds = (int((~rows["ended"]).sum()) if len(rows) else 0 for rows in (here, own))
        gone = [configuration_text(cell) for cell in records(_lost_here(lost, row))]
        notes, ended = [], row["configurations"] + len(gone)
        if row["planned"] > ended:
            notes.append(f"{ended} of {row['planned']} planned configurations finished")
        if seeds > 0:
            notes.append(f"{seeds} of its seeds {'has' if seeds == 1 else 'have'} no result")
        so_far = "so far " if notes else ""
        if left and not notes:
            notes.append(f"{plural(left, 'run')} of other configurations without a result")
        if gone:
            notes.append(lost_text(gone))
        verdicts.append("undecided" if row["verdict"] == "clear" and (so_far or gone) else row["verdict"])
        reasons.append("; ".join([so_far + row["reason"], *([", ".join(notes)] if notes else [])]))
    return best.assign(verdict=verdicts, reason=reasons)


def _planned_here(plan: pd.DataFrame, row: Mapping[str, Any]) -> pd.DataFrame:
    """Return the planned trials at a row's budget; outside fixed compute, those that cost no more."""
    if plan.empty:
        return plan
    fixed = row["regime"] == "fixed-compute"
    same = plan["budget"] == row["budget"] if fixed else plan["train_flops"] <= row["flops"] * SAME_COST
    here: pd.DataFrame = plan[(plan["regime"] == row["regime"]) & same]
    return here


def _lost_here(lost: pd.DataFrame, row: Mapping[str, Any]) -> pd.DataFrame:
    """Return the lost cells of a row's regime that cost what its budget does."""
    if lost.empty:
        return lost
    here: pd.DataFrame = lost[(lost["regime"] == row["regime"]) & same_cost(costs(lost), row["flops"])]
    return here


def _configurations(best: pd.DataFrame, plan: pd.DataFrame) -> list[int]:
    """Return the number of configurations planned at each budget, at least the number measured there."""
    return [
        max(
            len(np.unique(curve_numbers(_planned_here(plan, row)))) if len(plan) else 0,
            int(row["configurations"]),
        )
        for row in records(best)
    ]
