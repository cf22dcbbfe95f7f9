"""A plan as a table in the terminal."""

import pandas as pd
from rich.console import Console
from rich.table import Table

from budgets.declaration import Declaration
from budgets.plan import Plan
from budgets.quantity import format_count, format_flops, format_seconds

_LEFT_OUT_SHOWN = 10


def show_plan(
    console: Console, declaration: Declaration, plan: Plan, planned: pd.DataFrame, left_out: pd.DataFrame
) -> None:
    """Writes the plan's cells, what was left out, and the totals against the budget.

    Args:
        console: Where to write.
        declaration: The study.
        plan: Its plan.
        planned: The plan's trials as a table (`runners.results.PLAN_COLUMNS`).
        left_out: The left-out cells as a table.
    """
    console.print(_cells(planned))
    for reason, cells in left_out.groupby("reason", sort=False):
        console.print(f"left out, {len(cells)} cells: {reason}", highlight=False)
        for row in cells.head(_LEFT_OUT_SHOWN).itertuples():
            subset = f"{format_count(row.subset_size)} ({row.quality})"
            console.print(
                f"  {row.architecture} {row.strategy} on {subset} at {_level(row.level_flops)}",
                highlight=False,
            )
    for charge in plan.charges:
        console.print(
            f"charged once: {format_flops(charge.train_flops)} for the quality score ({charge.what})",
            highlight=False,
        )
    cap = (
        "no study budget"
        if plan.study_flops is None
        else (
            f"study budget {format_flops(plan.study_flops)}, {format_flops(plan.study_flops - plan.train_flops)} left"
        )
    )
    console.print(
        f"{declaration.name}: {len(plan.trials)} trials, {format_flops(plan.train_flops)} of training in all; {cap}\n"
        f"evaluation, beside the budget: {format_flops(plan.evaluation_flops)}; "
        f"about {format_seconds(float(planned['predicted_s'].sum()))} of one slot\n"
        "FLOPs are 3 x 2 x forward multiply-adds of all that a sample passes through (budgets/flops.py)",
        highlight=False,
    )


def _cells(planned: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, align in (
        ("level", "right"), ("architecture", "left"), ("strategy", "left"), ("pairs", "right"), ("quality", "left"),
        ("seeds", "left"), ("batch", "right"), ("samples", "right"), ("epochs", "right"), ("steps", "right"),
        ("MFLOP/sample", "right"), ("FLOPs a trial", "right"), ("time", "right"),
    ):  # fmt: skip
        table.add_column(name, justify="right" if align == "right" else "left", no_wrap=True)
    cell = ["regime", "level_flops", "architecture", "strategy", "subset_size", "quality"]
    for _, rows in planned.groupby(cell, sort=False, dropna=False):
        first = rows.iloc[0]
        level = first["regime"] if pd.isna(first["level_flops"]) else _level(float(first["level_flops"]))
        table.add_row(
            level,
            first["architecture"],
            first["strategy"],
            f"{first['subset_size']:,}",
            first["quality"],
            " ".join(map(str, rows["seed"])),
            f"{first['batch_size']:,}",
            f"{first['samples_seen']:,}",
            f"{first['epochs']:.2f}",
            f"{first['steps']:,}",
            f"{first['train_flops_per_sample'] / 1e6:.2f}",
            format_flops(float(first["train_flops"])),
            format_seconds(float(first["predicted_s"])),
        )
    return table


def _level(flops: float) -> str:
    return "no level" if pd.isna(flops) else format_flops(flops)
