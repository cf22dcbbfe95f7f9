"""Progress of trials that have no row in the results yet, in words for the report."""

from collections.abc import Mapping
from pathlib import Path

from study.state.trial_states import Stage, TrialState, trial_states
from study.storage.lock import running

NOT_ADDED = "the next `run` adds it to the results"
"""Last words on a trial that has ended without a row in the results, as if the driver died."""


def begun(folder: Path, steps: Mapping[str, int]) -> dict[str, str]:
    """Return the progress of trials in words, by trial id, without those that were never started.

    Args:
        folder: The study's folder.
        steps: Id → number of steps, for each trial without a row.

    Raises:
        ValueError: A file of a trial is damaged.
    """
    now = running(folder) is not None
    states = trial_states(folder, steps)
    found = {trial: _words(state, steps[trial], under_way=now) for trial, state in states.items()}
    return {trial: words for trial, words in found.items() if words}


def _words(state: TrialState, steps: int, *, under_way: bool) -> str:
    if state.stage in {Stage.WAITING, Stage.LEFT_OUT}:
        return ""
    if state.column == "done":  # results.parquet is written every few seconds
        return f"finished; {NOT_ADDED}"
    if state.stage is Stage.FAILED:
        return f"failed: {state.reason}; {NOT_ADDED}"
    if under_way:
        progress = state.progress
        seen = 0.0 if progress is None else progress["samples_seen"] / progress["samples_planned"]
        return f"running; {max(seen, state.kept_steps / steps):.0%} of its samples seen"
    if state.kept_steps:
        return f"interrupted; continues from its checkpoint at {state.kept_steps / steps:.0%} of its samples"
    return "interrupted before its first checkpoint; starts anew"
