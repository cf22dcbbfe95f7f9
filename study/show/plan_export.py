"""Export of a plan as CSV, JSON or parquet: one row per trial and per left-out cell with its reason.

A row of a table names its phase: `tuning`, `check`, `grid`, also if the tuning shares a trial of the grid, or
`trunk` for a trial that ends at its milestone.
In JSON the trials of tuning and check have a list of their own.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path

import pandas as pd

from budgets.cost.flops import CONVENTION
from budgets.declaration.declaration import Declaration
from budgets.planning.plan import LeftOut, Plan
from budgets.planning.planned_trial import Cell, Trial
from budgets.planning.price import Speeds, device_hours, price_plan
from budgets.planning.tuning_plan import TuningPlan
from budgets.quantity import finite_or_none
from runners.results import (
    PHASE,
    PLAN_COLUMNS,
    csv_text,
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
_EXACT = ("level_flops", "train_flops", "paid_flops", "evaluation_flops")
"""FLOPs of a whole trial: whole numbers that may be too large for 64 bits."""


def plan_csv(declaration: Declaration, plan: Plan, speeds: Speeds) -> str:
    """Return a CSV file; ``trial`` is empty for a left-out cell, ``reason`` for a trial."""
    return csv_text(_plan_frame(declaration, plan, speeds))


def plan_parquet(declaration: Declaration, plan: Plan, path: Path, speeds: Speeds) -> None:
    """Write a parquet file with the columns of the CSV and the FLOP convention in its metadata."""
    write_table(path, _plan_frame(declaration, plan, speeds).astype(dict.fromkeys(_EXACT, "float64")))


def _plan_frame(declaration: Declaration, plan: Plan, speeds: Speeds) -> pd.DataFrame:
    kinds = {name: kind for name, kind in PLAN_COLUMNS.items() if name != "predicted_s"}
    kinds |= {} if declaration.cluster is None else _ON_A_CLUSTER
    # A left-out cell has no samples: whole numbers that may be absent are pandas' own Int64.
    kinds = {name: kind.replace("int64", "Int64") for name, kind in kinds.items()}
    kinds |= {PHASE: "str", "reason": "str"}
    missing = {name: "" if kind == "str" else None for name, kind in kinds.items()}
    trials, left_out = _all_rows(declaration, plan, speeds), map(_left_out_row, plan.left_out)
    rows = [{**missing, **row} for row in (*trials, *left_out)]
    exact = {name: pd.Series([row[name] for row in rows], dtype="object") for name in _EXACT}
    return to_frame(rows, kinds).assign(**exact)


def plan_json(declaration: Declaration, plan: Plan, speeds: Speeds) -> str:
    """Return a JSON object: totals, price, notes, every trial and every left-out cell."""
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
        else {"cluster": asdict(cluster)} | asdict(price_plan(plan, cluster, own_speeds=speeds)),
        "tuning": None if plan.tuning is None else _tuning(plan.tuning),
        "trials": [_finite(_trial_row(trial, declaration, speeds)) for trial in plan.trials],
        "left_out": [_finite(_exact_level(left_out_row(item), item.cell)) for item in plan.left_out],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _all_rows(declaration: Declaration, plan: Plan, speeds: Speeds) -> Iterator[dict[str, object]]:
    """Yield the rows of all trials with their phase."""
    grid = {trial.trial_id for trial in plan.trials}
    tuning = set() if plan.tuning is None else {trial.trial_id for trial in plan.tuning.trials}
    for trial in plan.all_trials:
        name = trial.trial_id
        phase = "grid" if name in grid else "tuning" if name in tuning else "check"
        row = _trial_row(trial, declaration, speeds)
        yield row | {PHASE: row.get(PHASE) or phase}


def _trial_row(trial: Trial, declaration: Declaration, speeds: Speeds) -> dict[str, object]:
    exact = {name: getattr(trial, name) for name in ("train_flops", "paid_flops", "evaluation_flops")}
    row = _exact_level(plan_row(trial), trial.cell) | exact
    if declaration.cluster is not None:
        hours = device_hours(trial, declaration.cluster, speeds)
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
        {"values": dict(tuning.values[trial.trial_id])}  # noqa: PD011 - not of a frame
        | {name: value for name, value in row.items() if finite_or_none(value) is not None}
        | {"train_flops": trial.train_flops}
        for trial in (*tuning.trials, *tuning.neighbours)
        for row in [_exact_level(plan_row(trial), trial.cell)]
    ]
    return tuning_facts(tuning) | {"trials": tried}


def _finite(row: Mapping[str, object]) -> dict[str, object]:
    return {name: finite_or_none(value) for name, value in row.items()}
