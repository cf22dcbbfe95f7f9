"""The adaptive design of a study, as its events record it: chosen trials, and the answers so far."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells.table import tidy
from analysis.design.adaptive import Decision, decide
from analysis.design.course import CHOSEN, COURSE, last_answers
from analysis.design.questions import Ask
from analysis.design.rehearsal import rehearse
from analysis.labels import percent
from budgets.declaration.declaration import Declaration
from budgets.planning.plan import Plan, Trial
from budgets.quantity import format_flops
from runners.results import RESULT_COLUMNS, plan_row, read_json_lines, to_frame

ALL_SLOTS = 10**9
_REHEARSALS = 8
_MOST_REHEARSED = 2000  # trials of all rehearsals together


def asked(declaration: Declaration) -> Ask:
    """Return the questions of an adaptive study."""
    design = declaration.design
    return Ask(
        best=design.best, indifference=design.indifference, forecast=design.forecast, width=design.width,
        confidence=design.confidence,
    )  # fmt: skip


def choices_of(trials: tuple[Trial, ...]) -> pd.DataFrame:
    """Return trials as the grid of a decision."""
    return pd.DataFrame([plan_row(trial) for trial in trials]).astype({"level_flops": np.float64})


def first_round(declaration: Declaration, plan: Plan) -> Decision:
    """Return the trials that an adaptive study starts with."""
    nothing = tidy(to_frame([], RESULT_COLUMNS), metric=declaration.metric)
    return decide(nothing, choices_of(plan.trials), ask=asked(declaration), slots=ALL_SLOTS)


def rehearsed(declaration: Declaration, plan: Plan) -> NDArray[np.float64]:
    """Return the FLOPs that an adaptive study spends in rehearsals; empty for a grid too large for them."""
    repeats = min(_REHEARSALS, _MOST_REHEARSED // max(1, len(plan.trials)))
    before = plan.train_flops - sum(trial.paid_flops for trial in plan.trials)  # charges and tuning
    room = None if plan.study_flops is None else float(plan.study_flops - before)
    return before + rehearse(
        choices_of(plan.trials), metric=declaration.metric, ask=asked(declaration), repeats=repeats,
        room_flops=room,
    )  # fmt: skip


def chosen_trials(folder: Path) -> set[str]:
    """Return the trials that the runs of a study chose."""
    events = read_json_lines(folder / "events.jsonl")
    return set() if events.empty else set(events.loc[events["event"] == CHOSEN, "trial"].astype(str))


def not_chosen(declaration: Declaration, folder: Path, plan: pd.DataFrame) -> pd.Series:
    """Return for each row of a plan whether an adaptive design has not chosen it so far; shape (trials,)."""
    if not declaration.design.adaptive:
        return pd.Series(data=False, index=plan.index)
    begun = {path.name for path in (folder / "trials").glob("*")}
    return ~plan["trial"].isin(chosen_trials(folder) | begun)


def course(decision: Decision, spent_flops: int, grid_flops: int) -> dict[str, Any]:
    """Return a decision as the facts of an event ``COURSE``."""
    answers = [asdict(answer) for answer in decision.answers]
    return {
        "spent_flops": spent_flops, "grid_flops": grid_flops, "answers": answers, "stop": decision.stop
    }  # fmt: skip


def answer_lines(events: pd.DataFrame, left: pd.DataFrame) -> list[str]:
    """Return the answers of the last decision, and the trials that were not chosen, in words."""
    lines = []
    for one in last_answers(events):
        what = f"best at {format_flops(one['flops'])}"
        if one["kind"] == "forecast":
            what = f"forecast at {format_flops(one['flops'])}"
        state = "answered" if one["settled"] else "open"
        lines.append(
            f"{what}: {state}: {one['leader']}, best with probability {percent(one['probability'], 0)} %, "
            f"{one['verdict']}" + (f" of {len(one['tied'])}" if one["verdict"] == "tie" else "")
        )
    if lines and (stop := events.loc[events["event"] == COURSE, "stop"].iloc[-1]):
        lines.append(f"the design stopped: {stop}")
    if len(left):
        lines.append(f"not chosen: {len(left):,} trials, {format_flops(int(left['paid_flops'].sum()))}")
    return lines
