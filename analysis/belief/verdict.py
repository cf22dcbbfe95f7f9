"""The verdict on which of several options has the lowest error, from joint draws of their true errors.

Clear is a leader that is the lowest in a share ``CLEAR`` of the draws: just so between or near its own runs,
by forecast farther away. How far others are from their runs plays no part: they count by their draws. So do
options that lost runs there, but they are named apart: none leads, is the runner-up or among those that tie.
Each question is judged by itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from analysis.arrays import Floats, Indices
from analysis.cells.intervals import interval
from analysis.error_unit import PERCENT, ErrorUnit
from budgets.quantity import format_share, format_times

VerdictKind = Literal["clear", "forecast", "tie", "undecided"]

LEADS: tuple[VerdictKind, ...] = ("clear", "forecast")
"""Verdicts by which one option leads."""

CLEAR = 0.95
"""Probability required of a clear leader, and of those that are tied together."""
NEAR = 2.0
"""Largest distance (``Family.distance``) at which a leader is clear, and not by forecast alone."""
MATTERS = 0.05
"""Least probability of an option that is named beside the leader."""
_SAME = 1e-12
_NAMED = 2
_SMALL = 1e-3  # a difference that is shown with a digit more


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Which option has the lowest error, and how sure that is.

    Attributes:
        leader: Place of the option that is most probably the lowest.
        probability: Probability that each is the lowest, shape (options,); NaN without draws.
        members: Places of the leader and, until together they reach the confidence, of the most probable
            others that hold at least ``MATTERS``, among the options that lost no runs.
        kind: ``clear``, ``forecast`` (clear, but far from the leader's own runs), ``tie`` (several members),
            or ``undecided``: the data do not decide.
        distance: How far the leader is from its own runs, see ``Family.distance``.
        reason: The verdict in one sentence.
        error: Median of the leader's true error, and its 90 % interval.
        low: Lower end.
        high: Upper end.
        runner_up: Place of the next most probable option; None if there is one option.
        runner_up_error: Median of its true error; NaN if there is none.
        gap: Median of the distance of the runner-up to the leader, and its 90 % interval.
        gap_low: Lower end.
        gap_high: Upper end.
        apart: The options that lost runs, with how many, in words; empty without any.
    """

    leader: int
    probability: Floats
    members: tuple[int, ...]
    kind: VerdictKind
    distance: float
    reason: str
    error: float
    low: float
    high: float
    runner_up: int | None
    runner_up_error: float
    gap: float
    gap_low: float
    gap_high: float
    apart: str = ""

    def columns(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the verdict as columns that tables share, with the options in words."""
        other = self.runner_up
        return {
            "error": self.error, "low": self.low, "high": self.high,
            "probability": float(self.probability[self.leader]),
            "runner_up": "" if other is None else names[other], "runner_up_error": self.runner_up_error,
            "gap": self.gap, "gap_low": self.gap_low, "gap_high": self.gap_high, "verdict": self.kind,
            "distance": self.distance,
            "tied": "; ".join(names[member] for member in self.members) if self.kind == "tie" else "",
            "reason": self.reason,
        }  # fmt: skip


def shares(values: Floats, indifference: float = 0.0) -> Floats:
    """Return the share of the draws (draws, options) in which each is the lowest, or within so much of it.

    Without an indifference equal options share a draw, and the shares sum to 1.
    """
    lowest = values <= values.min(axis=1, keepdims=True) + max(indifference, _SAME)
    share = lowest if indifference else lowest / lowest.sum(axis=1, keepdims=True)
    return np.asarray(share.mean(axis=0), dtype=np.float64)


def ranked(probability: Floats, middle: Floats) -> Indices:
    """Return the places of options by falling probability in whole percents, then by rising median error."""
    return np.lexsort((middle, -np.round(probability, 2)))


def judge(  # noqa: PLR0913 - the draws, and what is known of the options
    values: Floats,
    names: Sequence[str],
    *,
    distance: Floats,
    lost: Sequence[str] = (),
    measured: Floats | None = None,
    confidence: float = CLEAR,
    unit: ErrorUnit = PERCENT,
) -> Verdict:
    """Return the verdict on options.

    Args:
        values: Draws of their true errors, shape (draws, options), infinite for those that can't be run; no
            draws if no noise is known.
        names: The options in words.
        distance: How far each is from its own runs, see ``Family.distance``; shape (options,).
        lost: Runs that each lost, in words, empty for none, see ``Family.apart``; at least one option lost
            none. By default none did.
        measured: Error of each as measured, which decides without draws.
        confidence: Probability of a clear leader.
        unit: Unit of the errors.
    """
    known = len(values) > 0
    if not known:
        values = np.nan_to_num(np.asarray(measured, dtype=np.float64), nan=np.inf)[None, :]
    ranks = np.array([not text for text in lost or [""] * len(names)])
    probability, middle = shares(values), np.median(values, axis=0)
    chances = shares(np.where(ranks, values, np.inf))
    order = ranked(chances, middle)
    order = order[ranks[order]]
    leader, *others = order[np.isfinite(middle[order])].tolist() or order[:1].tolist()
    held = int(np.searchsorted(np.cumsum(chances[order]), confidence - _SAME)) if known else 0
    least = min(MATTERS, 1 - confidence) - _SAME
    members = (leader, *(place for place in order[1 : held + 1].tolist() if chances[place] >= least))
    runner_up = others[0] if others else None
    gaps = np.zeros(1) if runner_up is None else values[:, runner_up] - values[:, leader]
    gap = float(np.median(gaps[np.isfinite(gaps)])) if np.isfinite(gaps).any() else float("inf")
    kind: VerdictKind = "undecided"
    reason = f"ahead by {unit.gap(gap, fine=abs(gap) < _SMALL)}"
    far = [f"{names[place]} ({_away(distance[place])})" for place in members if distance[place] > NEAR]
    settled = bool(chances[leader] >= confidence - _SAME)
    if runner_up is None:
        reason = "only one configuration can be ranked here, so there is nothing to compare it with"
    elif not known:
        reason = f"{reason if gap else 'as low as the next'}, but no noise was measured"
    elif len(members) > 1:
        beyond = f" (far from their runs: {named(far)})" if far else ""
        kind, reason = "tie", f"{len(members)} configurations cannot be told apart{beyond}"
    else:
        reason += f", the lowest {draws_text(probability[leader])}"
        if probability[leader] < confidence - _SAME:
            which = "one that is not ranked" if settled else "one of many others"
            reason += f", but {which} may be lower"
        elif np.isinf(distance[leader]):
            reason += ", but it was not run"
        else:
            kind = "forecast" if far else "clear"
            reason += f", {_away(distance[leader])} from its own runs" if far else ""
    takes_part = np.isfinite(values).all(axis=0) if known else np.ones(len(names), dtype=bool)
    apart = apart_text(names, np.where(takes_part & ~ranks, lost or "", "").tolist())
    low, high = interval(values[:, leader]) if known else (np.nan, np.nan)
    gap_low, gap_high = interval(gaps) if known and others else (np.nan, np.nan)
    return Verdict(
        leader=leader, probability=probability if known else np.full(len(names), np.nan), members=members,
        kind=kind, distance=float(distance[leader]), apart=apart,
        reason=reason + (apart and f"; not ranked: {apart}"),
        error=float(middle[leader]), low=low, high=high, runner_up=runner_up,
        runner_up_error=np.nan if runner_up is None else float(middle[runner_up]),
        gap=np.nan if runner_up is None else gap, gap_low=gap_low, gap_high=gap_high,
    )  # fmt: skip


def _away(distance: float) -> str:
    return "not run" if np.isinf(distance) else format_times(distance)


def draws_text(share: float) -> str:
    """Return how often something holds: ``in 22 % of the draws``."""
    return f"in {format_share(share)} of the draws"


def clear_text(confidence: float) -> str:
    """Return what a clear verdict is."""
    return (
        f"Clear: lowest in {100 * confidence:g} % of the joint draws of all configurations (printed "
        f"intervals are 90 %); clear by forecast: the same, more than {format_times(NEAR)} from its own runs"
    )


def apart_text(names: Sequence[str], lost: Iterable[str]) -> str:
    """Return the options that lost runs, with what they lost in words; empty if none did."""
    gone = [f"{name} ({text})" for name, text in zip(names, lost, strict=True) if text]
    return named(gone) if gone else ""


def named(names: Sequence[str]) -> str:
    """Return the first of some names, which have commas, and the number of the others."""
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return "; ".join([*names[:_NAMED], *more])
