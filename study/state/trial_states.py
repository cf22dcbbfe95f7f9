"""State of each trial of a study, from the files on disk; all commands use this module.

A trial's own folder comes first, because the events and the tables are written after it: if the driver dies
in between, they are out of date. Only the events show which trials are running, and which were
left out for lack of budget. A study without trial folders, such as a published one, is read from its results.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from budgets.planning.planned_trial import Trial
from budgets.quantity import format_share
from runners.results import STARTS, read_events, read_table
from runners.trials.trial_files import Outcome, kept_steps, read_failure, read_outcome, read_progress
from study.storage.lock import active_run

NOT_ADDED = "the next `run` adds it to the results"
"""Last words on a trial that has ended without a row in the results, as if the driver died."""


class Stage(StrEnum):
    """Stage of a trial."""

    WAITING = "waiting"  # never started, or starts again from step 0
    INTERRUPTED = "interrupted"  # started, but not running and without a result
    RUNNING = "running"
    FINISHED = "finished"
    DIVERGED = "diverged"  # also a result
    FAILED = "failed"  # given up until --retry-failed
    LEFT_OUT = "left out"  # the budget had no room for it


_COLUMNS = {
    Stage.FINISHED: "done", Stage.DIVERGED: "done", Stage.RUNNING: "running", Stage.FAILED: "failed",
    Stage.LEFT_OUT: "left_out",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialState:
    """State of a trial.

    Attributes:
        kept_steps: Steps of the newest checkpoint.
        progress: The last progress that `runners.trials.trial` wrote; None if the trial was never started or
            has a result.
        outcome: The result; None without one, or if only the study's tables have it.
        reason: The reason why it diverged, failed or was left out; empty otherwise.
    """

    stage: Stage
    kept_steps: int = 0
    progress: Mapping[str, Any] | None = None
    outcome: Outcome | None = None
    reason: str = ""

    @property
    def column(self) -> str:
        """The field of `study.state.running.Level` that counts it."""
        return _COLUMNS.get(self.stage, "waiting")


def trial_states(
    folder: Path,
    trials: Iterable[str],
    *,
    running: Collection[str] | None = None,
    left_out: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, TrialState]:
    """Return the states of trials by id.

    A run itself names the trials that it is ``running`` and has ``left_out``, with the reason; without these,
    both are read from the events.

    Raises:
        ValueError: A result, a failure or the events can't be read; the message names the file.
    """
    if not (folder / "trials").is_dir():
        return table_states(folder / "results.parquet", trials)
    if running is None:
        running, left_out = running_or_left_out(folder)
    return {
        trial: _state(folder, trial, runs=trial in running, left_out=left_out.get(trial)) for trial in trials
    }


def _state(folder: Path, trial: str, *, runs: bool, left_out: str | None) -> TrialState:
    trial_folder = folder / "trials" / trial
    outcome = read_outcome(trial_folder)
    if outcome is not None:
        stage = Stage.FINISHED if outcome.row["status"] == "finished" else Stage.DIVERGED
        return TrialState(stage=stage, outcome=outcome, reason=outcome.row["reason"])
    failure, steps = read_failure(trial_folder), kept_steps(trial_folder)
    progress = read_progress(folder, [trial]).get(trial)
    if failure is None and not (runs or steps or progress is not None):
        stage = Stage.WAITING if left_out is None else Stage.LEFT_OUT
        return TrialState(stage=stage, reason=left_out or "")
    stage = Stage.FAILED if failure is not None else Stage.RUNNING if runs else Stage.INTERRUPTED
    return TrialState(stage=stage, kept_steps=steps, progress=progress, reason=failure or "")


def passed_milestone(trial: Trial, outcome: Outcome) -> bool:
    """Return whether a trial with a result reached its milestone."""
    return outcome.row["status"] == "finished" or int(outcome.row["steps"]) > trial.milestone_step


def running_or_left_out(folder: Path) -> tuple[set[str], dict[str, str]]:
    """Return the trials that the active run is running, and the trials left out with the reason."""
    events = read_events(folder / "events.jsonl")
    if "trial" not in events:
        return set(), {}
    # The last event of a trial decides; a trial that an earlier run started is not running.
    last = events[events["trial"].notna()].drop_duplicates("trial", keep="last")
    out = last[last["event"] == "trial-left-out"]
    starts = events.index[events["event"].isin(STARTS)]
    started = last[(last["event"] == "trial-started") & (last.index > max(starts, default=-1))]
    at_work = set() if active_run(folder) is None else set(started["trial"])
    return at_work, dict(zip(out["trial"], out.get("reason", pd.Series(dtype=str)), strict=True))


def table_states(path: Path, trials: Iterable[str]) -> dict[str, TrialState]:
    """Return the states of trials by id, as far as a table of results shows them; the others wait."""
    table = read_table(path)[["trial", "status", "reason"]] if path.exists() else pd.DataFrame()
    states = {
        row["trial"]: TrialState(stage=Stage(row["status"]), reason=row["reason"])
        for row in table.to_dict("records")
    }
    return {trial: states.get(trial, TrialState(stage=Stage.WAITING)) for trial in trials}


def begun(folder: Path, steps: Mapping[str, int]) -> dict[str, str]:
    """Return the progress in words of trials without a row in the results, by id; not of those never started.

    ``steps`` has the number of steps of each of them.

    Raises:
        ValueError: A file of a trial is damaged.
    """
    under_way = active_run(folder) is not None
    return {
        trial: words
        for trial, state in trial_states(folder, steps).items()
        if (words := _progress_words(state, steps[trial], under_way=under_way))
    }


def _progress_words(state: TrialState, steps: int, *, under_way: bool) -> str:
    if state.stage in {Stage.WAITING, Stage.LEFT_OUT}:
        return ""
    if state.column == "done":  # results.parquet is written every few seconds
        return f"finished; {NOT_ADDED}"
    if state.stage is Stage.FAILED:
        return f"failed: {state.reason}; {NOT_ADDED}"
    if under_way:
        progress = state.progress
        seen = 0.0 if progress is None else progress["samples_seen"] / progress["samples_planned"]
        return f"running; {format_share(max(seen, state.kept_steps / steps))} of its samples seen"
    if state.kept_steps:
        share = format_share(state.kept_steps / steps)
        return f"interrupted; continues from its checkpoint at {share} of its samples"
    return "interrupted before its first checkpoint; starts from scratch"
