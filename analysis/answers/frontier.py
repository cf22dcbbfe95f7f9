"""The best configuration at each budget: a probability over configurations, with ties said to be ties.

A leader is clear when it is the best of all in a share ``CLEAR`` of the draws and its distance to each other
one has an interval of as much above zero. The first sees how many there are: of equal configurations one is
called clear in at most one budget of ten, however many they are (measured, see ``docs/dev/log.md``).
Budgets are judged one by one. A mean over the seeds that did not diverge flatters its configuration, which is
then not called clear.

Under fixed compute a budget is a declared level, and its cells are compared. Elsewhere configurations are
compared on compute: at the compute of each cell that no other trial beats, every configuration takes part by
its own curve, see ``read_off``. A level's best that a cheaper trial beats is ``beaten``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.answers.read_off import at_compute
from analysis.cells.bootstrap import CellDraws
from analysis.cells.intervals import interval
from analysis.cells.pareto import best_for_no_more, costs, undominated
from analysis.cells.table import CELL, CONFIGURATION, records
from analysis.labels import budget_text, configuration_text, percent, plural
from budgets.quantity import format_flops

Floats = NDArray[np.float64]
Verdict = Literal["clear", "tie", "undecided"]

CLEAR = 0.925
"""What a clear leader is asked for: its probability, and the interval of its distance to each other.

Wider than the printed intervals, since draws of few runs are a little too narrow: with ``COVERAGE`` one of
two equal configurations, one 1 / 2 / 4 times noisier, is clear in 8.5 / 9.0 / 9.6 % of 4,000 budgets, which
leaves samples of 1,200 above the one in ten that is allowed (up to 11.2 %); with this in 6.4 / 6.8 / 7.3 %.
"""
_SAME = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which of some configurations is best.

    Attributes:
        leader: Position of the lowest measured error.
        runner_up: Position of the second lowest, or None when there is one configuration.
        probability: Share of the draws in which each is best, shape (configurations,); NaN without draws.
        members: Positions that hold ``CLEAR`` of the probability together with the leader, best first,
            and those whose distance to the leader has an interval that holds zero.
        verdict: ``clear``: the leader alone holds it and the noise between seeds was measured; ``tie``:
            several do; ``undecided``: the data cannot say.
        reason: The verdict in one sentence.
    """

    leader: int
    runner_up: int | None
    probability: Floats
    members: tuple[int, ...]
    verdict: Verdict
    reason: str


def choose(draws: CellDraws) -> Choice:
    """Chooses among configurations measured at the same budget.

    Args:
        draws: One cell a configuration.
    """
    error = draws.cells["error"].to_numpy(np.float64)
    order = np.argsort(error, kind="stable")
    leader = int(order[0])
    if len(draws.draws):
        # Few residuals make equal draws common: they share, or the first of them would win them all.
        lowest = draws.draws <= draws.draws.min(axis=1, keepdims=True) + _SAME
        probability = (lowest / lowest.sum(axis=1, keepdims=True)).mean(axis=0)
    else:
        probability = np.full(len(error), np.nan)
    runner_up = int(order[1]) if len(error) > 1 else None
    members = _members(probability, draws.draws, leader) if len(draws.draws) else (leader,)
    verdict, reason = _judge(draws, leader, runner_up, members)
    return Choice(
        leader=leader,
        runner_up=runner_up,
        probability=probability,
        members=members,
        verdict=verdict,
        reason=reason,
    )


def _members(probability: Floats, draws: Floats, leader: int) -> tuple[int, ...]:
    """The leader and the most probable others, until together they hold ``CLEAR``.

    Whatever the interval of its distance to the leader does not part from it is a member, too.
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
    error, source = draws.cells["error"].to_numpy(np.float64), draws.source
    if runner_up is None:
        return "undecided", "only one configuration was measured here: there is nothing to choose between"
    gap = percent(float(error[runner_up] - error[leader]))
    if source == "none":
        return "undecided", f"ahead by {gap} points, but no noise was measured"
    diverged = int(draws.cells["diverged"].iloc[leader])
    lost = f"{plural(diverged, 'run')} of it diverged, which its mean leaves out" if diverged else ""
    if len(members) > 1:
        noise = "" if source == "runs" else ", by the evaluation's counting noise alone"
        said = f"{len(members)} configurations cannot be told apart{noise}"
        return "tie", f"{said}; of the lowest, {lost}" if lost else said
    if source == "evaluation":
        return "undecided", (
            f"ahead by {gap} points, more than the evaluation's counting noise, "
            "but with one seed per cell the noise between seeds is not known"
        )
    if lost:
        return "undecided", f"ahead by {gap} points, but {lost}"
    single = draws.cells["runs"].to_numpy(np.int64)[[leader, runner_up]].min() == 1
    borrowed = " as measured on other cells: one of the two has a single run" if single else ""
    return "clear", f"ahead by {gap} points, outside the noise between seeds{borrowed}"


def frontier(draws: CellDraws) -> pd.DataFrame:
    """The best configuration at each budget.

    Returns:
        One row a regime and compute: ``flops`` (of one trial: the level's, or the leader's own outside of
        fixed compute) and ``at`` (the same as a text); ``configurations`` (compared there); ``leaders`` (the
        configurations of the leader and of what ties with it, as mappings); the leader's ``budget``,
        ``subset_size``, ``quality``, ``architecture``, ``strategy``, ``runs``, ``diverged``, ``train_flops``,
        ``parameters``, ``samples_seen``, ``epochs``, ``error`` with ``low`` and ``high``; ``probability``;
        ``runner_up`` (text), ``runner_up_error``, ``runner_up_probability``; ``gap`` with ``gap_low`` and
        ``gap_high``; ``verdict`` (of ``Verdict``, or ``beaten``: another trial is lower for no more compute),
        ``tied`` (texts of the members, joined by "; "), ``reason``. Errors are fractions.
    """
    cost = costs(draws.cells)
    rows = []
    for flops, place, here, choice in _choices(draws, cost):
        cells = records(here.cells)
        names = [_name(cell, own=position == choice.leader) for position, cell in enumerate(cells)]
        row = {"regime": cells[0]["regime"], "budget": cells[choice.leader]["budget"]}
        row |= {"flops": flops, "at": _at(str(row["regime"]), flops), "configurations": len(cells)}
        leaders = [choice.leader, *(choice.members if choice.verdict == "tie" else ())]
        row["leaders"] = tuple({name: cells[each][name] for name in CONFIGURATION} for each in leaders)
        shown = (*CONFIGURATION, "runs", "diverged", "train_flops", "parameters", "samples_seen", "epochs")
        row |= {name: cells[choice.leader][name] for name in shown} | describe(here, choice, names)
        if row["regime"] != "fixed-compute":
            row |= _only_for_less(here, choice, names)
        rows.append(row | _beaten(draws, cost, place, str(row["reason"])))
    return pd.DataFrame(rows)


def turns(best: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the rows where something changes, and how many others the table holds, in words.

    Outside of fixed compute a study has as many rows as cells that no other beats: kept are the first and
    the last of each regime and those from which on another configuration leads.

    Args:
        best: What ``frontier`` gave.
    """
    if best.empty:
        return best, ""
    leader = best[["regime", "architecture", "strategy", "quality"]]
    changes = (leader != leader.shift()).any(axis=1)
    last = best["regime"] != best["regime"].shift(-1)
    kept = best[changes | last | (best["regime"] == "fixed-compute")]
    left = len(best) - len(kept)
    said = f"{plural(left, 'further compute')} with the same leaders in the table" if left else ""
    return kept, said


def _choices(draws: CellDraws, cost: Floats) -> Iterator[tuple[float, int, CellDraws, Choice]]:
    """Each compute, the position of the best cell, and what was chosen from.

    Outside of fixed compute, a cell that lies above another configuration's curve is left out: the line
    between two of that one's cells passes below it.
    """
    for (regime,), inside in draws.groups(["regime"]):
        of_regime, own_cost = draws.take(inside), cost[inside]
        if regime == "fixed-compute":
            for (budget,), positions in of_regime.groups(["budget"]):
                here = of_regime.take(positions)
                choice = choose(here)
                yield float(str(budget)), int(inside[positions[choice.leader]]), here, choice
            continue
        error = of_regime.cells["error"].to_numpy(np.float64)
        kept = np.flatnonzero(undominated(own_cost, error[None, :])[0])
        for place in kept[np.argsort(own_cost[kept], kind="stable")]:
            here = at_compute(of_regime, own_cost, float(own_cost[place]))
            choice = choose(here)
            if (here.cells.iloc[choice.leader][[*CELL]] == of_regime.cells.iloc[place][[*CELL]]).all():
                yield float(own_cost[place]), int(inside[place]), here, choice


def _at(regime: str, flops: float) -> str:
    """A compute as a text; outside of fixed compute it is of no declared digits."""
    return budget_text(regime, flops) if regime == "fixed-compute" else format_flops(flops, digits=3)


def _name(cell: dict[str, Any], *, own: bool) -> str:
    """A configuration in words; one read off between two cells of one epoch has no number of pairs."""
    between = cell["regime"] == "one-epoch" and not own
    return configuration_text(cell, without="subset_size" if between else "")


def _only_for_less(here: CellDraws, choice: Choice, names: list[str]) -> dict[str, str]:
    """The verdict where others were not run for so little compute, or for less only; empty where all were."""
    if choice.runner_up is None:
        return {"reason": "no other configuration was run for so little compute"}
    short = [name for name, is_short in zip(names, here.cells["short"], strict=True) if is_short]
    if not short or choice.verdict != "clear":
        return {}
    most = f"{short[0]} and {len(short) - 1} more were" if len(short) > 1 else f"{short[0]} was"
    return {"verdict": "undecided", "reason": f"{choice.reason}, but {most} only run once, for less compute"}


def _beaten(draws: CellDraws, cost: Floats, place: int, reason: str) -> dict[str, str]:
    """The verdict on the best of a budget that another trial beats; empty where none does."""
    error = draws.cells["error"].to_numpy(np.float64)
    other = best_for_no_more(cost, error, place)
    if error[other] >= error[place]:
        return {}
    cell = records(draws.cells.iloc[[other]])[0]
    own = "budget" if draws.cells["regime"].iloc[place] == "fixed-compute" else "regime"
    lower = draws.draws[:, other] < draws.draws[:, place]
    often = f", in {lower.mean():.0%} of the draws" if len(lower) else ""
    said = (
        f"{configuration_text(cell)} at {_at(cell['regime'], cost[other])} has {percent(error[other])} %, "
        f"lower for no more compute{often}; within its own {own}: {reason}"
    )
    return {"verdict": "beaten", "tied": "", "reason": said}


def describe(draws: CellDraws, choice: Choice, names: list[str]) -> dict[str, object]:
    """A choice as the columns that tables share; ``names`` words each cell of the draws."""
    error = draws.cells["error"].to_numpy(np.float64)
    low, high = interval(draws.draws[:, choice.leader])
    row: dict[str, object] = {
        "error": float(error[choice.leader]), "low": low, "high": high,
        "probability": float(choice.probability[choice.leader]),
        "runner_up": "", "runner_up_error": np.nan, "runner_up_probability": np.nan,
        "gap": np.nan, "gap_low": np.nan, "gap_high": np.nan,
    }  # fmt: skip
    if choice.runner_up is not None:
        other = choice.runner_up
        gap_low, gap_high = interval(draws.draws[:, other] - draws.draws[:, choice.leader])
        row |= {
            "runner_up": names[other], "runner_up_error": float(error[other]),
            "runner_up_probability": float(choice.probability[other]),
            "gap": float(error[other] - error[choice.leader]), "gap_low": gap_low, "gap_high": gap_high,
        }  # fmt: skip
    tied = "; ".join(names[position] for position in choice.members) if choice.verdict == "tie" else ""
    return row | {"verdict": choice.verdict, "tied": tied, "reason": choice.reason}
