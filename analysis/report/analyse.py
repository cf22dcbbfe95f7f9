"""Computation of everything in a report from the frames of a study, before anything is drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from math import nan

import pandas as pd

from analysis.answers.best import best_at_budgets
from analysis.answers.contrasts import contrasts, pareto
from analysis.answers.cost import Cost, by_level, score_costs, totals
from analysis.answers.crossing import comparisons, quality_trades
from analysis.answers.outliers import outliers
from analysis.answers.robustness import robustness
from analysis.answers.scope import with_scope
from analysis.answers.variance import variance_shares
from analysis.belief.cell_draws import CellDraws, study_draws
from analysis.belief.curves import X_COLUMNS
from analysis.belief.parameters import parameters
from analysis.belief.trunk_map import TrunkMap, trunk_map, weights_miss
from analysis.cells.study_frames import StudyFrames, missing
from analysis.cells.table import Trials, records, with_budgets
from analysis.laws.best_size import Growth, Profile, growths, profiles, scaling_exponents
from analysis.laws.holdout import Holdout, holdout
from analysis.laws.laws import Law, laws
from budgets.planning.scoring import score_flops
from runners.results import AVERAGE

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

    The function of a frame's name describes it (``missing``: `study_frames.missing`; ``best``:
    `best_at_budgets` and `with_scope`, with the cost of its scores; ``levels``: cost by budget level;
    ``shares``: `variance_shares`).
    ``laws`` run along compute, then along data. ``trunk_map`` is None without evaluated trunks;
    ``weights_miss`` is of `trunk_map.weights_miss`, NaN unless weights and averages were measured.
    """

    study: StudyFrames
    trials: Trials
    draws: CellDraws
    outliers: pd.DataFrame
    progress: TrialCounts
    missing: pd.DataFrame
    best: pd.DataFrame
    contrasts: pd.DataFrame
    laws: tuple[Law, ...]
    parameters: pd.DataFrame
    profiles: tuple[Profile, ...]
    growths: tuple[Growth, ...]
    trunk_map: TrunkMap | None
    weights_miss: float
    exponents: pd.DataFrame
    comparisons: pd.DataFrame
    holdout: Holdout
    pareto: pd.DataFrame
    shares: pd.DataFrame
    quality_trades: pd.DataFrame
    robustness: pd.DataFrame
    cost: Cost
    levels: pd.DataFrame


def analyse(study: StudyFrames, progress: OnProgress = no_progress) -> Analysis:
    """Compute everything that a report says of a study, and report progress after each long step."""
    every, trials = study.every("plan"), study.trials
    draws = study_draws(study)
    planned, all_planned = with_budgets(study.plan, trials), with_budgets(every, trials)
    best = with_scope(
        best_at_budgets(draws), draws, plan=planned, left_out=study.left_out, rates=study.tuned_rates,
        own=study.architectures,
    )  # fmt: skip
    best = best.assign(
        score_flops=[
            score_flops(score_costs(study.scores, row["quality"], row["strategy"])) for row in records(best)
        ]
    )
    progress("analysis", 1, _STEPS)
    table = contrasts(draws, planned)
    fitted = tuple(law for along in X_COLUMNS for law in laws(draws, along=along))
    progress("analysis", 2, _STEPS)
    held = holdout(trials)
    progress("analysis", 3, _STEPS)
    grown = growths(draws)
    progress("analysis", 4, _STEPS)
    levels = by_level(every, study.spent, study.events)
    mapped = next(filter(None, (trunk_map(family, trials) for family in draws.families.values())), None)
    averaged = mapped is not None and len(mapped.pairs) and study.metric + AVERAGE in study.results
    analysis = Analysis(
        study=study,
        trials=trials,
        draws=draws,
        outliers=outliers(draws.families, trials),
        progress=TrialCounts(
            planned=max(len(all_planned), len(study.every("results"))),
            finished=len(trials.every),
            excluded=len(trials.excluded),
            begun=len(study.begun),
            not_chosen=len(study.every("not_chosen")),
        ),
        missing=missing(all_planned, trials, study.begun),
        best=best,
        contrasts=table,
        laws=fitted,
        parameters=parameters(family for family in draws.families.values() if family.ran.any()),
        profiles=profiles(draws),
        growths=grown,
        trunk_map=mapped,
        weights_miss=weights_miss(study.every("results"), study.grid, study.metric) if averaged else nan,
        exponents=scaling_exponents(grown),
        comparisons=comparisons(draws),
        holdout=held,
        pareto=pareto(draws),
        shares=variance_shares(draws),
        quality_trades=quality_trades(draws),
        robustness=robustness(study.results, metric=trials.metric),
        cost=totals(
            levels, study.events, budget_flops=study.budget_flops, price_per_hour=study.price_per_hour
        ),
        levels=levels,
    )
    progress("analysis", _STEPS, _STEPS)
    return analysis
