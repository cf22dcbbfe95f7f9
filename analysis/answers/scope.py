"""The scope of a verdict: what was tried at a budget, what was not, and which rates were tuned.

The best configuration tried need not be the best possible. The report names untried combinations of parts
that did well: parts of the leader, of configurations tied with it, and of the best along each axis.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import product
from math import inf
from typing import Any, NamedTuple

import pandas as pd

from analysis.belief.cell_draws import CellDraws
from analysis.cells.pareto import SAME_COST
from analysis.cells.table import CONFIGURATION, records
from analysis.labels import configuration_text
from budgets.cost.architecture import Architecture, load_architecture
from budgets.cost.strategy import find_strategy
from budgets.quantity import format_flops, plural

_NAMED = 3


class _Subset(NamedTuple):
    subset_size: float
    quality: str


_Parts = tuple[str, str, _Subset]
"""Architecture, strategy and data: a purer subset is a smaller one, so size and quality change together."""


def with_scope(  # noqa: PLR0913 (the table, what it was made from, and what is known of the study)
    best: pd.DataFrame,
    draws: CellDraws,
    *,
    plan: pd.DataFrame,
    left_out: pd.DataFrame,
    rates: Mapping[tuple[str, str], float] | None,
    own: Mapping[str, Architecture],
) -> pd.DataFrame:
    """Return the table of `best_at_budgets` with the scope of each verdict.

    Planned combinations, with columns ``budget`` and ``ended``, do not count as untried. ``rates`` has, for
    each architecture and strategy with a tuned peak learning rate, the level at which another rate was found
    to be better, infinite if none was; None when unknown. ``own`` are the study's own architectures.

    Returns:
        ``best`` with ``not_run``, the untried combinations of the leaders' parts (text, may be empty), and
        ``scope``, everything in one sentence; its ``reason`` says what was planned and has no result.
    """
    if best.empty:
        return best
    rows = records(best)
    not_run = [_not_run(row, draws, plan, left_out, own) for row in rows]
    scope = [
        "; ".join(filter(None, (_tried(row), absent and f"not run: {absent}", _rates(row, draws, rates))))
        for row, absent in zip(rows, not_run, strict=True)
    ]
    return best.assign(not_run=not_run, scope=scope, reason=[_so_far(row, plan) for row in rows])


def _tried(row: Mapping[str, Any]) -> str:
    count, run = row["configurations"], row["measured"]
    if count == 1:
        return "only 1 configuration tried"
    return f"best of {plural(count, 'configuration')}{'' if run == count else f', {run} of them run here'}"


def _so_far(row: Mapping[str, Any], plan: pd.DataFrame) -> str:
    """Return the reason of a verdict, with the planned trials that have no result yet."""
    if plan.empty:
        return str(row["reason"])
    trials = _at(plan, row)
    if row["regime"] != "fixed-compute":
        trials = trials[trials["train_flops"] <= row["flops"] * SAME_COST]
    left = int((~trials["ended"].astype(bool)).sum())
    if not left:
        return str(row["reason"])
    return f"{row['reason']}; {left} of the {plural(len(trials), 'trial')} planned here without a result"


def _rates(row: Mapping[str, Any], draws: CellDraws, rates: Mapping[tuple[str, str], float] | None) -> str:
    if rates is None:
        return ""
    cells = _at(draws.cells, row)
    pairs = set(zip(cells["architecture"], cells["strategy"], strict=True))
    tuned = len(pairs & {*rates})
    if not tuned:
        return "learning rates were not tuned for each"
    few = f"{tuned} of {len(pairs)} pairs of architecture and strategy"
    text = f"learning rates were tuned for {'each' if tuned == len(pairs) else few}"
    moved = [rates[pair] for pair in pairs if rates.get(pair, inf) <= row["budget"]]
    if row["regime"] != "fixed-compute" or not moved:
        return text
    return f"{text} (at {format_flops(int(min(moved)))} another rate was better for {len(moved)} of them)"


def _not_run(
    row: Mapping[str, Any],
    draws: CellDraws,
    plan: pd.DataFrame,
    left_out: pd.DataFrame,
    custom: Mapping[str, Architecture],
) -> str:
    """Return the combinations of the leaders' parts that can be trained and were neither run nor planned."""
    leader = _parts(row["leaders"][0], row["regime"])
    run = {
        _parts(cell, row["regime"])
        for cells in (draws.cells, plan)
        if not cells.empty
        for cell in records(_at(cells, row)[[*CONFIGURATION]].drop_duplicates())
    }
    reasons = {
        _parts(cell, row["regime"]): str(cell["reason"])
        for cell in records(_at(left_out, row, level="level_flops"))
    }
    absent = [
        parts
        for parts in product(*_options(row, draws))
        if parts not in run and (parts in reasons or _can_train(parts[0], parts[1], custom))
    ]
    absent.sort(key=lambda parts: sum(one != other for one, other in zip(parts, leader, strict=True)))
    names = [
        _text(parts, row["regime"]) + (f" ({reasons[parts]})" if parts in reasons else "")
        for parts in absent[:_NAMED]
    ]
    left = len(absent) - _NAMED
    more = [f"{plural(left, 'more combination')} of parts that did well"] if left > 0 else []
    return "; ".join([*names, *more])


def _can_train(name: str, strategy: str, custom: Mapping[str, Architecture]) -> bool:
    """Return whether a strategy can train an architecture; also True for names that this project lacks."""
    try:
        trained = find_strategy(strategy)  # first, since it is quicker to say that there is none
        return trained.inapplicable(custom[name] if name in custom else load_architecture(name)) is None
    except ValueError:
        return True


def _options(row: Mapping[str, Any], draws: CellDraws) -> tuple[Collection[Any], ...]:
    """Return the parts that did well at a budget, the leader's first: architectures, strategies, data.

    They are those of the leaders, and along each axis that of the lowest of the cells that differ along it
    alone, of the most such cells.
    """
    good = [_parts(cell, row["regime"]) for cell in row["leaders"]]
    options: list[dict[Any, None]] = [dict.fromkeys(values) for values in zip(*good, strict=True)]
    cells = [(cell["error"], _parts(cell, row["regime"])) for cell in records(_at(draws.cells, row))]
    for place in range(len(options)):
        groups = defaultdict[tuple[Any, ...], dict[Any, float]](dict)
        for error, parts in cells:
            of_part = groups[parts[:place] + parts[place + 1 :]]
            of_part[parts[place]] = min(error, of_part.get(parts[place], inf))
        most = max(groups.values(), key=len, default={})
        if len(most) > 1:
            options[place][min(most, key=lambda part: most[part])] = None
    return tuple(options)


def _parts(cell: Mapping[str, Any], regime: str) -> _Parts:
    # In one epoch compute determines the number of pairs, so it is not part of the choice.
    size = 0.0 if regime == "one-epoch" else float(cell["subset_size"])
    return str(cell["architecture"]), str(cell["strategy"]), _Subset(size, str(cell["quality"]))


def _at(cells: pd.DataFrame, row: Mapping[str, Any], *, level: str = "budget") -> pd.DataFrame:
    """Return the rows of a frame at a row's budget; outside fixed compute, at any budget."""
    if cells.empty:
        return cells
    fixed = row["regime"] == "fixed-compute"
    same = (cells["regime"] == row["regime"]) & ((cells[level] == row["budget"]) | (not fixed))
    rows: pd.DataFrame = cells[same]
    return rows


def _text(parts: _Parts, regime: str) -> str:
    architecture, strategy, data = parts
    cell = {"architecture": architecture, "strategy": strategy} | data._asdict()
    return configuration_text(cell, without="subset_size" if regime == "one-epoch" else "")
