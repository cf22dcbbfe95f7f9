"""Learning rates that move: two tuned optima, carried on by a straight line in logarithms.

An optimum is the vertex of the parabola through the best value tried and its neighbours, over the value's ln.
Its standard deviation follows from the noise of the three scores, to first order; it is at most that of a
uniform distribution between the neighbours. At an edge of the values it is the edge, with the deviation of a
uniform distribution over a step to both sides.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z90 = 1.645
"""Standard deviations to either end of a 90 % interval."""
_DIGITS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimum:
    """The best value of a field, as a normal distribution of its logarithm."""

    middle: float
    deviation: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CarriedRate:
    """The peak learning rate at one point of a line.

    Attributes:
        architecture: The architecture.
        level_flops: The budget level; None for all levels.
        lr_peak: The rate.
        low: Lower end of its 90 % interval.
        high: Upper end of its 90 % interval.
        tuned: True if it was tuned there.
    """

    architecture: str
    level_flops: int | None
    lr_peak: float
    low: float
    high: float
    tuned: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Carried:
    """A line through two tuned rates.

    Attributes:
        strategy: The strategy.
        along: Axis of the line: ``levels`` or ``sizes`` (training FLOPs per sample).
        exponent: Slope of ln rate over ln of that axis.
        low: Lower end of its 90 % interval.
        high: Upper end of its 90 % interval.
        rates: The rates.
    """

    strategy: str
    along: str
    exponent: float
    low: float
    high: float
    rates: tuple[CarriedRate, ...]


def optimum(values: Sequence[float], scores: Sequence[float], noises: Sequence[float]) -> Optimum:
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
        found = (math.exp(middle + sign * reach) for sign in (0, -1, 1))
        rate, low, high = (float(f"{each:.{_DIGITS}g}") for each in found)
        return rate, low, high
