"""The plan of a tuning as plain data: its trials, and its results so far."""

from collections.abc import Mapping
from dataclasses import dataclass

from budgets.planning.planned_trial import Cell, Trial
from budgets.planning.tuned.line import Carried


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
