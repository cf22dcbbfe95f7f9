"""Export of a plan as CSV, JSON or parquet: one row per trial and per left-out cell with its reason.

A row of a table names its phase: `tuning`, `check`, `grid`, also if the tuning shares a trial of the grid, or
`trunk` for a trial that ends at its milestone.
In JSON the trials of tuning and check have a list of their own.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path

from budgets.cost.flops import CONVENTION
from budgets.declaration.declaration import Declaration
from budgets.names import neutral_cell
from budgets.planning.plan import LeftOut, Plan
from budgets.planning.planned_trial import Cell, Trial
from budgets.planning.price import Speeds, device_hours, price_plan
from budgets.planning.tuning_plan import TuningPlan
from budgets.quantity import finite_or_none
from runners.results import (
    LEFT_OUT_COLUMNS,
    PHASE,
    PLAN_COLUMNS,
    left_out_row,
    plan_row,
    score_rows,
    to_frame,
    write_table,
)
from study.show.plan_view import PLAN_AXES
from study.state.study_facts import counted_models
from study.state.tuning_table import tuning_facts

_ON_A_CLUSTER = {
    **dict.fromkeys(("device_hours_low", "device_hours_high"), "float64"),
    **dict.fromkeys(("gpus", "nodes", "cpus", "accumulation", "gradient_checkpointing"), "int64"),
}
_TRIAL_COLUMNS = [name for name in PLAN_COLUMNS if name != "predicted_s"]


def plan_csv(declaration: Declaration, plan: Plan, own: Speeds) -> Iterator[str]:
    """Yield the lines of a CSV file; ``trial`` is empty for a left-out cell, ``reason`` for a trial."""
    on_a_cluster = _ON_A_CLUSTER if declaration.cluster is not None else ()
    columns = [*_TRIAL_COLUMNS, *on_a_cluster, "phase", "reason"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in (*_all_rows(declaration, plan, own), *map(_left_out_row, plan.left_out)):
        writer.writerow({name: neutral_cell(finite_or_none(value)) for name, value in row.items()})
    yield from text.getvalue().splitlines()


def plan_json(declaration: Declaration, plan: Plan, own: Speeds) -> Iterator[str]:
    """Yield the lines of a JSON object: totals, price, notes, every trial and every left-out cell."""
    cluster = declaration.cluster
    content = {
        "study": declaration.name,
        "convention": CONVENTION,
        "levels": list(plan.levels),
        "study_flops": plan.study_flops,
        "train_flops": plan.train_flops,
        "most_flops": plan.most_flops,  # less than all trials cost if a design stops at the study budget
        "evaluation_flops": plan.evaluation_flops,
        "train_flops_by": {axis: plan.train_flops_by(attrgetter(axis)) for axis in PLAN_AXES},
        "charges": [asdict(charge) for charge in plan.charges],
        "scores": list(score_rows(plan)),
        "notes": list(plan.warnings),
        "measured_by_torch": counted_models(declaration),
        "price": None
        if cluster is None
        else {"cluster": asdict(cluster)} | asdict(price_plan(plan, cluster, own_speeds=own)),
        "tuning": None if plan.tuning is None else _tuning(plan.tuning),
        "trials": [_finite(_trial_row(trial, declaration, own)) for trial in plan.trials],
        "left_out": [_finite(_exact_level(left_out_row(item), item.cell)) for item in plan.left_out],
    }
    yield from json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).splitlines()


def plan_parquet(declaration: Declaration, plan: Plan, path: Path, own: Speeds) -> None:
    """Write a parquet file with the columns of the CSV and the FLOP convention in its metadata."""
    columns = {name: PLAN_COLUMNS[name] for name in _TRIAL_COLUMNS}
    if declaration.cluster is not None:
        columns |= _ON_A_CLUSTER
    # A left-out cell has no samples: whole numbers that may be absent are pandas' own Int64.
    optional = {name: kind.replace("int64", "Int64") for name, kind in columns.items()}
    rows = [{"reason": "", **row} for row in _all_rows(declaration, plan, own)]
    missing = {
        name: None if kind == "Int64" else "" if kind == "str" else math.nan
        for name, kind in optional.items()
        if name not in LEFT_OUT_COLUMNS
    }
    rows += [missing | _left_out_row(item) for item in plan.left_out]
    write_table(path, to_frame(rows, optional | {"phase": "str", "reason": "str"}))


def _all_rows(declaration: Declaration, plan: Plan, own: Speeds) -> Iterator[dict[str, object]]:
    """Yield the rows of all trials with their phase."""
    grid = {trial.trial_id for trial in plan.trials}
    tuning = set() if plan.tuning is None else {trial.trial_id for trial in plan.tuning.trials}
    for trial in plan.all_trials:
        name = trial.trial_id
        phase = "grid" if name in grid else "tuning" if name in tuning else "check"
        row = _trial_row(trial, declaration, own)
        yield row | {PHASE: row.get(PHASE) or phase}


def _trial_row(trial: Trial, declaration: Declaration, own: Speeds) -> dict[str, object]:
    exact = {name: getattr(trial, name) for name in ("train_flops", "paid_flops", "evaluation_flops")}
    row = _exact_level(plan_row(trial), trial.cell) | exact
    if declaration.cluster is not None:
        hours = device_hours(trial, declaration.cluster, own)
        row |= {
            "device_hours_low": hours.low,
            "device_hours_high": hours.high,
            **{name: getattr(trial.resources, name) for name in ("gpus", "nodes", "cpus")},
            "accumulation": trial.recipe.accumulation,
            "gradient_checkpointing": int(trial.recipe.gradient_checkpointing),
        }
    return row


def _left_out_row(item: LeftOut) -> dict[str, object]:
    return _exact_level(left_out_row(item), item.cell) | {"phase": "grid"}


def _exact_level(row: dict[str, object], cell: Cell) -> dict[str, object]:
    """Return the row of a cell with its level as the declared whole number."""
    return row if cell.level_flops is None else row | {"level_flops": cell.level_flops}


def _tuning(tuning: TuningPlan) -> dict[str, object]:
    tried = [
        {"values": dict(tuning.values[trial.trial_id])}
        | {name: value for name, value in row.items() if finite_or_none(value) is not None}
        | {"train_flops": trial.train_flops}
        for trial in (*tuning.trials, *tuning.neighbours)
        for row in [_exact_level(plan_row(trial), trial.cell)]
    ]
    return tuning_facts(tuning) | {"trials": tried}


def _finite(row: Mapping[str, object]) -> dict[str, object]:
    return {name: finite_or_none(value) for name, value in row.items()}
