"""Options along one part of the configuration, with the other parts fixed: which has the lowest error?

Quality is compared in two ways. At an equal number of pairs: is purer data better? Within one pool
(``analysis.belief.curves.compared``): how much of it should be kept? The second way is the quality trade.

An option that was planned and not run yet takes part by its draws (``analysis.belief``), and each comparison
lists the runs that it lacks. ``crossing`` follows the options over compute or data.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.arrays import Indices
from analysis.belief import curves
from analysis.belief.cell_draws import CellDraws
from analysis.belief.verdict import Verdict, judge
from analysis.cells.pareto import costs, undominated
from analysis.cells.table import CELL, CONFIGURATION, records
from analysis.labels import POOL, axis_text, fixed_factors_text, sort_key
from budgets.quantity import plural

Lacking = dict[Any, tuple[int, int]]


def compared(draws: CellDraws, axis: str) -> Iterator[tuple[dict[str, Any], Indices]]:
    """Yield each group of at least two cells that differ along an axis alone, at one budget.

    Yields:
        The columns of ``CELL`` that they share (`curves.compared`), and their positions in the order of the
        axis.
    """
    values = draws.cells[axis].to_numpy()
    for held, positions in curves.compared(draws.cells, axis):
        if len(positions) > 1:
            ordered = sorted(positions, key=lambda position: sort_key(axis, values[position]))
            yield held, np.asarray(ordered, dtype=np.intp)


def decide(drawn: CellDraws, axis: str, held: Mapping[str, Any]) -> Verdict:
    """Return the verdict on some cells along an axis, with those of the same fixed parts that lost runs."""
    same = [(drawn.lost[name] == value).to_numpy(bool) for name, value in held.items() if value != POOL]
    gone = drawn.lost[np.logical_and.reduce(same) & ~drawn.lost[axis].isin(drawn.cells[axis]).to_numpy(bool)]
    drawn = drawn.beside(gone.sort_values("subset_size").drop_duplicates(axis, keep="last"))
    return judge(
        drawn.draws, [axis_text(axis, value) for value in drawn.cells[axis]],
        distance=np.where(drawn.column("runs") > 0, 1.0, np.inf), lost=drawn.cells["lost"].tolist(),
        measured=drawn.column("error"), unit=drawn.error_unit, confidence=drawn.confidence,
    )  # fmt: skip


def _lacking(plan: pd.DataFrame, axis: str) -> dict[tuple[Any, ...], Lacking]:
    """Return the missing runs of each planned comparison along an axis, a column of ``CONFIGURATION``.

    Returns:
        Values of ``CELL``, with None for the axis → value along the axis → runs that have not ended, and all
        runs.
    """
    if plan.empty:
        return {}
    counts = plan.groupby([*CELL], as_index=False)["ended"].agg(["sum", "size"])
    return {
        _key(held): {
            side[axis]: (side["size"] - side["sum"], side["size"]) for side in records(counts.iloc[places])
        }
        for held, places in curves.compared(counts, axis)
        if len(places) > 1
    }


def _key(held: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(held.get(name) for name in CELL)


def _lacking_text(lacks: Lacking, axis: str) -> str:
    left, runs = (sum(counts[place] for counts in lacks.values()) for place in (0, 1))
    if not left:
        return ""
    whole = [value for value, (missing, of) in lacks.items() if missing == of]
    names = [axis_text(axis, value) for value in sorted(whole, key=lambda value: sort_key(axis, value))]
    named = f"not run: {', '.join(names)}; " if whole else ""
    return f"{named}{left} of {plural(runs, 'run')} missing"


def contrasts(draws: CellDraws, plan: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return every comparison along every axis in which two options have run.

    Without a plan (of ``table.with_budgets``) no runs count as missing.

    Returns:
        One row per comparison: ``axis``, ``regime``, ``budget``, ``held`` (text), ``values`` (texts along the
        axis), ``best`` (text), the columns of ``Verdict``, and ``lacking`` (planned runs without a result,
        and values that lost runs, as text).
    """
    rows = []
    plan = pd.DataFrame() if plan is None else plan
    # Without draws a cell that has not run is not known at all.
    waiting = (
        plan if plan.empty or not draws.known else plan[~plan.groupby([*CELL])["ended"].transform("any")]
    )
    every = draws if waiting.empty else draws.beside(waiting[["trial", *CELL]].drop_duplicates([*CELL]))
    for axis in CONFIGURATION:
        planned = _lacking(plan, axis)
        for held, positions in compared(every, axis):
            options = every.take(positions)
            if (options.column("runs") > 0).sum() <= 1:
                continue
            names = [axis_text(axis, value) for value in options.cells[axis]]
            lacks = _lacking_text(planned.get(_key(held), {}), axis)
            verdict = decide(options, axis, held)
            row = {
                "axis": axis, "regime": held["regime"], "budget": held["budget"],
                "held": fixed_factors_text(held), "values": " · ".join(names), "best": names[verdict.leader],
            } | verdict.columns(names)  # fmt: skip
            apart = verdict.apart and f"not ranked: {verdict.apart}"
            rows.append(row | {"lacking": "; ".join(filter(None, (lacks, apart)))})
    return pd.DataFrame(rows)


def pareto(draws: CellDraws) -> pd.DataFrame:
    """Return the cells that no other beats at equal or lower cost, by regime and rising compute.

    Returns:
        The columns of ``CellDraws.cells``, and ``probability`` of being on the frontier, NaN without draws.
    """
    frontiers = []
    for _, places in draws.groups(["regime"]):
        of_regime = draws.take(places)
        on_frontier = undominated(costs(of_regime.cells), of_regime.with_measured())
        share = on_frontier[1:].mean(axis=0) if of_regime.known else np.full(len(places), np.nan)
        frontiers.append(of_regime.cells.assign(probability=share)[on_frontier[0]].sort_values("train_flops"))
    return pd.concat(frontiers, ignore_index=True) if frontiers else pd.DataFrame()
