"""Computation of everything in a report from the frames of a study, before anything is drawn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.choice import lost_text
from analysis.answers.contrasts import Statement, contrasts, statements
from analysis.answers.cost import Cost, by_level, totals
from analysis.answers.crossover import crossovers
from analysis.answers.envelope import Envelope, envelopes
from analysis.answers.equivalence import equivalences
from analysis.answers.frontier import frontier
from analysis.answers.quality_trade import QualityTrade, quality_trades
from analysis.answers.robustness import robustness
from analysis.answers.scope import with_scope
from analysis.cells.bootstrap import CellDraws, cell_draws, curve_numbers
from analysis.cells.curves import X_COLUMNS
from analysis.cells.pareto import SAME_COST, costs, same_cost
from analysis.cells.study_frames import StudyFrames, lost_cells, missing, with_budgets
from analysis.cells.table import CELL, Trials, records
from analysis.design.course import by_design
from analysis.labels import configuration_text
from analysis.laws.holdout import Holdout, holdout
from analysis.laws.laws import Law, laws
from analysis.laws.surface_forecast import FamilySurface, family_surfaces
from analysis.sizes.scaling_exponents import Growth, growths, scaling_exponents
from analysis.sizes.size_profile import IsoFlopCurve, isoflop_curves
from budgets.quantity import plural

OnProgress = Callable[[str, int, int], None]
"""Takes a kind of work, the number of its steps that are done, and the number of all."""
_STEPS = 5


def no_progress(_what: str, _done: int, _of: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialCounts:
    """Numbers of trials by how far they are; ``planned`` leaves out those that a design has not chosen."""

    planned: int
    finished: int
    excluded: int
    begun: int
    not_chosen: int

    @property
    def waiting(self) -> int:
        """Number of planned trials without a row in the results that were not begun."""
        return max(0, self.planned - self.finished - self.excluded - self.begun)


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    """Everything that is computed from the frames of a study.

    The function of a frame's name describes it (``missing``: `study_frames.missing`; ``frontier``:
    `best_at_budgets`; ``levels``: cost by budget level). ``laws``, ``crossovers`` and ``equivalences`` run
    along compute, then along data. ``imported`` says what was read of an imported study's table.
    """

    trials: Trials
    draws: CellDraws
    progress: TrialCounts
    missing: pd.DataFrame
    frontier: pd.DataFrame
    contrasts: pd.DataFrame
    statements: tuple[Statement, ...]
    laws: tuple[Law, ...]
    profiles: tuple[IsoFlopCurve, ...]
    growths: tuple[Growth, ...]
    exponents: pd.DataFrame
    crossovers: pd.DataFrame
    equivalences: pd.DataFrame
    holdout: Holdout
    surfaces: tuple[FamilySurface, ...]
    envelopes: tuple[Envelope, ...]
    quality_trades: tuple[QualityTrade, ...]
    robustness: pd.DataFrame
    cost: Cost
    levels: pd.DataFrame
    imported: str


def analyse(study: StudyFrames, progress: OnProgress = no_progress) -> Analysis:
    """Compute everything that a report says of a study, and report progress after each long step."""
    results, plan = study.results, study.plan
    trials = study.trials
    draws = cell_draws(trials, question="frontier")
    planned = with_budgets(plan, trials)
    best = best_at_budgets(study, trials, draws)
    progress("analysis", 1, _STEPS)
    table = contrasts(draws, planned, lost_cells(trials))
    law_draws = cell_draws(trials, question="laws")
    fitted = (*laws(law_draws, along="compute"), *laws(law_draws, along="data"))
    progress("analysis", 2, _STEPS)
    held = holdout(law_draws, fitted)
    progress("analysis", 3, _STEPS)
    surfaces, size_draws = family_surfaces(law_draws), cell_draws(trials, question="isoflop")
    grown = growths(size_draws, surfaces)
    progress("analysis", 4, _STEPS)
    found = Analysis(
        trials=trials,
        draws=draws,
        progress=TrialCounts(
            planned=max(len(plan), len(results)),
            finished=len(trials.frame),
            excluded=len(trials.excluded),
            begun=len(study.begun),
            not_chosen=len(study.not_chosen),
        ),
        missing=missing(planned, trials, study.begun),
        frontier=best,
        contrasts=table,
        statements=statements(draws, table, planned),
        laws=fitted,
        profiles=tuple(isoflop_curves(size_draws)),
        growths=grown,
        exponents=scaling_exponents(grown),
        crossovers=pd.concat([crossovers(law_draws, fitted, along=along) for along in X_COLUMNS]),
        equivalences=pd.concat([equivalences(law_draws, fitted, along=along) for along in X_COLUMNS]),
        holdout=held,
        surfaces=surfaces,
        envelopes=envelopes(law_draws, held.choices),
        quality_trades=quality_trades(law_draws),
        robustness=robustness(results, metric=trials.metric),
        cost=totals(
            plan,
            study.ledger,
            study.events,
            budget_flops=study.budget_flops,
            price_per_hour=study.price_per_hour,
        ),
        levels=by_level(plan, study.ledger, study.events),
        imported=study.imported,
    )
    progress("analysis", _STEPS, _STEPS)
    return found


def best_at_budgets(study: StudyFrames, trials: Trials, draws: CellDraws) -> pd.DataFrame:
    """Return the table of `frontier.frontier` and `scope.with_scope`, with verdicts on unfinished studies.

    A winner is not clear while planned configurations or seeds of its own have no result, or if a
    configuration has lost all of its runs. Two more columns are the number of configurations planned at each
    budget (``planned``), and the number of those in the grid (``grid``).
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
