"""The run that would decide or confirm a recommendation."""

from statistics import NormalDist

import numpy as np
import pandas as pd

from analysis.answers.best.choice import CLEAR, Choice
from analysis.cells.bootstrap import CellDraws
from analysis.cells.pareto import SAME_COST
from analysis.cells.table import records
from budgets.quantity import format_flops, plural

_MOST_SEEDS = 30
_POWER = 0.8
_SHOWN = NormalDist().inv_cdf((1 + CLEAR) / 2) + NormalDist().inv_cdf(_POWER)


def next_experiment(draws: CellDraws, candidates: pd.DataFrame, choice: Choice) -> str:
    """Return what to run next: the leader, or leader and next one with enough seeds to resolve their gap."""
    first = records(candidates)[0]
    where = format_flops(first["flops"])
    if choice.runner_up is None:
        return f"run one more configuration at {where}"
    if choice.verdict == "clear":
        if first["measured"]:
            return "nothing: it was measured and leads by more than the noise"
        return f"to confirm, run {first['name']} at {where}"
    tie = choice.verdict == "tie" and choice.runner_up not in choice.members
    # A runner-up outside the tie is clearly behind: its runs would not decide the tie.
    second = records(candidates)[choice.members[1] if tie else choice.runner_up]
    gap, unit = second["error"] - first["error"], draws.error_unit
    most = max(row["usable"] if row["ends"] else row["flops"] for row in (first, second))
    # In one epoch the pairs may limit one of them to less compute.
    at = [
        format_flops(most if row["usable"] >= most / SAME_COST else row["usable"]) for row in (first, second)
    ]
    both = f"{first['name']}{'' if at[0] == at[1] else ' at ' + at[0]} and "
    both += f"{second['name']} at {at[1]}"
    if draws.source != "runs":
        return f"run {both} with three seeds each: the noise between seeds was not measured"
    noise = float((draws.draws.std(axis=0) * np.sqrt(draws.column("runs"))).mean())
    # The difference of two means varies by √(2/seeds)·noise. A gap as large as the measured one shows with
    # probability ``_POWER`` if it exceeds that by the quantiles of the verdict and of the power.
    seeds = int(np.ceil(2 * (_SHOWN * noise / max(gap, 1e-12)) ** 2))
    if seeds > _MOST_SEEDS:
        small, which = unit.gap(gap, fine=True), "either" if at[0] == at[1] else "the cheaper"
        hopeless = (
            f"a gap of {small} with a noise of {unit.number(noise, fine=True)} would need more than "
            f"{_MOST_SEEDS} seeds each: take {which} of {both}"
        )
        less = any(row["ends"] for row in (first, second))
        source = "was measured at less compute" if less else "is a forecast"
        decisive = f"run {both} with two seeds each: the gap of {small} {source}"
        return hopeless if first["measured"] and second["measured"] and not less else decisive
    there = max(row["runs"] if row["measured"] and not row["ends"] else 0 for row in (first, second))
    tied = len(choice.members) - 2
    others = f"; {plural(tied, 'other')} {'is' if tied == 1 else 'are'} tied as well" if tied > 0 else ""
    return (
        f"run {both} until each has {plural(max(seeds, there + 1, 2), 'seed')}, which show a gap of "
        f"{unit.gap(gap)} {_POWER:.0%} of the time{others}"
    )
