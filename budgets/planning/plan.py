"""The plan of a study as plain data: trials with their costs, and left-out cells with their reasons.

`budgets.planning.planner` builds it from a declaration.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate

from budgets.declaration.sections import Cluster
from budgets.planning.facts import ScoreCost
from budgets.planning.planned_trial import Cell, Trial, continued_from, share_trunks
from budgets.planning.tuning_plan import TuningPlan

AGAIN = "trial-again"
"""Event of a request for a further attempt of a trial, before a run begins; ``trial`` is the attempt."""
TOO_LARGE = "trial-too-large"
"""Event of a trial for whose settings a GPU had no memory, with its kind and the estimate of its memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """Compute that the study budget pays once, in addition to the trials: training or forward FLOPs."""

    what: str
    flops: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A cell that is not run, or not with all of its seeds, and the reason with its numbers."""

    cell: Cell
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Resources that the planner chose for a trial, in words, and why.

    The words are the number of GPUs, with accumulation and gradient checkpointing if they are used.
    """

    words: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The plan of a study.

    Attributes:
        trials: The trials, in declared order, levels rising.
        study_flops: The study's cap in training FLOPs, or None.
        score_costs: Quality, mixture, or strategy → costs of its scores, or of the columns that it reads;
            ``charges`` has them if the budget counts them.
        levels: Budget levels in training FLOPs, declared or chosen, rising.
        warnings: Conclusions that this plan cannot support, and decisions of the planner.
        cluster: The declared cluster, or None.
        chosen: Trial id → the resources that were chosen; empty if resources are declared.
    """

    trials: tuple[Trial, ...]
    left_out: tuple[LeftOut, ...]
    charges: tuple[Charge, ...]
    study_flops: int | None
    score_costs: Mapping[str, tuple[ScoreCost, ...]] = field(default_factory=dict)
    levels: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    tuning: TuningPlan | None = None
    cluster: Cluster | None = None
    chosen: Mapping[str, Chosen] = field(default_factory=dict)

    def with_attempts(self, attempts: Iterable[str]) -> "Plan":
        """Return the plan with further attempts of its trials, by ids such as ``3f2a91c05b7e-2``."""
        known = {trial.trial_id: trial for trial in self.trials}
        named = (name.split("-") for name in dict.fromkeys(attempts))
        further = [replace(known[first], attempt=int(number)) for first, number in named if first in known]
        alone = (continued_from(trial, None) for trial in further)
        return replace(self, trials=share_trunks((*self.trials, *alone)) if further else self.trials)

    @property
    def all_trials(self) -> tuple[Trial, ...]:
        """Trials of the tuning and its check, then the others; a trial that is both appears once.

        The tuning comes first, so it pays in full for a trial that shares steps in the grid.
        """
        if self.tuning is None:
            return self.trials
        by_id: dict[str, Trial] = {}
        for trial in (*self.tuning.trials, *self.tuning.neighbours, *self.trials):
            first = by_id.setdefault(trial.trial_id, trial)
            if trial.paid_flops > first.paid_flops:
                by_id[trial.trial_id] = trial
        return tuple(by_id.values())

    @property
    def grid_waits(self) -> bool:
        """True while the tuning has values to find; the trials of the grid get their ids when it has."""
        return self.tuning is not None and bool(self.tuning.waiting)

    @property
    def after_tuning(self) -> tuple[Trial, ...]:
        """Trials of check and grid that wait for the tuning, as planned now, within the study budget."""
        if not self.grid_waits or self.tuning is None:
            return ()
        ready = {trial.trial_id for trial in self.tuning.ready}
        later = [trial for trial in (*self.tuning.neighbours, *self.trials) if trial.trial_id not in ready]
        paid = accumulate(trial.paid_flops for trial in later)
        cap = math.inf if self.study_flops is None else self.study_flops
        return tuple(trial for trial, flops in zip(later, paid, strict=True) if flops <= cap)

    @property
    def train_flops(self) -> int:
        """Training FLOPs of all trials (including tuning), and charges; steps of a trunk count once."""
        return sum(t.paid_flops for t in self.all_trials) + sum(c.flops for c in self.charges)

    @property
    def most_flops(self) -> int:
        """Most training FLOPs that the study costs; an adaptive one may not run all of its trials."""
        most, tuning = self.train_flops, self.tuning
        if tuning is not None and tuning.waiting:  # more values may be tried
            most += tuning.reserve_flops - sum(trial.paid_flops for trial in tuning.trials)
        return most if self.study_flops is None else min(most, self.study_flops)

    @property
    def evaluation_flops(self) -> int:
        """Forward FLOPs of all evaluations."""
        return sum(trial.evaluation_flops for trial in self.all_trials)

    def train_flops_by(self, what: Callable[[Cell], str]) -> dict[str, int]:
        """Sum the FLOPs that the trials cost the study by a property of their cells, in the plan's order."""
        sums: Counter[str] = Counter()
        for trial in self.all_trials:
            sums[what(trial.cell)] += trial.paid_flops
        return dict(sums)
