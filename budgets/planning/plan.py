"""The plan of a study as plain data: trials with their costs, and left-out cells with their reasons.

`budgets.planning.planner` builds it from a declaration.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from budgets.declaration.recipe import Recipe
from budgets.declaration.rules import TrialResources
from budgets.declaration.sections import Regime
from budgets.planning.facts import Component
from budgets.planning.identity import trial_id
from budgets.planning.tuned.line import Carried
from budgets.quantity import format_count, format_flops


def evaluated_steps(shares: Iterable[float], steps: int) -> set[int]:
    """Return the steps after which a trial is evaluated on the way, at some shares of its steps.

    Shares that are rounded to the same step, or to the end, have no evaluation of their own.
    """
    return {math.ceil(share * steps) for share in shares} - {steps}


Combination = tuple[str, str]
"""Names of an architecture and of a strategy that trains it."""


OF_POOL = ", for "


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """Compute that the study pays once, in addition to its trials.

    Attributes:
        what: Name of the charge; after ``OF_POOL`` that of its pool.
        train_flops: Training FLOPs.
        evaluation_flops: Forward FLOPs.
    """

    what: str
    train_flops: int
    evaluation_flops: int

    @property
    def older_name(self) -> str:
        """Its name in older books, where a single charge held those of all pools."""
        return self.what.partition(OF_POOL)[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A point of the grid: a trial without its seed.

    Attributes:
        regime: Rule that decides the samples seen.
        subset_size: Pairs in the subset.
        quality: ``all``, ``topN``, ``topN by SCORE``, ``subset:NAME`` or ``mixture:NAME``.
        architecture: Name in the catalogue.
        strategy: Name of the strategy.
        level_flops: Budget level in training FLOPs; None unless the regime is `fixed-compute`.
    """

    regime: Regime
    subset_size: int
    quality: str
    architecture: str
    strategy: str
    level_flops: int | None

    @property
    def combination(self) -> Combination:
        """Architecture and strategy, which decide the samples a second of a trial on its device."""
        return self.architecture, self.strategy

    @property
    def level(self) -> str:
        """The budget level in words; the regime if there is none."""
        return self.regime if self.level_flops is None else format_flops(self.level_flops)

    def __str__(self) -> str:
        """Return the cell on one line."""
        buys = f"({self.level})" if self.level_flops is None else f"at {self.level}"
        subset = f"{format_count(self.subset_size)} pairs ({self.quality})"
        return f"{self.architecture} {self.strategy} on {subset} {buys}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A cell with a seed: everything that decides its result, as plain data.

    Attributes:
        cell: The cell.
        seed: The seed; initial weights, order of samples and augmentation derive from it.
        pool: Content id of the pool; for a mixture, those of its pools, joined by ``+``.
        evaluation_sets: Content ids of the evaluation sets.
        architecture_config: The architecture in open_clip's model-config form.
        samples_seen: Image-text pairs seen in training, in whole batches.
        batch_size: Pairs in a batch, the strategy's factor included.
        lr_peak: Peak learning rate.
        recipe: The other optimisation settings.
        train_flops_per_sample: Training FLOPs of one pair (`budgets.cost.flops.CONVENTION`).
        tail_flops_per_sample: Training FLOPs of one pair in the unmasked tail; 0 without one.
        evaluation_flops: Forward FLOPs of all its evaluations.
        evaluations: Evaluations: the last one, and those at shares of its steps.
        parameters: Trainable parameters, the strategy's head included.
        batch_norm: True if the model has batch norm, see `budgets.planning.identity`.
        resources: Resources that it runs on; they do not change its result.
        previous: Id of the next shorter trial of its trunk (`budgets.planning.levels.trunks`), whose
            milestone it continues from; empty without one. It does not change the result.
        shared_samples: Samples up to that milestone, which the shorter trials pay for.
        mixture: Components of a mixture; empty without one.
        trial_id: Identifies the trial in any study, see `budgets.planning.identity`.
    """

    cell: Cell
    seed: int
    pool: str
    evaluation_sets: tuple[str, ...]
    architecture_config: Mapping[str, object]
    samples_seen: int
    batch_size: int
    lr_peak: float
    recipe: Recipe
    train_flops_per_sample: int
    evaluation_flops: int
    parameters: int
    tail_flops_per_sample: int = 0
    batch_norm: bool = False
    evaluations: int = 1
    resources: TrialResources = field(default_factory=TrialResources)
    previous: str = ""
    shared_samples: int = 0
    mixture: tuple[Component, ...] = ()
    trial_id: str = field(init=False, compare=False, default="")

    def __post_init__(self) -> None:
        """Derive the id."""
        object.__setattr__(self, "trial_id", trial_id(self))

    @property
    def flops_per_evaluation(self) -> int:
        """Forward FLOPs of one evaluation."""
        return self.evaluation_flops // self.evaluations

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.samples_seen // self.batch_size

    @property
    def epochs(self) -> float:
        """Passes over the subset; over a mixture, the mean of its pairs."""
        return self.samples_seen / self.cell.subset_size

    @property
    def components(self) -> tuple[Component, ...]:
        """The pools' parts of its pairs: one, or those of a mixture."""
        cell = self.cell
        one = Component(name="", pool=self.pool, quality=cell.quality, pairs=cell.subset_size, share=1)
        return self.mixture or (one,)

    def share_of(self, component: Component) -> float:
        """Return a component's share of the samples seen."""
        return component.share / sum(each.share for each in self.components)

    @property
    def train_flops(self) -> int:
        """Training FLOPs of the whole trial."""
        return self.train_flops_after(self.samples_seen)

    def train_flops_after(self, samples: int) -> int:
        """Training FLOPs of the first ``samples`` samples."""
        # The unmasked tail is the end of the run and has its own price per sample.
        tail = self.recipe.tail_steps(self.steps) * self.batch_size
        unmasked = max(0, samples - (self.samples_seen - tail))
        return (samples - unmasked) * self.train_flops_per_sample + unmasked * self.tail_flops_per_sample

    @property
    def milestone_step(self) -> int:
        """Steps after which its branch leaves its trunk; 0 without a trunk."""
        return self.recipe.trunk_steps(self.steps)

    @property
    def paid_flops(self) -> int:
        """Training FLOPs that the trial costs the study: those after the milestone that it continues from."""
        return self.paid_flops_after(self.samples_seen)

    def paid_flops_after(self, samples: int) -> int:
        """Training FLOPs that the first ``samples`` samples cost the study."""
        shared = self.train_flops_after(self.shared_samples) if self.shared_samples else 0
        return max(0, self.train_flops_after(samples) - shared)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A cell that is not run, or not with all of its seeds.

    Attributes:
        cell: The cell.
        reason: The reason with its numbers.
    """

    cell: Cell
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Winner:
    """Result of tuning for an architecture with a strategy.

    Attributes:
        architecture: The architecture.
        strategy: The strategy.
        cell: The cell used for tuning.
        values: Tuned field → winning value.
        score: Mean of the selecting metric over the seeds.
        runner_up: The second-best values.
        runner_up_score: Their mean; NaN if they diverged.
        tie: True if the 90 % interval of the difference contains zero.
        widened: Fields whose range was widened because the first winner lay at its edge.
        at_edge: Fields in which the winner lies at an edge that is not widened any further.
    """

    architecture: str
    strategy: str
    cell: Cell
    values: Mapping[str, float]
    score: float
    runner_up: Mapping[str, float]
    runner_up_score: float
    tie: bool
    widened: tuple[str, ...]
    at_edge: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """Neighbours of a tuned learning rate, tried at a larger level.

    Attributes:
        cell: The cell that they are tried on.
        winner: The best of them; None if training diverged at each.
        lr_peak: The tuned rate there.
        score: Its mean of the selecting metric; NaN if it diverged.
        moved: True if another rate is better by more than the noise, or training diverged at each.
    """

    cell: Cell
    winner: Winner | None
    lr_peak: float
    score: float
    moved: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningPlan:
    """The trials that decide a study's tuned fields.

    Attributes:
        trials: The trials known so far; values beyond an edge are added once results call for them.
        values: Trial id → tuned field → value; also of ``neighbours``.
        reserve_flops: Training FLOPs of the study budget that are set aside for tuning, without the check.
        most_flops: Upper bound of the cost of tuning, with every range widened on all sides.
        metric: The selecting metric, ``<evaluation set>/<metric>``.
        winners: Results so far.
        waiting: Undecided (architecture, strategy) pairs; the learning rates and ids of their trials in the
            plan are provisional.
        carried: Lines through two tuned rates, and the rates on them.
        neighbours: Trials of the check: tuned rates and their neighbours at a larger level. Provisional while
            pairs are waiting.
        check_flops: Training FLOPs of the study budget that are set aside for the check.
        checks: Results of the check so far.
        left_out: Sentences about pairs that the check leaves out, each with the reason.
        unfinished: True if a trial of the tuning or the check has no result.
    """

    trials: tuple[Trial, ...]
    values: Mapping[str, Mapping[str, float]]
    reserve_flops: int
    most_flops: int
    metric: str
    winners: tuple[Winner, ...]
    waiting: tuple[tuple[str, str], ...]
    carried: tuple[Carried, ...] = ()
    neighbours: tuple[Trial, ...] = ()
    check_flops: int = 0
    checks: tuple[Check, ...] = ()
    left_out: tuple[str, ...] = ()
    unfinished: bool = True

    @property
    def ready(self) -> tuple[Trial, ...]:
        """Trials that can run: those of the check once all rates are known."""
        return self.trials if self.waiting else (*self.trials, *self.neighbours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Resources that the planner chose for a trial.

    Attributes:
        words: Number of GPUs, with accumulation and gradient checkpointing if they are used.
        why: The reason in a few words.
    """

    words: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The plan of a study.

    Attributes:
        trials: The trials, in declared order, levels rising.
        left_out: Cells that are not run.
        charges: Compute paid once.
        study_flops: The study's cap in training FLOPs, or None.
        levels: Budget levels in training FLOPs, declared or chosen, rising.
        warnings: Conclusions that this plan cannot support, and decisions of the planner.
        tuning: The tuning that precedes the trials, or None.
        chosen: Trial id → the resources that were chosen; empty if resources are declared.
    """

    trials: tuple[Trial, ...]
    left_out: tuple[LeftOut, ...]
    charges: tuple[Charge, ...]
    study_flops: int | None
    levels: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    tuning: TuningPlan | None = None
    chosen: Mapping[str, Chosen] = field(default_factory=dict)

    @property
    def all_trials(self) -> tuple[Trial, ...]:
        """Trials of the tuning and its check, then the others; a trial that is both appears once."""
        if self.tuning is None:
            return self.trials
        both = (*self.tuning.trials, *self.tuning.neighbours, *self.trials)
        return tuple({trial.trial_id: trial for trial in both}.values())

    @property
    def train_flops(self) -> int:
        """Training FLOPs of all trials (including tuning) and charges; steps of a trunk count once."""
        return sum(t.paid_flops for t in self.all_trials) + sum(c.train_flops for c in self.charges)

    @property
    def most_flops(self) -> int:
        """Most training FLOPs that the study costs; an adaptive one may not run all of its trials."""
        most, tuning = self.train_flops, self.tuning
        if tuning is not None and tuning.waiting:  # ranges of values may still be widened
            most += tuning.most_flops - sum(trial.paid_flops for trial in tuning.trials)
        return most if self.study_flops is None else min(most, self.study_flops)

    @property
    def evaluation_flops(self) -> int:
        """Forward FLOPs of all evaluations and charges."""
        of_trials = sum(trial.evaluation_flops for trial in self.all_trials)
        return of_trials + sum(charge.evaluation_flops for charge in self.charges)

    def train_flops_by(self, what: Callable[[Cell], str]) -> dict[str, int]:
        """Sum the FLOPs that the trials cost the study by a property of their cells, in the plan's order."""
        sums: Counter[str] = Counter()
        for trial in self.all_trials:
            sums[what(trial.cell)] += trial.paid_flops
        return dict(sums)
