"""A plan as a table in the terminal."""

from collections.abc import Iterator

import pandas as pd
from rich.console import Console
from rich.table import Table

from budgets.declaration import Declaration
from budgets.plan import Plan
from budgets.quantity import format_flops, format_seconds

_TEXT_COLUMNS = ("architecture", "strategy", "quality", "seeds")
_CELL = ["regime", "level_flops", "architecture", "strategy", "subset_size", "quality"]


def show_plan(
    console: Console, declaration: Declaration, plan: Plan, planned: pd.DataFrame, left_out: pd.DataFrame
) -> None:
    """Writes the plan's cells, what was left out, and the totals against the budget.

    Args:
        console: Where to write.
        declaration: The study.
        plan: Its plan.
        planned: The plan's trials as a table (`runners.results.PLAN_COLUMNS`).
        left_out: The left-out cells as a table (`runners.results.LEFT_OUT_COLUMNS`).
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    cells = [_cell(rows) for _, rows in planned.groupby(_CELL, sort=False, dropna=False)]
    for name in cells[0]:
        table.add_column(name, justify="left" if name in _TEXT_COLUMNS else "right", no_wrap=True)
    for cell in cells:
        table.add_row(*cell.values())
    console.print(table)
    for line in (*_left_out(left_out), *_totals(declaration, plan, planned)):
        console.print(line, highlight=False, markup=False)


def _cell(trials: pd.DataFrame) -> dict[str, str]:
    """One cell as a row of the table, from its trials (they differ in the seed alone)."""
    first = trials.iloc[0]
    return {
        "level": first["regime"] if pd.isna(first["level_flops"]) else format_flops(first["level_flops"]),
        "architecture": first["architecture"],
        "strategy": first["strategy"],
        "pairs": f"{first['subset_size']:,}",
        "quality": first["quality"],
        "seeds": " ".join(map(str, trials["seed"])),
        "batch": f"{first['batch_size']:,}",
        "samples": f"{first['samples_seen']:,}",
        "epochs": f"{first['epochs']:.2f}",
        "steps": f"{first['steps']:,}",
        "MFLOP/sample": f"{first['train_flops_per_sample'] / 1e6:.2f}",
        "FLOPs a trial": format_flops(first["train_flops"]),
        "time": format_seconds(first["predicted_s"]),
    }


def _left_out(left_out: pd.DataFrame) -> Iterator[str]:
    for row in left_out.to_dict("records"):
        level = "" if pd.isna(row["level_flops"]) else f" at {format_flops(row['level_flops'])}"
        cell = f"{row['architecture']} {row['strategy']} on {row['subset_size']:,} pairs ({row['quality']}){level}"
        yield f"left out: {cell}: {row['reason']}"


def _totals(declaration: Declaration, plan: Plan, planned: pd.DataFrame) -> Iterator[str]:
    for charge in plan.charges:
        yield f"charged once: {format_flops(charge.train_flops)} for the quality score ({charge.what})"
    total = f"{len(plan.trials)} trials, {format_flops(plan.train_flops)} of training in all"
    if plan.study_flops is None:
        yield f"{declaration.name}: {total}; no study budget"
    else:
        left = format_flops(plan.study_flops - plan.train_flops)
        yield f"{declaration.name}: {total}; study budget {format_flops(plan.study_flops)}, {left} left"
    yield (
        f"evaluation, beside the budget: {format_flops(plan.evaluation_flops)}; "
        f"about {format_seconds(planned['predicted_s'].sum())} of one slot"
    )
    yield "FLOPs are 3 x 2 x forward multiply-adds of all that a sample passes through (budgets/flops.py)"
