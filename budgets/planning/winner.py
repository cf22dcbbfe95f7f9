"""The best of the values tried: the winner with its ties, and the optimum between the values.

An optimum is the vertex of the parabola through the best value tried and its neighbours, over the value's ln.
Its standard deviation follows from the noise of the three scores, to first order; it is at most that of a
uniform distribution between the neighbours. At an edge of the values it is the edge, with the deviation of a
uniform distribution over a step to both sides. Two optima give a straight line in logarithms.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from budgets.planning.planned_trial import Cell, Trial
from budgets.planning.tuning_plan import Winner

Z90 = 1.645
"""Standard deviations to either end of a 90 % interval."""
_NEAR_ONE = {"beta1", "beta2", "ema"}
_BELOW_ONE = {*_NEAR_ONE, "warmup", "cooldown", "unmasked_tail"}
_WHOLE = {"batch_size", "warmup_samples"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Result of a trial of the tuning: the selecting metric, None if it diverged, and its standard error.

    The error is that of counting over the images of the evaluation set.
    """

    value: float | None
    standard_error: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPoint:
    """A combination of values, by field, and its trials, one per seed."""

    values: dict[str, float]
    trials: tuple[Trial, ...]


def all_scored(points: Sequence[SweepPoint], scores: Mapping[str, Score]) -> bool:
    """Return whether every trial of the combinations has a score."""
    return all(trial.trial_id in scores for point in points for trial in point.trials)


def tried_flops(points: Sequence[SweepPoint]) -> int:
    """Return the training FLOPs of combinations."""
    return sum(trial.train_flops for point in points for trial in point.trials)


def best_first(points: Sequence[SweepPoint], scores: Mapping[str, Score]) -> list[SweepPoint]:
    """Sort combinations by mean score, best first; among equals, nearest the middle of the list first."""
    middle = (len(points) - 1) / 2
    ranked = sorted(
        enumerate(points), key=lambda item: (-mean_score(item[1], scores), abs(item[0] - middle), item[0])
    )
    return [point for _, point in ranked]


def find_winner(
    cell: Cell, points: Sequence[SweepPoint], scores: Mapping[str, Score], *, widened: tuple[str, ...]
) -> Winner | None:
    """Return the winner of at least two combinations on a cell; None if training diverged at each.

    ``widened`` are the fields whose range was widened.
    """
    best, second = best_first(points, scores)[:2]
    score, next_score = mean_score(best, scores), mean_score(second, scores)
    if score == -math.inf:
        return None
    rivals = next_score > -math.inf
    # Standard error of the difference of two independent means.
    noise = math.hypot(mean_noise(best, scores), mean_noise(second, scores)) if rivals else 0.0
    return Winner(
        architecture=cell.architecture,
        strategy=cell.strategy,
        cell=cell,
        values=best.values,
        score=score,
        runner_up=second.values,
        runner_up_score=next_score if rivals else math.nan,
        tie=rivals and score - next_score <= Z90 * noise,
        widened=widened,
        at_edge=tuple(
            name
            for name, value in best.values.items()
            if step_beyond(name, sorted({point.values[name] for point in points}), value) is not None
        ),
    )


def step_beyond(name: str, values: Sequence[float], best: float) -> float | None:
    """Return the next value of a field beyond an edge, continuing the ratio of the last two rising values.

    Returns:
        The value; None if the best value is not at an edge, is the only one, or has no valid one beyond it.
    """
    if len(values) == 1 or best not in {values[0], values[-1]}:
        return None
    edge, inner = (values[0], values[1]) if best == values[0] else (values[-1], values[-2])
    if name in _NEAR_ONE:  # the ratio applies to the distance from one
        step = 1 - (1 - edge) ** 2 / (1 - inner)
    elif 0 in {edge, inner}:
        step = edge + (edge - inner)
    else:
        step = edge * edge / inner
    # Four digits, so that values do not accumulate rounding noise in trial ids.
    step = round(step) if name in _WHOLE else float(f"{step:.4g}")
    outside = step <= 0 or (name in _BELOW_ONE and step >= 1)
    return None if outside or step in values else step


def mean_score(point: SweepPoint, scores: Mapping[str, Score]) -> float:
    """Return the mean of a combination's scores; -inf if one of its trials diverged."""
    values = [scores[trial.trial_id].value for trial in point.trials]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else -math.inf


def mean_noise(point: SweepPoint, scores: Mapping[str, Score]) -> float:
    """Return the standard error of a combination's mean, at least the counting noise of the images."""
    results = [scores[trial.trial_id] for trial in point.trials]
    values = [result.value for result in results if result.value is not None]
    counting = max(result.standard_error for result in results)  # not divided: all seeds see the same images
    seeds = math.sqrt(statistics.variance(values) / len(values)) if len(values) > 1 else 0.0
    return max(counting, seeds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimum:
    """The best value of a field, as a normal distribution of its logarithm."""

    middle: float
    deviation: float


def find_optimum(values: Sequence[float], scores: Sequence[float], noises: Sequence[float]) -> Optimum:
    """Return the optimum of at least two rising values, given their scores with standard errors.

    A higher score is better; it is -inf where training diverged, which must not be everywhere.
    """
    logs = [math.log(value) for value in values]
    best = max(range(len(logs)), key=lambda index: scores[index])
    step = (logs[-1] - logs[0]) / (len(logs) - 1)
    around = range(best - 1, best + 2)
    # At an edge, or beside a divergence, there is no parabola. A uniform distribution over a step to both
    # sides has the standard deviation step / sqrt(3).
    if best in {0, len(logs) - 1} or any(math.isinf(scores[index]) for index in around):
        return Optimum(middle=logs[best], deviation=step / math.sqrt(3))
    at, score = [logs[index] for index in around], [scores[index] for index in around]
    middle = _vertex(at, score)
    moves = []
    for index, noise in enumerate(noises[best - 1 : best + 2]):
        up, down = list(score), list(score)
        # The derivative of the vertex by this score, times the score's noise: a central difference over a
        # thousandth of the noise to both sides.
        up[index], down[index] = score[index] + noise / 1000, score[index] - noise / 1000
        moves.append(500 * (_vertex(at, up) - _vertex(at, down)))
    widest = (at[2] - at[0]) / math.sqrt(12)  # of a uniform distribution between the neighbours
    return Optimum(middle=middle, deviation=min(math.hypot(*moves), widest))


def _vertex(at: Sequence[float], score: Sequence[float]) -> float:
    """Return the position of the maximum of the parabola through three points whose middle one is highest."""
    # By the slopes of the two chords towards the middle, and the distances h0 and h2 of the outer points:
    # x1 + (h2·left − h0·right) / (2·(left + right)).
    left, right = (score[1] - score[0]) / (at[1] - at[0]), (score[1] - score[2]) / (at[2] - at[1])
    middle = at[1] + ((at[2] - at[1]) * left - (at[1] - at[0]) * right) / 2 / max(left + right, 1e-12)
    return min(max(middle, at[0]), at[2])


@dataclass(frozen=True, kw_only=True, slots=True)
class RateLine:
    """The line through two optima over the logarithm of training FLOPs: of a level, or of a sample."""

    flops: tuple[float, float]
    optima: tuple[Optimum, Optimum]

    def slope(self) -> tuple[float, float, float]:
        """Return the slope with the ends of its 90 % interval."""
        first, second = self.optima
        across = math.log(self.flops[1] / self.flops[0])
        slope = (second.middle - first.middle) / across
        reach = Z90 * math.hypot(first.deviation, second.deviation) / across
        return slope, slope - reach, slope + reach

    def at(self, flops: float) -> tuple[float, float, float]:
        """Return the rate at a level or size with the ends of its 90 % interval, four digits each."""
        first, second = self.optima
        # Linear in ln FLOPs. Beyond the two optima the share is outside 0 to 1, and the interval widens.
        share = math.log(flops / self.flops[0]) / math.log(self.flops[1] / self.flops[0])
        middle = (1 - share) * first.middle + share * second.middle
        reach = Z90 * math.hypot((1 - share) * first.deviation, share * second.deviation)
        rate, low, high = (float(f"{math.exp(middle + sign * reach):.4g}") for sign in (0, -1, 1))
        return rate, low, high
