"""Status of a study, read from its files during a run or afterwards."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.answers.answer_text import answer_line, reason_lines
from analysis.answers.best import best_at_budgets, turns
from analysis.answers.cost import run_time
from analysis.answers.outliers import outlier_lines, outliers
from analysis.belief.cell_draws import cell_draws
from analysis.cells.table import first_attempts, records
from analysis.error_unit import ErrorUnit
from analysis.labels import call_strategies, configuration_text
from budgets.planning.price import PendingTrial, Range, Speed, forecast, planned_range, start_s
from budgets.planning.tuning import tuning_reserves
from runners.results import PHASE, STARTS, TRUNK, read_events
from study.state.book import Book, planned_rows, read_book
from study.state.design import answers, design_lines, not_chosen, question_lines, trials_so_far
from study.state.running import (
    Level,
    Running,
    cell_of,
    count_levels,
    left_of,
    running_trials,
    speed_of,
    trial_words,
)
from study.state.study import Study
from study.state.study_facts import ranked_anew
from study.state.trial_states import Stage, TrialState, table_states, trial_states
from study.state.tuning_table import read_winners
from study.storage.lock import active_run


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A failed trial; ``what`` is its cell, tuned values and seed in words."""

    trial: str
    what: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyStatus:
    """Status of a study. FLOPs are training FLOPs (`budgets.cost.flops.CONVENTION`).

    Attributes:
        run: The active run in words; None if there is none.
        levels: Counts of trials by level and state.
        interrupted: Number of waiting trials that continue from a checkpoint.
        no_room: Number of waiting trials that cost more than is left of the study budget, or of their share
            of it.
        planned_flops: FLOPs of all planned trials.
        spent_flops: FLOPs charged, spent and wasted.
        reserved_flops: FLOPs reserved for started trials.
        wasted_flops: The part of ``spent_flops`` that is in no result: lost after the last checkpoint of a
            trial that ended early, or with a trial that failed.
        study_flops: The study budget; None if not declared.
        slots: Trials that could run at once at the last run's last event; None before the first run.
        slots_busy: Share of the last run's slot time in use, up to now or to its last event; None before the
            first run.
        left_s: Forecast of the remaining seconds; None if no trial is left.
        ranked_anew: Number of trials of the last run's plan that the next run replaces by others, because a
            score of their pool has changed.
        design: Answers of an adaptive design so far and its open questions, one per line. Trials that it has
            not chosen are not counted in ``levels``.
        found: The best at each budget so far, of a study without a design, and outliers; one per line.
        note: What the FLOPs are from if `spent.parquet` can't be used, and what they lack; else empty.
        copying: The copy of subsets that is not finished, and how far it is; empty if there is none.
    """

    study: str
    run: str | None
    levels: tuple[Level, ...]
    running: tuple[Running, ...]
    interrupted: int
    no_room: int
    failures: tuple[Failure, ...]
    planned_flops: int
    spent_flops: int
    reserved_flops: int
    wasted_flops: int
    study_flops: int | None
    slots: int | None
    slots_busy: float | None
    left_s: Range | None
    ranked_anew: int
    design: tuple[str, ...]
    found: tuple[str, ...]
    note: str
    copying: str


def read_status(study: Study, *, why: bool = False) -> StudyStatus:
    """Read the status of a study; with ``why`` the reasons follow each answer of a design.

    Raises:
        ValueError: The study has not been run, or one of its files is damaged.
    """
    folder = study.folder
    planned = planned_trials(study)
    events = read_events(folder / "events.jsonl")
    apart = (planned["part"] == "grid") & not_chosen(study.declaration, folder, planned)
    plan = planned[~apart].reset_index(drop=True)
    holder = active_run(folder)
    book = read_book(study, planned_rows(plan))
    rows: dict[str, dict[str, Any]] = {str(row["trial"]): row for row in plan.to_dict("records")}  # type: ignore[misc]
    states = trial_states(folder, rows) | _decided_tuning(folder, rows)
    running = running_trials(rows, states)
    without_room = _without_room(study, rows, states, book)
    for trial, state in states.items():  # the budget may be larger than it was in the last run
        if state.stage is Stage.LEFT_OUT and trial not in without_room:
            states[trial] = replace(state, stage=Stage.WAITING)
    waiting = {trial: state for trial, state in states.items() if state.column == "waiting"}
    ahead = {trial: row for trial, row in rows.items() if trial not in without_room}
    slots = busy = None
    starts = [] if events.empty else events.index[events["event"].isin(STARTS)].tolist()
    if starts:
        this_run = events.loc[starts[-1] :]
        slots = int(this_run["slots"].dropna().iloc[-1])
        busy = run_time(this_run, now=None if holder is None else time.time()).busy
    declared = study.declaration
    gpus = declared.resources.gpus or (0 if declared.cluster is None else 2)  # the planner may choose several
    start = start_s(gpus, declared.training.recipe)
    return StudyStatus(
        study=study.declaration.name,
        run=None if holder is None else str(holder),
        levels=tuple(_ordered_levels(plan, states)),
        running=running,
        interrupted=sum(state.kept_steps > 0 for state in waiting.values()),
        no_room=len(without_room & waiting.keys()),
        failures=tuple(
            Failure(trial=trial, what=trial_words(rows[trial]), reason=state.reason)
            for trial, state in states.items()
            if state.stage is Stage.FAILED
        ),
        planned_flops=sum(map(int, planned["paid_flops"])) + book.charged_flops,
        spent_flops=book.spent_flops,
        reserved_flops=book.reserved_flops,
        wasted_flops=book.wasted_flops,
        study_flops=study.declaration.budget.study_flops,
        slots=slots,
        slots_busy=busy,
        left_s=forecast(
            left_of(ahead, states, running, start_s=start)
            + ([] if (planned["part"] == "grid").any() else _later(folder, start)),
            _measured_speeds(rows, events, running),
            slots=slots or 1,
        ),
        ranked_anew=int(plan["quality"].isin(ranked_anew(study)).sum()),
        design=_design(study, planned, apart, events, why=why),
        found=_found(study, planned, why=why),
        note=book.note,
        copying=study.copying,
    )


def _later(folder: Path, start: float) -> list[PendingTrial]:
    """Return the trials that wait for the tuning to end."""
    return [
        PendingTrial(kind=(model, strategy), start_s=start, work_s=planned_range(middle))
        for model, strategy, middle, number in read_winners(folder / "tuning.json").get("later", ())
        for _ in range(number)
    ]


def _design(
    study: Study, planned: pd.DataFrame, apart: pd.Series, events: pd.DataFrame, *, why: bool
) -> tuple[str, ...]:
    """Return the answers of an adaptive design in words; none of another study."""
    if not study.declaration.design.adaptive:
        return ()
    answer_rows = answers(study, planned[planned["part"] == "grid"])
    unit = ErrorUnit.of(study.declaration.metric)
    return (*question_lines(answer_rows, unit, why=why), *design_lines(events, planned[apart]))


def _found(study: Study, planned: pd.DataFrame, *, why: bool) -> tuple[str, ...]:
    """Return what the results so far say, in words; a design has its own answers."""
    grid = first_attempts(planned[planned["part"] == "grid"])
    if (trials := trials_so_far(study, grid)) is None:
        return ()
    draws, lines = cell_draws(trials, grid), list[str]()
    if not study.declaration.design.adaptive:
        for row in records(turns(best_at_budgets(draws))[0]):
            leader = configuration_text(row)
            lines.append(answer_line(row["at"], leader, row, draws.error_unit, tied=len(row["leaders"])))
            lines += reason_lines(row, row["reason"], tied=[row["tied"]]) if why else []
    return (*lines, *outlier_lines(outliers(draws.families, trials), draws.error_unit))


def planned_trials(study: Study) -> pd.DataFrame:
    """Return the planned trials, tuning first; the column ``part`` is ``tuning`` or ``grid``."""
    tables = study.plan_tables
    study.require_run(*tables)
    written = [name for name in tables if study.has([name])]
    parts = [study.read_table(name).assign(part=tables[name]) for name in written]
    plan = pd.concat(parts, ignore_index=True).drop_duplicates("trial", keep="last", ignore_index=True)
    call_strategies(plan)
    return plan


def _decided_tuning(folder: Path, rows: Mapping[str, dict[str, Any]]) -> dict[str, TrialState]:
    """Return the states of a tuning's trials if all have results: no run needs their folders."""
    tuned = [trial for trial, row in rows.items() if row["part"] == "tuning"]
    states = table_states(folder / "tuning.parquet", tuned)
    return states if all(state.column == "done" for state in states.values()) else {}


def _without_room(
    study: Study,
    rows: Mapping[str, dict[str, Any]],
    states: Mapping[str, TrialState],
    book: Book,
) -> set[str]:
    """Return the trials that can't start: the study budget or their share of it has no room for them."""
    cap = study.declaration.budget.study_flops
    if cap is None:
        return set()
    room = cap - book.spent_flops - book.reserved_flops
    near = {*read_winners(study.folder / "tuning.json").get("neighbours", ())}
    tuned = {trial for trial, row in rows.items() if row["part"] == "tuning"} - near
    rooms = dict.fromkeys(rows, room)
    for trials, share in zip((tuned, near), tuning_reserves(study.declaration), strict=True):
        rooms |= dict.fromkeys(trials, min(room, share - sum(book.of(trial).taken_flops for trial in trials)))
    # By length, because a trial also has no room if a shorter one of its trunk has none.
    without, ended = set(), set()
    evaluated = {row["trunk"] for row in rows.values() if row.get(PHASE) == TRUNK}
    for trial, row in sorted(rows.items(), key=lambda item: item[1]["train_flops"]):
        open_ = states[trial].column in {"waiting", "left_out"} and not book.of(trial).reserved_flops
        if open_ and (row["paid_flops"] > rooms[trial] or row["trunk"] in ended):
            without.add(trial)
            if row.get(PHASE) == TRUNK or row["trunk"] not in evaluated:
                ended |= {row["trunk"]} - {""}  # others continue from this one
    return without


def _ordered_levels(plan: pd.DataFrame, states: Mapping[str, TrialState]) -> list[Level]:
    """Return the counts of trials by level and state, tuning first, then levels in ascending order."""
    tuning = plan["part"] == "tuning"
    names = [cell_of(row).level for row in records(plan)]
    order = plan["level_flops"].fillna(float("inf")).mask(tuning, -1.0)
    return count_levels(
        ("tuning" if tuning[position] else names[position], states[plan["trial"][position]].column)
        for position in order.sort_values(kind="stable").index
    )


def _measured_speeds(
    rows: Mapping[str, dict[str, Any]], events: pd.DataFrame, running: Iterable[Running]
) -> list[Speed]:
    """Return the speeds of running and finished trials."""
    speeds = {trial.trial: trial.samples_per_s for trial in running}
    if "samples_per_s" in events:
        finished = events.dropna(subset=["samples_per_s"])
        speeds |= dict(zip(finished["trial"], finished["samples_per_s"], strict=True))
    return [speed_of(rows[trial], float(speed)) for trial, speed in speeds.items() if trial in rows and speed]
