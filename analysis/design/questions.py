"""Questions of an adaptive study, and the answers that a belief gives so far.

A configuration is dropped where it is within the indifference of the best in fewer than ``HOPELESS`` of the
draws. These hold every law that its runs leave plausible, also the one that falls fastest. Nothing is
dropped for good: each decision draws anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.answers.best.choice import CLEAR
from analysis.arrays import Floats, Indices
from analysis.cells.intervals import interval
from analysis.design.belief import Belief
from analysis.design.gains import right
from analysis.design.layout import Layout

HOPELESS = 0.005


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """The questions of an adaptive study.

    Attributes:
        best: Computes of the questions about the best; every level of the grid if empty; None for no
            question.
        indifference: Difference in error that counts as a tie.
        forecast: Compute at which the error of the best is to be forecast; None without a forecast.
        width: Half-width of the 90 % interval at which the forecast counts as answered.
        confidence: Probability at which a question counts as answered.
    """

    best: Sequence[float] | None = ()
    indifference: float = 0.01
    forecast: float | None = None
    width: float = 0.02
    confidence: float = CLEAR


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer to one question so far.

    Attributes:
        regime: Regime of the compared configurations.
        flops: Compute of the question.
        leader: Configuration that is most probably the best.
        probability: Probability that it is the best.
        right: Probability that no other is lower by more than the indifference.
        error: Median of its true error.
        low: Lower end of its 90 % interval.
        high: Upper end of its 90 % interval.
        verdict: ``clear`` or ``tie``, as in ``analysis.answers.best.frontier``.
        tied: Configurations that together are the best with probability ``confidence``, the leader first. A
            tie of the leader alone means that it was not run there.
        chances: Probability of each of these that it is the best.
        dropped: Configurations that can no longer reach the best.
        settled: True if the question is answered.
        kind: ``best`` or ``forecast``.
    """

    regime: str
    flops: float
    leader: str
    probability: float
    right: float
    error: float
    low: float
    high: float
    verdict: Literal["clear", "tie"]
    tied: tuple[str, ...]
    chances: tuple[float, ...]
    dropped: tuple[str, ...]
    settled: bool
    kind: Literal["best", "forecast"] = "best"


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """An open question: the point at which each curve is read, and its indifference (NaN for a forecast)."""

    columns: Indices
    indifference: float


def answers_of(layout: Layout, belief: Belief, runs: Floats, ask: Ask) -> tuple[list[Answer], list[Goal]]:
    """Return the answers, and the open questions."""
    answers, goals = [], []
    questions = [
        (flops, columns, False) for flops, columns in zip(layout.computes, layout.columns, strict=True)
        if (columns >= 0).any()  # else the regime has no cell there
    ]  # fmt: skip
    if ask.forecast is not None and (layout.target >= 0).any():
        questions.append((ask.forecast, layout.target, True))
    for flops, columns, forecast in questions:
        values = layout.values(belief.draws, columns)
        best, within = right(values, ask.indifference)
        order = np.argsort(-best, kind="stable")
        leader = int(order[0])
        tied = order[: int(np.searchsorted(np.cumsum(best[order]), ask.confidence)) + 1]
        seen = bool(runs[leader, columns[leader]])
        # Distance from the leader to the lowest other configuration, in each draw.
        gap = np.delete(values, leader, axis=1).min(axis=1, initial=np.inf) - values[:, leader]
        near = float(np.median(gap)) <= ask.indifference
        clear = bool(best[leader] >= ask.confidence and (seen or forecast))
        error = values.min(axis=1) if forecast else values[:, leader]
        low, high = interval(error)
        settled = clear or bool(near and within[leader] >= ask.confidence and seen)
        if forecast:
            settled = (high - low) / 2 <= ask.width
        answers.append(Answer(
            regime=layout.regime, flops=flops, leader=layout.names[leader], probability=float(best[leader]),
            right=float(within[leader]), error=float(np.median(error)), low=low, high=high,
            verdict="clear" if clear else "tie", tied=tuple(layout.names[each] for each in tied),
            chances=tuple(best[tied].tolist()),
            dropped=tuple(
                name for name, share in zip(layout.names, within, strict=True) if share < HOPELESS
            ),
            settled=settled, kind="forecast" if forecast else "best",
        ))  # fmt: skip
        if not settled:
            # If the next one is close, runs decide whether the leader is within the indifference; otherwise
            # they decide which is the best.
            indifference = np.nan if forecast else ask.indifference if near else 0.0
            goals.append(Goal(columns=columns, indifference=indifference))
    return answers, goals
