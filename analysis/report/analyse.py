"""Computation of everything in a report from the frames of a study, before anything is drawn."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis.answers.contrasts import Statement, contrasts, statements
from analysis.answers.cost import Cost, by_level, totals
from analysis.answers.crossover import crossovers
from analysis.answers.envelope import Envelope, envelopes
from analysis.answers.equivalence import equivalences
from analysis.answers.quality_trade import QualityTrade, quality_trades
from analysis.answers.robustness import robustness
from analysis.cells.bootstrap import CellDraws, cell_draws
from analysis.cells.curves import X_COLUMNS
from analysis.cells.study_frames import StudyFrames, lost_cells, missing, with_budgets
from analysis.cells.table import Trials
from analysis.laws.holdout import Holdout, holdout
from analysis.laws.laws import Law, laws
from analysis.laws.surface_forecast import FamilySurface, family_surfaces
from analysis.report.best_at_budgets import best_at_budgets
from analysis.sizes.scaling_exponents import Growth, growths, scaling_exponents
from analysis.sizes.size_profile import IsoFlopCurve, isoflop_curves

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

    Attributes:
        trials: Finished trials.
        draws: Cells of these trials, with their uncertainty.
        progress: Progress of the plan.
        missing: Planned trials without a result, see ``study_frames.missing``.
        frontier: Best configurations, see ``frontier.frontier`` and ``scope.with_scope``; ``planned`` is the
            number of configurations planned at each budget.
        contrasts: Comparisons along one axis, see ``contrasts.contrasts``.
        statements: Joint result of the comparisons along each axis.
        laws: Laws along compute, then along data.
        profiles: IsoFLOP profiles.
        growths: Growth of the best model size with compute in each family.
        exponents: See ``scaling_exponents.scaling_exponents``.
        crossovers: See ``crossover.crossovers``; along compute, then along data.
        equivalences: See ``equivalence.equivalences``; along compute, then along data.
        holdout: Held-out forecasts of the laws.
        surfaces: Surface over model size and data of each family.
        envelopes: Lower envelope over compute of each regime.
        quality_trades: Best kept fraction over the budget and over the pool.
        robustness: See ``robustness.robustness``.
        cost: Total cost.
        levels: Cost by budget level.
        imported: For an imported study, what was read of its table; empty otherwise.
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
