"""The best configuration at each budget, as probabilities over configurations, with ties.

Under fixed compute a budget is a declared level, and the cells of that level are compared; a configuration
that was not run there but may be lower makes the best undecided. In the other regimes configurations are
compared by compute: at the compute of each cell that no other trial beats, every configuration is read off
its own curve. A configuration that ties only because its curve may fall on beyond its last cell is not called
tied: it makes the best undecided. If a cheaper trial beats the best of a level, that best is ``beaten``.

A curve is one configuration over its cells (see ``bootstrap.curve_numbers``). It is read by straight lines in
ln x through the lowest error so far. It has no value before its first cell and keeps its last value beyond
its last cell. For a falling curve this is an upper bound: between two cells of a flattening curve it lies
below the straight line, and beyond the last cell it falls on. Without a correction, the one of two equal
configurations that has a cell at the compute in question would appear better. So each draw lies below the
reading by a random share: between cells by 0 to 2 times the larger estimate of ``curves.bends``,
beyond the last cell by 0 to 1.5 times the fall along the last line, since a curve near chance still steepens.
A curve of a single cell has no such line and is marked as ``short``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.answers.choice import CLEAR, Choice, and_more, choice_columns, choose, name_of, of_measured
from analysis.arrays import Floats, Indices
from analysis.cells.bootstrap import CellDraws, curve_numbers, stream
from analysis.cells.curves import between, sags, straight_lines
from analysis.cells.pareto import SAME_COST, best_for_no_more, costs, undominated
from analysis.cells.table import CELL, CONFIGURATION, records
from analysis.labels import budget_text, configuration_text, with_regime
from budgets.quantity import format_flops, plural

_STEEPEST = 1.5
"""Largest fall beyond the last cell, in units of that along the last line.

A curve that leaves chance as x^-α steepens from level to level by at most the α-th power of their ratio. With
1, one of two equal configurations that was run one level further was clear in 9 of 12 studies whose error
falls by the same amount at each level, and in 12 of 12 near chance; with 1.5 in none.
"""


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
    cost, several = costs(draws.cells), draws.mixed
    rows = []
    for flops, place, here, choice in _choices(draws, cost):
        cells = records(here.cells)
        names = [name_of(cell, own=position == choice.leader) for position, cell in enumerate(cells)]
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
    """Return the rows of `frontier` at which the leader changes, and the number of other rows in words.

    Outside fixed compute there is a row for every cell that no other beats. Kept are the first and last row
    of each regime, and rows from which on another configuration leads.
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
                choice = _with_absent(of_regime, own_cost, positions, choose(here))
                yield float(str(budget)), int(inside[positions[choice.leader]]), here, choice
            continue
        error = of_regime.column("error")
        kept = np.flatnonzero(undominated(own_cost, error[None, :])[0])
        for place in kept[np.argsort(own_cost[kept], kind="stable")]:
            flops = float(own_cost[place])
            here = at_compute(of_regime, own_cost, flops)
            choice = choose(here)
            # Only where the cell itself leads: elsewhere another curve passes below it.
            if (here.cells.iloc[choice.leader][[*CELL]] == of_regime.cells.iloc[place][[*CELL]]).all():
                beyond = np.flatnonzero(here.cells["beyond"].to_numpy(bool))
                if not set(choice.members).isdisjoint(beyond.tolist()):
                    kept_values = at_compute(of_regime, own_cost, flops, falling=False)
                    choice = of_measured(here, choice, choose(kept_values))
                yield flops, int(inside[place]), here, choice


def _at(regime: str, flops: float, *, named: bool) -> str:
    """Return a compute as text; outside fixed compute, where it was not declared, with three digits."""
    said = budget_text(regime, flops) if regime == "fixed-compute" else format_flops(flops, digits=3)
    return with_regime(said, regime, named=named)


def _only_for_less(here: CellDraws, choice: Choice, names: list[str]) -> dict[str, str]:
    """Return columns that replace the choice's, if others have no run at this compute or one cheaper run."""
    if choice.runner_up is None:
        return {"reason": "no other configuration was run at this compute or below"}
    short = [name for name, is_short in zip(names, here.cells["short"], strict=True) if is_short]
    if not short or choice.verdict != "clear":
        return {}
    said = f"{choice.reason}, but {and_more(short)} run at only one, lower compute"
    return {"verdict": "undecided", "reason": said}


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


def _with_absent(draws: CellDraws, cost: Floats, positions: Indices, choice: Choice) -> Choice:
    """Return the choice at a level, not clear if a configuration that was not run there may be lower.

    One that was run at levels below and above is read off its own curve. One that was run at lower levels
    only counts if it `may_lead`. ``positions`` are the cells of the level, ``cost`` is that of every cell.
    """
    if choice.verdict != "clear":
        return choice
    curve, level = curve_numbers(draws.cells), float(cost[positions[0]])
    leader = np.flatnonzero(curve == curve[positions[choice.leader]])
    around, ended = list[Indices](), list[Indices]()
    for other in cells_by_curve(draws, cost):
        if curve[other[0]] in curve[positions]:
            continue
        if cost[other[0]] < level < cost[other[-1]]:
            around.append(other)
        elif cost[other[-1]] < level and may_lead(draws, leader, other):
            ended.append(other)
    if names := _near(draws, cost, positions, around):
        reason = f"{and_more(names)} measured at levels below and above only, and may be lower here"
    elif ended:
        names = [name_of(records(draws.cells.iloc[[other[-1]]])[0], own=True) for other in ended]
        reason = f"{and_more(names)} measured at lower levels only, and not clearly behind there"
    else:
        return choice
    return replace(choice, verdict="undecided", reason=f"{choice.reason}, but {reason}")


def may_lead(draws: CellDraws, leader: Indices, other: Indices) -> bool:
    """Return whether a configuration was not clearly behind the leader at the highest level that both ran.

    The leader is that of a higher level. False if they share no level.
    """
    # The highest shared level alone: below it small models may lead that are behind later.
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


def _near(draws: CellDraws, cost: Floats, positions: Indices, around: list[Indices]) -> list[str]:
    """Return the configurations run at levels below and above this one that may be the best here."""
    if not around:
        return []
    cells = np.concatenate(around)
    interpolated = at_compute(draws.take(cells), cost[cells], float(cost[positions[0]]))
    here = draws.take(positions)
    both = replace(
        interpolated,
        cells=pd.concat([here.cells, interpolated.cells], ignore_index=True),
        draws=np.concatenate([here.draws, interpolated.draws], axis=1),
    )
    found = choose(both)
    near = sorted({found.leader, *found.members} - set(range(len(positions))))
    return [name_of(cell, own=True) for cell in records(both.cells.iloc[near])]


def at_compute(draws: CellDraws, cost: Floats, flops: float, *, falling: bool = True) -> CellDraws:
    """Return one cell per configuration, as it would be at a compute.

    With ``falling=False`` curves keep their last value in the draws, too.

    Returns:
        For each configuration with a cell at that compute or below: the columns of its nearest cell, with the
        interpolated ``error``, the smaller ``runs`` and the summed ``diverged`` of the two cells around it,
        ``beyond``, whether its last cell is at less compute, and ``short``, whether that is its only cell.
    """
    nearest, rows, drawn = [], [], []
    at = np.array([flops])
    errors, runs, diverged = (draws.column(name) for name in ("error", "runs", "diverged"))
    generator = stream("read off")
    for positions in cells_by_curve(draws, cost):
        x = cost[positions]
        if x[0] > flops * SAME_COST:
            continue
        error = errors[positions]
        (below,), (share,) = between(x, at)
        sides = positions[below : below + (1 if share == 0 else 2)]
        value = float(read(x, error[None, :], at)[0, 0])
        beyond = bool(x[-1] * SAME_COST < flops)
        nearest.append(positions[int(below + round(share))])
        rows.append((value, int(runs[sides].min()), diverged[sides].sum(), beyond, beyond and len(x) == 1))
        line = draws.draws[:, positions]
        if beyond:
            open_below = falling * fall_beyond(x, line, flops) * generator.random(len(line))
        else:
            open_below = sags(x, error, flops, len(line), generator)
        drawn.append(np.maximum(read(x, line, at)[:, 0] - open_below, 0.0))
    nothing = np.empty(0, dtype=np.intp)
    changed = pd.DataFrame(rows, columns=["error", "runs", "diverged", "beyond", "short"])
    return replace(
        draws,
        cells=draws.cells.iloc[nearest].reset_index(drop=True).assign(**changed),
        draws=np.stack(drawn, axis=1),
        left_out=nothing,
        without=nothing.astype(np.float64),
        unit=nothing,
    )


def cells_by_curve(draws: CellDraws, cost: Floats) -> list[Indices]:
    """Return the cells of each curve by rising cost."""
    number = curve_numbers(draws.cells)
    order = np.lexsort((cost, number))
    return np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if len(order) else []


def read(cost: Floats, error: Floats, at: Floats) -> Floats:
    """Return a curve's error at each compute, shape (rows, len(at)); infinite before its first cell.

    The cells' costs rise, shape (cells,); their errors are of shape (rows, cells).
    """
    found = straight_lines(cost, np.minimum.accumulate(error, axis=1), at)
    return np.where(at * SAME_COST < cost[0], np.inf, found)


def fall_beyond(cost: Floats, error: Floats, flops: float) -> Floats:
    """Return the largest fall of each row from its last cell to a compute beyond it."""
    if len(cost) == 1:
        return np.zeros(len(error))
    (before, last), fall = np.log(cost[-2:]), error[:, -2] - error[:, -1]
    steepest = _STEEPEST * np.maximum(fall, 0.0) / (last - before)
    return np.asarray(steepest * (np.log(flops) - last), dtype=np.float64)
