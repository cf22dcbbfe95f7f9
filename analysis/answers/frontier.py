"""The best configuration at each budget, as probabilities over configurations, with ties.

A leader is clear if it is the best in a share ``CLEAR`` of the draws, and if the interval of its distance to
each other configuration, of the same probability, lies above zero. The first condition accounts for the
number of configurations: among equal ones a leader is called clear in at most one budget of ten, however many
there are (measured, see ``docs/dev/log.md``). Each budget is judged by itself. A mean that excludes diverged
seeds favours its configuration, which is then not called clear.

Under fixed compute a budget is a declared level, and the cells of that level are compared. In the other
regimes configurations are compared by compute: at the compute of each cell that no other trial beats, every
configuration is read off its own curve, see ``read_off``. A configuration that ties only because its curve
may fall on beyond its last cell is not called tied: it makes the best undecided. If a cheaper trial beats the
best of a level, that best is ``beaten``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.answers.read_off import at_compute
from analysis.arrays import Floats
from analysis.cells.bootstrap import CellDraws
from analysis.cells.intervals import interval
from analysis.cells.pareto import best_for_no_more, costs, undominated
from analysis.cells.table import CELL, CONFIGURATION, records
from analysis.labels import budget_text, configuration_text
from budgets.quantity import format_flops, plural

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
    """Choose among configurations measured at the same budget.

    Args:
        draws: One cell per configuration.
    """
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
    ahead, beyond = _gap(draws, leader, runner_up)[0], _is_beyond(draws, runner_up)
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
    read = ", as the runner-up, which was run at less compute only, may have fallen by then" if beyond else ""
    return "clear", f"ahead by {gap}{read}, outside the noise between seeds{borrowed}"


def _is_beyond(draws: CellDraws, place: int) -> bool:
    """Return whether a configuration was run at less compute only, see `read_off.at_compute`."""
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


def frontier(draws: CellDraws) -> pd.DataFrame:
    """Return the best configuration at each budget.

    Returns:
        One row per regime and compute: ``flops`` (of one trial: the level under fixed compute, otherwise the
        leader's) and ``at`` (the same as text); ``configurations`` (number compared); ``leaders`` (the
        configurations of the leader and of those tied with it, as mappings); the leader's ``budget``,
        ``subset_size``, ``quality``, ``architecture``, ``strategy``, ``runs``, ``diverged``, ``train_flops``,
        ``parameters``, ``samples_seen``, ``epochs``, ``error`` with ``low`` and ``high``; ``probability``;
        ``runner_up`` (text), ``runner_up_error``, ``runner_up_probability``; ``gap`` with ``gap_low`` and
        ``gap_high``; ``verdict`` (of ``Verdict``, or ``beaten``: another trial is lower at no higher cost),
        ``tied`` (texts of the members, joined by "; "), ``reason``. Errors are fractions.
    """
    cost, several = costs(draws.cells), len(draws.cells["regime"].unique()) > 1
    rows = []
    for flops, place, here, choice in _choices(draws, cost):
        cells = records(here.cells)
        names = [_name(cell, own=position == choice.leader) for position, cell in enumerate(cells)]
        row = {"regime": cells[0]["regime"], "budget": cells[choice.leader]["budget"]}
        row |= {"flops": flops, "at": _at(row["regime"], flops, named=several), "configurations": len(cells)}
        leaders = [choice.leader, *(choice.members if choice.verdict == "tie" else ())]
        row["leaders"] = tuple({name: cells[each][name] for name in CONFIGURATION} for each in leaders)
        shown = (*CONFIGURATION, "runs", "diverged", "train_flops", "parameters", "samples_seen", "epochs")
        row |= {name: cells[choice.leader][name] for name in shown} | choice_columns(here, choice, names)
        if row["regime"] != "fixed-compute":
            row |= _only_for_less(here, choice, names)
        rows.append(row | _beaten(draws, cost, place, str(row["reason"]), named=several))
    return pd.DataFrame(rows)


def turns(best: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the rows at which the leader changes, and the number of other rows in words.

    Outside fixed compute there is a row for every cell that no other beats. Kept are the first and last row
    of each regime, and rows from which on another configuration leads.

    Args:
        best: Table from ``frontier``.
    """
    if best.empty:
        return best, ""
    # In one epoch more compute means more pairs, of the same leader.
    pairs = best["subset_size"].where(best["regime"] != "one-epoch", 0)
    leader = best[["regime", "architecture", "strategy", "quality"]].assign(pairs=pairs)
    changes = (leader != leader.shift()).any(axis=1)
    last = best["regime"] != best["regime"].shift(-1)
    kept = best[changes | last | (best["regime"] == "fixed-compute")]
    left = len(best) - len(kept)
    said = f"{plural(left, 'further compute')} with the same leaders in the table" if left else ""
    return kept, said


def _choices(draws: CellDraws, cost: Floats) -> Iterator[tuple[float, int, CellDraws, Choice]]:
    """Yield each compute, the position of the best cell, the compared cells and the choice.

    Outside fixed compute a cell above another configuration's curve is left out: the line between two cells
    of that configuration passes below it.
    """
    for (regime,), inside in draws.groups(["regime"]):
        of_regime, own_cost = draws.take(inside), cost[inside]
        if regime == "fixed-compute":
            for (budget,), positions in of_regime.groups(["budget"]):
                here = of_regime.take(positions)
                choice = choose(here)
                yield float(str(budget)), int(inside[positions[choice.leader]]), here, choice
            continue
        error = of_regime.column("error")
        kept = np.flatnonzero(undominated(own_cost, error[None, :])[0])
        for place in kept[np.argsort(own_cost[kept], kind="stable")]:
            flops = float(own_cost[place])
            here = at_compute(of_regime, own_cost, flops)
            choice = choose(here)
            if (here.cells.iloc[choice.leader][[*CELL]] == of_regime.cells.iloc[place][[*CELL]]).all():
                beyond = np.flatnonzero(here.cells["beyond"].to_numpy(bool))
                if not set(choice.members).isdisjoint(beyond.tolist()):
                    kept_values = at_compute(of_regime, own_cost, flops, falling=False)
                    choice = of_measured(here, choice, choose(kept_values))
                yield flops, int(inside[place]), here, choice


def of_measured(here: CellDraws, choice: Choice, measured: Choice) -> Choice:
    """Return a choice without ties that hold only if curves fall on beyond their last cells.

    Args:
        here: Configurations as they would be at a compute, with ``beyond``, whether it is beyond their cells.
        choice: The choice among them.
        measured: The choice if curves keep their last values beyond their last cells.
    """
    beyond = here.cells["beyond"].to_numpy(bool)
    falling = [each for each in choice.members if beyond[each] and each not in measured.members]
    if not falling:
        return choice
    names = [_name(cell, own=False) for cell in records(here.cells.iloc[falling])]
    return replace(
        measured,
        verdict="undecided" if measured.verdict == "clear" else measured.verdict,
        reason=f"{measured.reason}; {and_more(names)} run at less compute only and might be lower here",
    )


def _at(regime: str, flops: float, *, named: bool) -> str:
    """Return a compute as text; outside fixed compute, where it was not declared, with three digits.

    Args:
        regime: The regime.
        flops: The compute.
        named: True to name the regime, where a study has several.
    """
    said = budget_text(regime, flops) if regime == "fixed-compute" else format_flops(flops, digits=3)
    return f"{said} ({regime.replace('-', ' ')})" if named else said


def _name(cell: dict[str, Any], *, own: bool) -> str:
    """Return a configuration in words; one read between two one-epoch cells has no number of pairs."""
    between = cell["regime"] == "one-epoch" and not own
    return configuration_text(cell, without="subset_size" if between else "")


def _only_for_less(here: CellDraws, choice: Choice, names: list[str]) -> dict[str, str]:
    """Return the verdict if others lack runs at this compute or below, or have one below it alone."""
    if choice.runner_up is None:
        return {"reason": "no other configuration was run at this compute or below"}
    short = [name for name, is_short in zip(names, here.cells["short"], strict=True) if is_short]
    if not short or choice.verdict != "clear":
        return {}
    said = f"{choice.reason}, but {and_more(short)} run at only one, lower compute"
    return {"verdict": "undecided", "reason": said}


def lost_text(names: list[str]) -> str:
    """Return that configurations have no result because all of their runs were lost."""
    return f"all runs of {_first(names)} diverged or gave no number"


def and_more(names: list[str]) -> str:
    """Return the first of some names and the number of the others, with a verb in the past."""
    return f"{_first(names)} {'was' if len(names) == 1 else 'were'}"


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _beaten(draws: CellDraws, cost: Floats, place: int, reason: str, *, named: bool) -> dict[str, str]:
    """Return the verdict if another trial beats the best of a budget; empty otherwise."""
    error = draws.column("error")
    other = best_for_no_more(cost, error, place)
    if error[other] >= error[place]:
        return {}
    cell = records(draws.cells.iloc[[other]])[0]
    own = "budget" if draws.cells["regime"].iloc[place] == "fixed-compute" else "regime"
    lower = draws.draws[:, other] < draws.draws[:, place]
    often = ""
    if len(lower):
        share = f"{lower.mean():.0%} of the draws"
        often = f", in {share}" if lower.mean() >= CLEAR else f", though within the noise ({share})"
    said = (
        f"{configuration_text(cell)} at {_at(cell['regime'], cost[other], named=named)} has "
        f"{draws.error_unit.text(error[other])}, lower at no higher cost{often}; "
        f"within its own {own}: {reason}"
    )
    return {"verdict": "beaten", "tied": "", "reason": said}


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
