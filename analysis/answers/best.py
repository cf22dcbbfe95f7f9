"""The best configuration at each budget.

Under fixed compute the budgets are the levels at which something was run; elsewhere the computes of the cells
that no other cell beats. All configurations of a regime that could be run there take part, run or not, by the
joint draws of their true errors (``analysis.belief``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.belief.cell_draws import CellDraws
from analysis.belief.family import Family
from analysis.belief.verdict import Verdict, apart_text, draws_text, judge
from analysis.cells.pareto import costs, same_cost, undominated
from analysis.cells.table import CONFIGURATION, records
from analysis.labels import budget_text, configuration_text, with_regime
from budgets.quantity import format_flops, plural

_SHOWN = ("runs", "train_flops", "parameters", "samples_seen", "epochs")


def best_at_budgets(draws: CellDraws) -> pd.DataFrame:
    """Return the best configuration at each budget.

    Returns:
        One row per regime and compute: ``flops`` (of one trial: the level under fixed compute, otherwise the
        leader's) and ``at`` (the same as text); ``configurations`` (number compared) and ``measured`` (number
        of those run there); ``leaders`` (the configurations of the leader and of those tied with it, as
        mappings); the leader's ``budget``, ``subset_size``, ``quality``, ``architecture``, ``strategy``,
        ``runs``, ``by_trunk`` (whether these are trunk states alone), ``train_flops``, ``parameters``,
        ``samples_seen``, ``epochs``, ``error`` with ``low`` and ``high``; ``probability``; ``runner_up``
        (text), ``runner_up_error``; ``gap`` with ``gap_low`` and ``gap_high``; ``verdict`` (of
        ``belief.verdict``, or ``beaten``: a cheaper trial is lower) with the leader's ``distance``,
        ``tied`` (texts of the members, joined by "; "), ``reason``. Errors are fractions.
    """
    cost = costs(draws.cells)
    rows = []
    for budget, flops, family in _budgets(draws, cost):
        choice = Choice(draws, family, flops)
        row = {"regime": family.regime, "budget": budget, "flops": flops}
        row |= {"at": _at(family.regime, flops, named=draws.mixed)} | choice.columns()
        rows.append(row | _beaten(draws, row, choice))
    return pd.DataFrame(rows)


def turns(best: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the rows at which the leader changes, and the number of other rows in words.

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
    rows = best[changes | last | (best["regime"] == "fixed-compute")]
    left = len(best) - len(rows)
    rest = f"{plural(left, 'more budget')} with the same leaders" if left else ""
    return rows, rest


def _budgets(draws: CellDraws, cost: Floats) -> Iterator[tuple[float, float, Family]]:
    """Yield the budget, the compute and the family of each question."""
    error = draws.column("error")
    for (regime,), inside in draws.groups(["regime"]):
        family, budget = draws.families[str(regime)], draws.column("budget")[inside]
        if regime == "fixed-compute":
            yield from ((level, level, family) for level in np.unique(family.levels[family.ran]).tolist())
            continue
        frontier = np.flatnonzero(undominated(cost[inside], error[inside][None, :])[0])
        for place in frontier[np.argsort(cost[inside][frontier], kind="stable")]:
            yield float(budget[place]), float(cost[inside][place]), family


def unranked(draws: CellDraws) -> list[str]:
    """Return the budgets at which each configuration that ran lost runs, with what they lost."""
    ran = set(zip(draws.cells["regime"], draws.cells["budget"], strict=True))
    by_budget = dict[str, list[dict[str, Any]]]()
    for cell in records(draws.lost):
        if (cell["regime"], cell["budget"]) not in ran:
            by_budget.setdefault(budget_text(cell["regime"], cell["budget"]), []).append(cell)
    return [
        f"{at}: nothing can be ranked: "
        + apart_text(list(map(configuration_text, cells)), [cell["lost"] for cell in cells])
        for at, cells in by_budget.items()
    ]


class Choice:
    """The verdict among the configurations of a family at a compute, and the cells that it rests on.

    Without draws the configurations measured there are compared by their errors.
    """

    def __init__(self, draws: CellDraws, family: Family, flops: float) -> None:
        cells = draws.cells[(draws.cells["regime"] == family.regime).to_numpy(bool)]
        self.family, self.flops = family, flops
        self._cells = {(int(row["curve"]), int(row["point"])): row for row in records(cells)}
        values, self.place = family.at(flops)
        lost = np.array(family.apart(flops, self.place))
        ran = (family.runs(self.place) > 0) | (lost != "")
        options = np.flatnonzero(np.isfinite(values).all(axis=0) if draws.known else ran)
        self.options = options
        self.errors = values[:, options] if draws.known else np.empty((0, len(options)))
        self.names = [family.names[curve] for curve in options.tolist()]
        verdict = judge(
            self.errors, self.names, distance=family.distance(flops)[options],
            lost=lost[options].tolist(), measured=np.array(list(map(self._error, options.tolist()))),
            unit=draws.error_unit, confidence=draws.confidence,
        )  # fmt: skip
        ran = family.runs(self.place)[options[[*verdict.members]]].all()
        refused = "" if ran or not family.unlearned else f"; {family.unlearned}"
        self.verdict: Verdict = replace(verdict, reason=f"{verdict.reason}{refused}")

    def _error(self, curve: int) -> float:
        cell = self._cells.get((curve, int(self.place[curve])))
        return np.inf if cell is None else float(cell["error"])

    def configuration(self, option: int) -> dict[str, Any]:
        """Return an option's columns of ``CONFIGURATION``, and those of its cell or of what one would be."""
        curve = int(self.options[option])
        cell = self._cells.get((curve, int(self.place[curve])))
        if cell is not None:
            return {name: cell[name] for name in (*CONFIGURATION, *_SHOWN)}
        one, per_sample = self.family.measured.curves, float(self.family.measured.curves.per_sample[curve])
        row = records(self.family.configurations.iloc[[curve]])[0]
        samples = self.flops / per_sample
        sizes = [cell["parameters"] for key, cell in self._cells.items() if key[0] == curve]
        pairs = row["subset_size"] if np.isfinite(one.pairs[curve]) else samples
        return {name: row[name] for name in CONFIGURATION} | {
            "subset_size": pairs, "runs": 0, "train_flops": self.flops, "samples_seen": samples,
            "parameters": sizes[0] if sizes else np.nan, "epochs": samples / pairs,
        }  # fmt: skip

    def columns(self) -> dict[str, Any]:
        """Return the verdict as columns."""
        verdict = self.verdict
        leaders = verdict.members if verdict.kind == "tie" else (verdict.leader,)
        runs = self.family.runs(self.place)[self.options]
        return {
            "configurations": len(self.options), "measured": int((runs > 0).sum()),
            "leaders": tuple(
                {name: row[name] for name in CONFIGURATION} for row in map(self.configuration, leaders)
            ),
            **self.configuration(verdict.leader),
            "runs": int(runs[verdict.leader]),
            "by_trunk": bool(self.family.by_trunk(self.place)[self.options[verdict.leader]]),
            **verdict.columns(self.names),
        }  # fmt: skip


def _at(regime: str, flops: float, *, named: bool) -> str:
    """Return a compute as text; outside fixed compute, where it was not declared, with three digits."""
    text = budget_text(regime, flops) if regime == "fixed-compute" else format_flops(flops, digits=3)
    return with_regime(text, regime, named=named)


def _beaten(draws: CellDraws, row: Mapping[str, Any], choice: Choice) -> dict[str, str]:
    """Return the verdict if a trial that costs less is lower than the leader; empty otherwise."""
    leader = choice.errors[:, choice.verdict.leader] if draws.known else np.array([row["error"]])
    cheaper = cheaper_text(draws, row["flops"], leader)
    reason = f"{cheaper}; at this budget: {row['reason']}"
    return {"verdict": "beaten", "tied": "", "reason": reason} if cheaper else {}


def cheaper_text(draws: CellDraws, flops: float, leader: Floats) -> str:
    """Return which cell is lower at a lower cost than a leader, of errors (draws,), empty without one."""
    cost = costs(draws.cells)
    cheaper = np.flatnonzero((cost <= flops) & ~same_cost(cost, flops))
    if not len(cheaper):
        return ""
    errors = draws.draws if draws.known else draws.column("error")[None, :]
    lower = (errors[:, cheaper] < leader[:, None]).mean(axis=0)
    place, chance = int(cheaper[lower.argmax()]), float(lower.max())
    if chance < draws.confidence:
        return ""
    cell = records(draws.cells.iloc[[place]])[0]
    return (
        f"{configuration_text(cell)} at {_at(cell['regime'], cost[place], named=draws.mixed)} has "
        f"{draws.error_unit.text(cell['error'])}, lower at a lower cost {draws_text(chance)}"
    )
