"""The plan of a tuning as plain data, and its results in words.

The results are winners, rates that are carried on along a line, and checks of tuned rates.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from budgets.planning.planned_trial import Cell, Trial
from budgets.quantity import format_flops, format_share

_MOST_NAMED = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Winner:
    """Result of tuning for an architecture with a strategy.

    Attributes:
        score: Mean of the selecting metric over the seeds.
        runner_up_score: Their mean; NaN if they diverged.
        tie: True if the 90 % interval of the difference contains zero.
        widened: Fields whose range was widened because the first winner lay at its edge.
        at_edge: Fields in which the winner lies at an edge that is not widened any further.
        serves: Architectures of its family that take its values.
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
    serves: tuple[str, ...] = ()


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
class CarriedRate:
    """The peak learning rate at one point of a line with its 90 % interval; ``tuned`` if it was tuned there.

    ``level_flops`` is None for all levels.
    """

    architecture: str
    level_flops: int | None
    lr_peak: float
    low: float
    high: float
    tuned: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Carried:
    """A line through two tuned rates ``along`` the ``levels`` or ``sizes`` (training FLOPs per sample).

    ``exponent`` is the slope of ln rate over ln of that axis, with its 90 % interval.
    """

    strategy: str
    along: str
    exponent: float
    low: float
    high: float
    rates: tuple[CarriedRate, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningPlan:
    """The trials that decide a study's tuned fields.

    Attributes:
        trials: The trials known so far; values beyond an edge are added once results call for them.
        values: Trial id → tuned field → value; also of ``neighbours``.
        reserve_flops: Training FLOPs of the study budget that are set aside for tuning, without the check.
        waiting: Undecided (architecture, strategy) pairs; the learning rates and ids of their trials in the
            plan are provisional.
        neighbours: Trials of the check: tuned rates and their neighbours at a larger level. Provisional while
            pairs are waiting.
        at_chance: Sentences about cells on which no result beats chance.
        unfinished: True if a trial of the tuning or the check has no result.
    """

    trials: tuple[Trial, ...]
    values: Mapping[str, Mapping[str, float]]
    reserve_flops: int
    metric: str
    winners: tuple[Winner, ...]
    waiting: tuple[tuple[str, str], ...]
    at_chance: tuple[str, ...] = ()
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


def tuning_notes(plan: TuningPlan, *, reported: str) -> Iterator[str]:
    """Yield notes on the winners: ties, optima beyond the values tried, selection by the reported metric."""
    if plan.metric == reported:
        yield (
            f"tuning selects by {reported}, which the study also reports: the winners' values of it are "
            "biased upwards; declare another set for selection (tuning.metric)"
        )
    yield from plan.at_chance
    for winner in plan.winners:
        name = f"tuning of {winner.architecture} with {winner.strategy}"
        for field in winner.at_edge:
            yield (
                f"{name}: {field} = {winner.values[field]:g} won at the edge of the values tried; the "
                "optimum may lie beyond; declare values further out"
            )
        if winner.tie:
            yield (
                f"{name}: {values_words(winner.values)} ({format_share(winner.score, 1)}) ties with "
                f"{values_words(winner.runner_up)} ({format_share(winner.runner_up_score, 1)})"
            )
    for check in plan.checks:
        if check.moved:
            shown = f"{check.cell}: {check_words(check)}"
            yield f"tuned rates at a larger level: {shown}; tune at two levels or sizes"
    for sentence in plan.left_out:
        yield f"tuned rates are not checked at a larger level: {sentence}"


def values_words(values: Mapping[str, float]) -> str:
    """Format a combination of values."""
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def cost_by_pair(trials: Iterable[Trial]) -> str:
    """Format what the pairs of architecture and strategy cost, the dearest first."""
    costs: Counter[str] = Counter()
    for trial in trials:
        costs[" ".join(trial.cell.combination)] += trial.train_flops
    shown = [f"{pair} {format_flops(cost, digits=3)}" for pair, cost in costs.most_common(_MOST_NAMED)]
    more = [f"and {len(costs) - _MOST_NAMED:,} more"] if len(costs) > _MOST_NAMED else []
    return ", ".join(shown + more)


def carried_words(line: Carried) -> str:
    """Format a line with its rates and their 90 % intervals."""
    rates = ", ".join(
        f"{rate.architecture}{'' if rate.level_flops is None else f' at {format_flops(rate.level_flops)}'} "
        f"{rate.lr_peak:.3g}" + ("" if rate.tuned else f" [{rate.low:.2g}, {rate.high:.2g}]")
        for rate in line.rates
    )
    return f"{line.strategy}: exponent {line.exponent:.2f} [{line.low:.2f}, {line.high:.2f}]: {rates}"


def check_words(check: Check) -> str:
    """Format what trying the neighbours of a tuned rate showed."""
    best = check.winner
    if best is None:
        return f"training diverged at the tuned rate {check.lr_peak:g} and both neighbours"
    if best.values["lr_peak"] == check.lr_peak:
        return f"the tuned rate {check.lr_peak:g} is still the best ({format_share(check.score, 1)})"
    verdict = "is better than" if check.moved else "ties with"
    score = "diverged" if math.isnan(check.score) else format_share(check.score, 1)
    return (
        f"lr_peak {best.values['lr_peak']:g} ({format_share(best.score, 1)}) {verdict} the tuned "
        f"{check.lr_peak:g} ({score})"
    )
