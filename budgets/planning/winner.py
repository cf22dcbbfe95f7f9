"""Which of the values that were tried wins, and where to look further."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from budgets.planning.plan import Cell, Trial, TuningPlan, Winner

_Z90 = 1.645
_NEAR_ONE = {"beta1", "beta2", "ema"}
_BELOW_ONE = {*_NEAR_ONE, "warmup", "cooldown", "unmasked_tail"}
_WHOLE = {"batch_size", "warmup_samples"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What a trial of the tuning gave.

    Attributes:
        value: The selecting metric; None where the trial diverged.
        standard_error: Of the metric, from the counting noise of its evaluation set.
    """

    value: float | None
    standard_error: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """A combination of values.

    Attributes:
        values: Field → value.
        trials: Its trials, one a seed.
    """

    values: dict[str, float]
    trials: tuple[Trial, ...]


def is_done(points: Sequence[Tried], scores: Mapping[str, Score]) -> bool:
    """Return whether every trial of some combinations has its score."""
    return all(trial.trial_id in scores for point in points for trial in point.trials)


def best_first(points: Sequence[Tried], scores: Mapping[str, Score]) -> list[Tried]:
    """Sort combinations by their mean; of equal ones, what is nearer to the middle of the list is better."""
    middle = (len(points) - 1) / 2
    ranked = sorted(
        enumerate(points), key=lambda item: (-_mean(item[1], scores), abs(item[0] - middle), item[0])
    )
    return [point for _, point in ranked]


def winner(
    cell: Cell, points: Sequence[Tried], scores: Mapping[str, Score], *, widened: tuple[str, ...]
) -> Winner | None:
    """Names the winner of at least two combinations.

    Args:
        cell: The cell that they were tried on.
        points: The combinations.
        scores: Trial id → score, of all their trials.
        widened: Fields whose values were widened.

    Returns:
        The winner, or None where all diverged.
    """
    best, second = best_first(points, scores)[:2]
    score, next_score = _mean(best, scores), _mean(second, scores)
    if score == -math.inf:
        return None
    rivals = next_score > -math.inf
    noise = math.hypot(_noise(best, scores), _noise(second, scores)) if rivals else 0.0
    return Winner(
        architecture=cell.architecture,
        strategy=cell.strategy,
        cell=cell,
        values=best.values,
        score=score,
        runner_up=second.values,
        runner_up_score=next_score if rivals else math.nan,
        tie=rivals and score - next_score <= _Z90 * noise,
        widened=widened,
        at_edge=tuple(
            name
            for name, value in best.values.items()
            if step_beyond(name, sorted({point.values[name] for point in points}), value) is not None
        ),
    )


def step_beyond(name: str, values: Sequence[float], best: float) -> float | None:
    """Return the next value beyond the edge that the best one stands at, in the ratio of the last two.

    Args:
        name: The field.
        values: At least two values, rising.
        best: The one that won.

    Returns:
        The value; None where the best is no edge, or the edge is the field's own end.
    """
    if best not in {values[0], values[-1]}:
        return None
    edge, inner = (values[0], values[1]) if best == values[0] else (values[-1], values[-2])
    if name in _NEAR_ONE:  # what counts is the distance to one
        step = 1 - (1 - edge) ** 2 / (1 - inner)
    elif 0 in {edge, inner}:
        step = edge + (edge - inner)
    else:
        step = edge * edge / inner
    step = round(step) if name in _WHOLE else float(f"{step:.4g}")
    outside = step <= 0 or (name in _BELOW_ONE and step >= 1)
    return None if outside or step in values else step


def tuning_notes(plan: TuningPlan, *, reported: str) -> Iterator[str]:
    """Yield what a reader must know of the winners: ties, and optima that may lie beyond what was tried.

    Args:
        plan: The tuning.
        reported: The study's own metric.
    """
    if plan.metric == reported:
        yield (
            f"tuning selects by {reported}, which is also what the study reports: that of the winners is a "
            "little too good; name a set for selection alone (tuning.metric)"
        )
    for each in plan.winners:
        name = f"tuning of {each.architecture} with {each.strategy}"
        for field in each.at_edge:
            yield (
                f"{name}: {field} = {each.values[field]:g} won at the edge of the values tried; the optimum "
                "may lie beyond: declare values further out"
            )
        if each.tie:
            yield (
                f"{name}: {words(each.values)} ({each.score:.1%}) ties with {words(each.runner_up)} "
                f"({each.runner_up_score:.1%})"
            )


def words(values: Mapping[str, float]) -> str:
    """Format a combination of values."""
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _mean(point: Tried, scores: Mapping[str, Score]) -> float:
    """Mean of a combination's scores; -inf where one of its trials diverged."""
    values = [scores[trial.trial_id].value for trial in point.trials]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else -math.inf


def _noise(point: Tried, scores: Mapping[str, Score]) -> float:
    """Standard error of a combination's mean: never below the counting noise of the evaluation set."""
    found = [scores[trial.trial_id] for trial in point.trials]
    values = [each.value for each in found if each.value is not None]
    counting = max(each.standard_error for each in found)  # all seeds see the same images
    seeds = math.sqrt(statistics.variance(values) / len(values)) if len(values) > 1 else 0.0
    return max(counting, seeds)
