"""The adaptive design of a study: its questions, the trials that it chose, and its answers so far."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.answers.answer_text import answer_line, reason_lines
from analysis.belief.law import VERSION
from analysis.cells.study_frames import as_planned
from analysis.cells.table import Trials, first_attempts, tidy
from analysis.design.adaptive import Decision, decide, rehearse
from analysis.design.course import CHOSEN, decisions
from analysis.design.questions import Answer, Ask, answers_to
from analysis.error_unit import ErrorUnit
from budgets.cost.architecture import own_architectures
from budgets.declaration.declaration import Declaration
from budgets.planning.plan import AGAIN, Plan
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_flops, format_share, plural
from runners.results import RESULT_COLUMNS, plan_row, to_frame
from runners.store.files import matching, read_sealed, write_sealed
from study.state.events import trials_of_event
from study.state.study import Study

ALL_SLOTS = 10**9
_ANSWERS = "answers.json"
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


def declared_confidence(declaration: Declaration) -> float | None:
    """Return the probability at which an adaptive study's verdicts are clear; None for another study."""
    return declaration.design.confidence if declaration.design.adaptive else None


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
    begun = (path.name for path in matching(folder / "trials", "*"))
    chosen = {*trials_of_event(folder, CHOSEN), *trials_of_event(folder, AGAIN), *begun}
    return ~plan["trial"].isin(chosen)


def trials_of(declaration: Declaration, results: pd.DataFrame, grid: pd.DataFrame) -> Trials:
    """Return the trials with a result, of which a design decides and status and answers tell."""
    architectures = own_architectures(declaration.catalogue)
    return tidy(as_planned(results, grid), metric=declaration.metric, own=architectures)


def trials_so_far(study: Study, grid: pd.DataFrame) -> Trials | None:
    """Return the trials with a result so far; None before the first."""
    if not study.has(["results.parquet"]):
        return None
    return trials_of(study.declaration, study.read_table("results.parquet"), grid)


def answers(study: Study, grid: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the answers to the questions of a design from the results so far, see `Answer`.

    They are kept beside the results, ``answers.json``, with the digest of what they were read from: the same
    results are not weighed twice, and results that changed since are.
    """
    grid, ask = first_attempts(grid), questions(study.declaration)
    if (trials := trials_so_far(study, grid)) is None:
        return []
    values = pd.concat([trials.every, trials.lost])[["trial", "error"]].sort_values("trial")
    read = [VERSION, sorted(Answer.__slots__), asdict(ask), sorted(grid["trial"]), values.to_numpy().tolist()]
    digest, file = sha256(json.dumps(read).encode()).hexdigest(), study.folder / _ANSWERS
    with suppress(OSError, ValueError):
        known = read_sealed(file, "it is rewritten")
        if known["of"] == digest:
            return list(known["answers"])
    computed = [asdict(one) for one in answers_to(trials, grid, ask)] if len(values) else []
    with suppress(OSError):  # of a study that may only be read
        write_sealed(file, {"of": digest, "answers": computed}, sync=False)
    return computed


def question_lines(rows: Iterable[Mapping[str, Any]], unit: ErrorUnit, *, why: bool = False) -> list[str]:
    """Return the answers so far in words, if asked with the reasons of each."""
    lines = []
    for answer in rows:
        at = format_flops(answer["flops"])
        if isnan(answer["error"]):
            lines.append(f"{at}: {answer['leader']}: {answer['apart']}")
            continue
        lines.append(answer_line(at, answer["leader"], answer, unit, tied=len(answer["tied"])))
        lines += [f"  {answer['unlearned']}"] if answer["unlearned"] else []
        if why:
            state = "answered" if answer["settled"] else "open"
            odds = f"{state}: best with probability {format_share(answer['probability'])}"
            dropped = (
                f"dropped: {name} ({format_share(chance, 1)} to be the best)"
                for name, chance in zip(answer["dropped"], answer["returns"], strict=True)
            )
            apart = answer["apart"] and f"not ranked: {answer['apart']}"
            lines += reason_lines(answer, odds, *dropped, apart, tied=answer["tied"])
    return lines


def design_lines(events: pd.DataFrame, left: pd.DataFrame) -> list[str]:
    """Return why the design stopped, and the trials that were not chosen, in words."""
    lines = [f"the design stopped: {last['stop']}" for last in decisions(events)[-1:] if last["stop"]]
    if len(left):
        flops = format_flops(int(left["paid_flops"].sum()))
        lines.append(f"not chosen: {plural(len(left), 'trial')}, {flops}")
    return lines
