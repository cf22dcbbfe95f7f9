"""The best configuration at each budget, as probabilities over configurations, with ties.

Under fixed compute a budget is a declared level, and the cells of that level are compared; a configuration
that was not run there but may be lower makes the best undecided, see ``absent``. In the other regimes
configurations are compared by compute: at the compute of each cell that no other trial beats, every
configuration is read off its own curve, see ``read_off``. A configuration that ties only because its curve
may fall on beyond its last cell is not called tied: it makes the best undecided. If a cheaper trial beats the
best of a level, that best is ``beaten``.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.answers.best.absent import with_absent
from analysis.answers.best.choice import CLEAR, Choice, and_more, choice_columns, choose, name_of, of_measured
from analysis.answers.best.read_off import at_compute
from analysis.arrays import Floats
from analysis.cells.bootstrap import CellDraws
from analysis.cells.pareto import best_for_no_more, costs, undominated
from analysis.cells.table import CELL, CONFIGURATION, records
from analysis.labels import budget_text, configuration_text, with_regime
from budgets.quantity import format_flops, plural


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
                choice = with_absent(of_regime, own_cost, positions, choose(here))
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


def _at(regime: str, flops: float, *, named: bool) -> str:
    """Return a compute as text; outside fixed compute, where it was not declared, with three digits.

    Args:
        regime: The regime.
        flops: The compute.
        named: True to name the regime, where a study has several.
    """
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
