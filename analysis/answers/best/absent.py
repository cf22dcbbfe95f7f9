"""Configurations that were not run at a level of fixed compute, and may be the best there all the same."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.answers.best.choice import CLEAR, Choice, and_more, choose, name_of
from analysis.answers.best.read_off import at_compute, cells_by_curve
from analysis.arrays import Floats, Indices
from analysis.cells.bootstrap import CellDraws, curve_numbers
from analysis.cells.table import CONFIGURATION, records


def with_absent(draws: CellDraws, cost: Floats, positions: Indices, choice: Choice) -> Choice:
    """Return the choice at a level, not clear if a configuration that was not run there may be lower.

    One that was run at levels below and above is read off its own curve. One that was run at lower levels
    only counts if it `may_lead`.

    Args:
        draws: Cells of the regime.
        cost: Cost of each cell, see ``pareto.costs``.
        positions: Cells of the level.
        choice: The choice among these.
    """
    if choice.verdict != "clear":
        return choice
    curve, level = curve_numbers(draws.cells), float(cost[positions[0]])
    leader = np.flatnonzero(curve == curve[positions[choice.leader]])
    between, ended = list[Indices](), list[Indices]()
    for other in cells_by_curve(draws, cost):
        if curve[other[0]] in curve[positions]:
            continue
        if cost[other[0]] < level < cost[other[-1]]:
            between.append(other)
        elif cost[other[-1]] < level and may_lead(draws, leader, other):
            ended.append(other)
    if names := _near(draws, cost, positions, between):
        reason = f"{and_more(names)} measured at levels below and above only, and may be lower here"
    elif ended:
        names = [name_of(records(draws.cells.iloc[[other[-1]]])[0], own=True) for other in ended]
        reason = f"{and_more(names)} measured at lower levels only, and not clearly behind there"
    else:
        return choice
    return replace(choice, verdict="undecided", reason=f"{choice.reason}, but {reason}")


def may_lead(draws: CellDraws, leader: Indices, other: Indices) -> bool:
    """Return whether a configuration was not clearly behind another at the highest level that both ran.

    False if there is no such level.

    Args:
        draws: Cells of one regime.
        leader: Cells of the configuration that leads at a higher level.
        other: Cells of the other one.
    """
    level = draws.column("budget")
    shared = np.intersect1d(level[leader], level[other])
    if not len(shared) or not len(draws.draws):
        return False
    first, second = (cells[level[cells] == shared[-1]][0] for cells in (leader, other))
    return bool(np.quantile(draws.draws[:, second] - draws.draws[:, first], (1 - CLEAR) / 2) <= 0)


def cells_of(draws: CellDraws, configuration: Mapping[str, object]) -> Indices:
    """Return the cells of a configuration, given with its regime, at all levels."""
    names = ["regime", *CONFIGURATION]
    same = (draws.cells[names] == [configuration[name] for name in names]).all(axis=1)
    return np.flatnonzero(same.to_numpy(bool))


def _near(draws: CellDraws, cost: Floats, positions: Indices, between: list[Indices]) -> list[str]:
    """Return the configurations run at levels below and above this one that may be the best here."""
    if not between:
        return []
    cells = np.concatenate(between)
    read = at_compute(draws.take(cells), cost[cells], float(cost[positions[0]]))
    here = draws.take(positions)
    both = replace(
        read,
        cells=pd.concat([here.cells, read.cells], ignore_index=True),
        draws=np.concatenate([here.draws, read.draws], axis=1),
    )
    found = choose(both)
    near = sorted({found.leader, *found.members} - set(range(len(positions))))
    return [name_of(cell, own=True) for cell in records(both.cells.iloc[near])]
