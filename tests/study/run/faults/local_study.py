"""Studies that the tests of faults run without Ray, and what their files say."""

import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from budgets.ledger import read_entries
from runners.trials.trial_files import checkpoints
from study.cli import main
from tests import waiting
from tests.study.conftest import start_study

wait_for = partial(waiting.wait_for, seconds=240)

Said = pytest.CaptureFixture[str]


def run(declaration: Path, *words: str) -> int:
    """Run in this process, so that tests share the fork server of trials."""
    return main(["run", str(declaration), "--results", str(declaration.parent), "--backend", "local", *words])


def start(declaration: Path, *, alone: bool = False) -> subprocess.Popen[str]:
    words = ("run", declaration, "--results", declaration.parent, "--backend", "local")
    return start_study(*words, alone=alone)


def booked(folder: Path, kind: str) -> int:
    entries = read_entries(folder / "ledger.jsonl")
    return sum(entry.train_flops for entry in entries if entry.entry == kind)


def statuses(folder: Path) -> dict[str, str]:
    results = pd.read_parquet(folder / "results.parquet")
    return dict(zip(results["architecture"], results["status"], strict=True))


def finished(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Return the files of finished trials with their times of modification."""
    done = [path.parent for path in folder.glob("trials/*/result.json")]
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for folder in done
        for path in folder.iterdir()
        if path.name != ".lock"
    }


def marked(mark: str) -> list[str]:
    """Return the command lines of processes with a mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_text(errors="replace"):
                state = (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
                found += [] if state == "Z" else [(process / "cmdline").read_text().replace("\0", " ")]
    return found


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("results.parquet", "curves.parquet")}


def at_work(folder: Path) -> list[Path]:
    return [path for path in folder.glob("trials/*") if checkpoints(path)]


def logged(folder: Path) -> dict[int, float]:
    """Return the loss curve in TensorBoard of a study's only trial."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    for path in folder.glob("tensorboard/*"):
        events = EventAccumulator(str(path)).Reload()
        if "train/loss" in events.Tags()["scalars"]:
            points = events.Scalars("train/loss")
            assert len({point.step for point in points}) == len(points)
            return {point.step: point.value for point in points}
    return {}
