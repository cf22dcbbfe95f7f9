"""How far the trials are that have no row in the results yet, in words for the report."""

from collections.abc import Mapping
from pathlib import Path

from study.state.trial_states import Stage, TrialState, trial_states
from study.storage.lock import running


def begun(folder: Path, steps: Mapping[str, int]) -> dict[str, str]:
    """Return how far trials are, in words; those that were never begun are left out.

    Args:
        folder: The study's folder.
        steps: Id of each trial without a row → the steps that it takes.

    Raises:
        ValueError: What a trial left is damaged.
    """
    now = running(folder) is not None
    states = trial_states(folder, steps)
    found = {trial: _words(state, steps[trial], under_way=now) for trial, state in states.items()}
    return {trial: words for trial, words in found.items() if words}


def _words(state: TrialState, steps: int, *, under_way: bool) -> str:
    if state.stage in {Stage.WAITING, Stage.LEFT_OUT}:
        return ""
    if state.column == "done":  # the tables are written now and then
        return "finished; the next `run` puts it among the results"
    if state.stage is Stage.FAILED:
        return f"failed: {state.reason}; the next `run` puts it among the results"
    if under_way:
        progress = state.progress
        seen = 0.0 if progress is None else progress["samples_seen"] / progress["samples_planned"]
        return f"begun; {max(seen, state.kept_steps / steps):.0%} of its samples seen"
    if state.kept_steps:
        return f"interrupted; goes on from its checkpoint at {state.kept_steps / steps:.0%} of its samples"
    return "interrupted before its first checkpoint; starts anew"
