"""A trial of a second or two, and what its row and its count of FLOPs must be under any fault."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runners.host.process import Exit
from runners.trials.trial import run_trial
from runners.trials.trial_job import TrialJob
from tests.runners.tiny import tiny_job, tiny_trial

STEPS, BATCH, FLOPS = 200, 16, 7
ALL = STEPS * BATCH * FLOPS


def run_quietly(pool: Path, folder: Path) -> TrialJob:
    """Run the trial without faults."""
    job = tiny_job(tiny_trial(steps=STEPS), pool, folder, checkpoint_steps=20)
    run_trial(job)
    return job


def row_of(end: Exit) -> str:
    assert end.how == "finished", end.reason
    return _as_text(pickle.loads(end.pickled).row)  # noqa: S301 - our own


def quiet_row(quiet: TrialJob) -> str:
    return _as_text(json.loads((quiet.folder / "result.json").read_text())["row"])


def pid_of(folder: Path) -> int:
    """Return the process of a running trial."""
    pid: int = json.loads((folder / "progress.json").read_text())["pid"]
    return pid


def _as_text(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)  # a regime without levels has NaN there
