"""The adaptive design of a study: its questions, the trials that it chose, and its answers so far."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells.table import tidy
from analysis.design.adaptive import Decision, decide, rehearse
from analysis.design.course import CHOSEN, decisions
from analysis.design.questions import Ask
from analysis.error_unit import PERCENT
from budgets.declaration.declaration import Declaration
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_flops, plural
from runners.results import RESULT_COLUMNS, plan_row, to_frame
from study.state.bookkeeping import trials_of_event

ALL_SLOTS = 10**9
_REHEARSALS = 8
_MOST_REHEARSED = 2000  # trials of all rehearsals together


def questions(declaration: Declaration) -> Ask:
    """Return the questions of an adaptive study."""
    design = declaration.design
    # For `Ask`, an empty tuple means every level, and None no level.
    best = design.best or (None if design.forecast else ())
    return Ask(
        best=best, indifference=design.indifference, forecast=design.forecast, width=design.width,
        confidence=design.confidence,
    )  # fmt: skip


def choices_of(trials: tuple[Trial, ...]) -> pd.DataFrame:
    """Return trials as the grid from which a decision chooses."""
    return pd.DataFrame([plan_row(trial) for trial in trials]).astype({"level_flops": np.float64})


def first_round(declaration: Declaration, plan: Plan) -> Decision:
    """Return the trials that an adaptive study starts with."""
    nothing = tidy(to_frame([], RESULT_COLUMNS), metric=declaration.metric)
    return decide(
        nothing, choices_of(plan.trials), ask=questions(declaration), slots=ALL_SLOTS, room_flops=_room(plan)
    )


def rehearsed(declaration: Declaration, plan: Plan) -> NDArray[np.float64]:
    """Return the FLOPs that an adaptive study spends in rehearsals; empty for a grid too large for them."""
    repeats = min(_REHEARSALS, _MOST_REHEARSED // max(1, len(plan.trials)))
    return _before(plan) + rehearse(
        choices_of(plan.trials), metric=declaration.metric, ask=questions(declaration), repeats=repeats,
        room_flops=_room(plan),
    )  # fmt: skip


def _before(plan: Plan) -> int:
    """Return the training FLOPs of charges and tuning."""
    return plan.train_flops - sum(trial.paid_flops for trial in plan.trials)


def _room(plan: Plan) -> int | None:
    """Return the training FLOPs that the study budget leaves to the grid; None without a budget."""
    return None if plan.study_flops is None else plan.study_flops - _before(plan)


def not_chosen(declaration: Declaration, folder: Path, plan: pd.DataFrame) -> pd.Series:
    """Return a mask of the plan's trials that an adaptive design has not chosen so far; shape (trials,)."""
    if not declaration.design.adaptive:
        return pd.Series(data=False, index=plan.index)
    begun = (path.name for path in (folder / "trials").glob("*"))
    return ~plan["trial"].isin({*trials_of_event(folder, CHOSEN), *begun})


def _verdict(answer: Mapping[str, Any]) -> str:
    if answer["verdict"] == "clear":
        return "clear"
    tied = len(answer["tied"])
    return f"tie of {tied}" if tied > 1 else "not run there yet"


def answer_lines(events: pd.DataFrame, left: pd.DataFrame) -> list[str]:
    """Return the answers of the last decision, and the trials that were not chosen, in words."""
    lines, last = [], decisions(events)[-1:]
    for answer in (answer for decision in last for answer in decision["answers"]):
        state = "answered" if answer["settled"] else "open"
        if answer["kind"] == "forecast":
            state += f": {PERCENT.named(answer['error'])} {PERCENT.interval(answer['low'], answer['high'])}"
        lines.append(
            f"{answer['kind']} at {format_flops(answer['flops'])}: {state}: {answer['leader']}, "
            f"best with probability {100 * answer['probability']:.0f} %, {_verdict(answer)}"
        )
    lines.extend(f"the design stopped: {decision['stop']}" for decision in last if decision["stop"])
    if len(left):
        flops = format_flops(int(left["paid_flops"].sum()))
        lines.append(f"not chosen: {plural(len(left), 'trial')}, {flops}")
    return lines
