"""The choice of the best among configurations that were measured or read at one budget.

A leader is clear if it is the best in a share ``CLEAR`` of the draws, and if the interval of its distance to
each other configuration, of the same probability, lies above zero. The first condition accounts for the
number of configurations: among equal ones a leader is called clear in at most one budget of ten, however many
there are (measured, see ``docs/dev/log.md``). Each budget is judged by itself. A mean that excludes diverged
seeds favours its configuration, which is then not called clear.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from analysis.arrays import Floats
from analysis.cells.bootstrap import CellDraws
from analysis.cells.intervals import interval
from analysis.cells.table import records
from analysis.labels import configuration_text
from budgets.quantity import plural

Verdict = Literal["clear", "tie", "undecided"]

CLEAR = 0.925
"""Probability required of a clear leader, and of the intervals of its distances to the others.

It is higher than ``COVERAGE``, because draws from few runs are slightly too narrow. With ``COVERAGE`` one of
two equal configurations, one of them 1 / 2 / 4 times as noisy, was clear in 8.5 / 9.0 / 9.6 % of 4,000
budgets, and in up to 11.2 % of samples of 1,200, above the allowed 10 %. With this value, and a noise of each
level: 7.1 / 7.0 / 8.5 %.
"""
CLEAR_TEXT = (
    "Clear: best in 92.5 % of the draws, and the 92.5 % interval of its distance to each other configuration "
    "lies above zero (printed intervals are 90 %)"
)
_SAME = 1e-12
_SMALL = 1e-3  # an error that is shown with a digit more


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The choice of the best among configurations.

    Attributes:
        leader: Position of the lowest measured error.
        runner_up: Position of the second lowest, or None when there is one configuration.
        probability: Share of the draws in which each is best, shape (configurations,); NaN without draws.
        members: Positions of the leader and the most probable others that together reach ``CLEAR``, and of
            those whose distance to the leader has an interval that contains zero.
        verdict: ``clear``: the leader is the only member and the noise between seeds was measured; ``tie``:
            there are several members; ``undecided``: the data do not decide.
        reason: The verdict in one sentence.
    """

    leader: int
    runner_up: int | None
    probability: Floats
    members: tuple[int, ...]
    verdict: Verdict
    reason: str


def choose(draws: CellDraws) -> Choice:
    """Choose among configurations measured at the same budget, of one cell each."""
    error = draws.column("error")
    order = np.argsort(error, kind="stable")
    leader = int(order[0])
    if len(draws.draws):
        # Few residuals make equal draws common; equal configurations share the draw, else the first would
        # win.
        lowest = draws.draws <= draws.draws.min(axis=1, keepdims=True) + _SAME
        probability = (lowest / lowest.sum(axis=1, keepdims=True)).mean(axis=0)
    else:
        probability = np.full(len(error), np.nan)
    runner_up = int(order[1]) if len(error) > 1 else None
    members = _members(probability, draws.draws, leader) if len(draws.draws) else (leader,)
    verdict, reason = _judge(draws, leader, runner_up, members)
    return Choice(
        leader=leader, runner_up=runner_up, probability=probability, members=members, verdict=verdict,
        reason=reason,
    )  # fmt: skip


def _members(probability: Floats, draws: Floats, leader: int) -> tuple[int, ...]:
    """Return the leader and the most probable others, until together they reach ``CLEAR``.

    Configurations whose distance to the leader has an interval that contains zero are members as well.
    """
    members, held = [leader], float(probability[leader])
    for position in np.argsort(-probability, kind="stable"):
        if held >= CLEAR:
            break
        if position != leader:
            members.append(int(position))
            held += float(probability[position])
    nearest = np.quantile(draws - draws[:, [leader]], (1 - CLEAR) / 2, axis=0)
    close = [int(position) for position in np.flatnonzero(nearest <= 0) if position not in members]
    return (*members, *close)


def _judge(
    draws: CellDraws, leader: int, runner_up: int | None, members: tuple[int, ...]
) -> tuple[Verdict, str]:
    source = draws.source
    if runner_up is None:
        return "undecided", "only one configuration was measured here, so there is nothing to compare it with"
    ahead = _gap(draws, leader, runner_up)[0]
    fallen = _is_beyond(draws, runner_up) and not draws.cells["short"].iloc[runner_up]
    gap = draws.error_unit.gap(ahead, fine=ahead < _SMALL)
    if source == "none":
        noise = "its runs agree exactly, so" if draws.cells["runs"].max() > 1 else "but"
        lead = f"ahead by {gap}" if ahead else "as low as the next"
        return "undecided", f"{lead}, {noise} no noise was measured"
    diverged = int(draws.cells["diverged"].iloc[leader])
    lost = ""
    if diverged:
        lost = f"{plural(diverged, 'run')} of it diverged or gave no number, which its mean excludes"
    if len(members) > 1:
        noise = "" if source == "runs" else " by the counting noise of the evaluation alone"
        said = f"{len(members)} configurations cannot be told apart{noise}"
        return "tie", f"{said}; of the lowest, {lost}" if lost else said
    if source == "evaluation":
        return "undecided", (
            f"ahead by {gap}, more than the counting noise of the evaluation, "
            "but with one seed per cell the noise between seeds is unknown"
        )
    if lost:
        return "undecided", f"ahead by {gap}, but {lost}"
    single = draws.cells["runs"].to_numpy(np.int64)[[leader, runner_up]].min() == 1
    borrowed = " as measured on other cells, since one of the two has a single run" if single else ""
    read = ", as the runner-up, which was run at less compute only, may have fallen by then" if fallen else ""
    return "clear", f"ahead by {gap}{read}, outside the noise between seeds{borrowed}"


def _is_beyond(draws: CellDraws, place: int) -> bool:
    """Return whether a configuration was run at less compute only, see `frontier.at_compute`."""
    return "beyond" in draws.cells and bool(draws.cells["beyond"].iloc[place])


def _gap(draws: CellDraws, leader: int, other: int) -> tuple[float, float]:
    """Return the distance of another configuration to the leader, and its error.

    Beyond its last cell its measured value is an upper bound, so the middle of its draws counts, unless it
    would be ahead.
    """
    error = draws.column("error")
    if _is_beyond(draws, other) and len(draws.draws):
        there = draws.draws[:, other]
        gap = float(np.median(there - draws.draws[:, leader]))
        if gap > 0:
            return gap, float(error[leader] + gap)
    return float(error[other] - error[leader]), float(error[other])


def of_measured(here: CellDraws, choice: Choice, measured: Choice) -> Choice:
    """Return a choice without ties that hold only if curves fall on beyond their last cells.

    ``choice`` is the one among the configurations as they would be at a compute, ``measured`` the one if
    curves keep their last values; the column ``beyond`` tells which are read beyond their cells.
    """
    beyond = here.cells["beyond"].to_numpy(bool)
    falling = [each for each in choice.members if beyond[each] and each not in measured.members]
    if not falling:
        return choice
    names = [name_of(cell, own=False) for cell in records(here.cells.iloc[falling])]
    return replace(
        measured,
        verdict="undecided" if measured.verdict == "clear" else measured.verdict,
        reason=f"{measured.reason}; {and_more(names)} run at less compute only and might be lower here",
    )


def choice_columns(draws: CellDraws, choice: Choice, names: list[str]) -> dict[str, object]:
    """Return a choice as columns that tables share; ``names`` are the texts of the cells."""
    error = draws.column("error")
    low, high = interval(draws.draws[:, choice.leader])
    row: dict[str, object] = {
        "error": float(error[choice.leader]), "low": low, "high": high,
        "probability": float(choice.probability[choice.leader]),
        "runner_up": "", "runner_up_error": np.nan, "runner_up_probability": np.nan,
        "gap": np.nan, "gap_low": np.nan, "gap_high": np.nan,
    }  # fmt: skip
    if choice.runner_up is not None:
        other = choice.runner_up
        gap, other_error = _gap(draws, choice.leader, other)
        gap_low, gap_high = interval(draws.draws[:, other] - draws.draws[:, choice.leader])
        row |= {
            "runner_up": names[other], "runner_up_error": other_error,
            "runner_up_probability": float(choice.probability[other]),
            "gap": gap, "gap_low": gap_low, "gap_high": gap_high,
        }  # fmt: skip
    tied = "; ".join(names[position] for position in choice.members) if choice.verdict == "tie" else ""
    return row | {"verdict": choice.verdict, "tied": tied, "reason": choice.reason}


def name_of(cell: dict[str, Any], *, own: bool) -> str:
    """Return a configuration in words; one read between two one-epoch cells has no number of pairs."""
    between = cell["regime"] == "one-epoch" and not own
    return configuration_text(cell, without="subset_size" if between else "")


def lost_text(names: list[str]) -> str:
    """Return that configurations have no result because all of their runs were lost."""
    return f"all runs of {_first(names)} diverged or gave no number"


def and_more(names: list[str]) -> str:
    """Return the first of some names and the number of the others, with a verb in the past."""
    return f"{_first(names)} {'was' if len(names) == 1 else 'were'}"


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
