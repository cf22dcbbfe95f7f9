"""A small study of a test: its declaration, its commands, and what its files say."""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from budgets.planning.plan import Plan
from runners.trials.trial_files import checkpoints
from study.cli import main
from study.declare.load import load_declaration
from study.state.book import Book, read_book
from study.state.plan_study import plan_study
from study.state.study import Study, find_study
from tests.child_processes import shared_server
from tests.root import ROOT

STUDY = """
study: {name}
pool: {{path: {pool}}}
metric: held-out/top1
budget: {{levels: [{levels}], study: {study_flops}}}
seeds: [{seeds}]
grid:
  - architectures: [{architectures}]
    strategies: [{strategies}]
    quality: [top50]
training:
  batch_size: 16
  precision: fp32
  lr_peak: {{mini-ViT-XXS-8: {lr_peak}, mini-ViT-XS-8: 1.5e-3, mini-ConvNeXt: 2e-3, mini-RN: 1e-3}}
{training}resources: {{{resources}}}
limits: {{min_steps: 2}}
{more}"""

TRUNK = "  schedule: trunk\n  warmup: 64 samples\n"
"""Lines of `training` for levels that share a run."""

EVALUATED = "evaluation: {trunk: true}\n"
"""Further section of a study whose trunks are evaluated."""


def write_declaration(folder: Path, pool: Path, name: str = "tiny", **changes: str) -> Path:
    """Declare a study of one trial, or with other values of the braces in `STUDY`."""
    values = {
        "levels": "3 GFLOP",
        "study_flops": "10 TFLOP",
        "seeds": "0",
        "architectures": "mini-ViT-XXS-8",
        "strategies": "clip",
        "lr_peak": "2e-3",
        "training": "",
        "resources": "checkpoint: 0.2 s",
        "more": "",
    } | changes
    path = folder / f"{name}.yaml"
    path.write_text(STUDY.format(name=name, pool=pool, **values), encoding="utf-8")
    return path


def edit(declaration: Path, *changes: tuple[str, str]) -> None:
    """Replace texts in a declaration; each must occur in it."""
    text = declaration.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    declaration.write_text(text, encoding="utf-8")


def study_of(declaration: Path) -> Study:
    """Return the study of a declaration, whose folder lies beside the file."""
    beside = str(declaration.parent)
    return find_study(load_declaration(declaration), results=beside, pools=beside)


def rewrite(study: Study, **replaced: pd.DataFrame) -> None:
    """Write a study's tables as derived from its declaration, some with other rows, by their file's stem."""
    tables = {path.stem: pd.read_parquet(path) for path in study.folder.glob("*.parquet")} | replaced
    tables.pop("spent", None)  # of any declaration of the study
    study.write_declaration()
    for stem, frame in tables.items():
        study.write_table(f"{stem}.parquet", frame)


def shipped_copy(name: str, place: Path, *left_out: str) -> Study:
    """Return a copy of a shipped study without its report and some files."""
    ignore = shutil.ignore_patterns("report", *left_out)
    shutil.copytree(ROOT / "results" / name, place / name, ignore=ignore)
    return find_study(load_declaration(place / name / "study.yaml"), results=str(place), pools=None)


class TinyStudy:
    """A study whose declaration and results lie in one folder; without changes to `STUDY`, of one trial."""

    def __init__(self, place: Path, pool: Path, name: str = "tiny", **changes: str) -> None:
        self.place, self.pool, self.name = place, pool, name
        self.declaration, self.folder = place / f"{name}.yaml", place / name
        place.mkdir(parents=True, exist_ok=True)
        self.declare(**changes)

    def declare(self, **changes: str) -> None:
        """Declare it again."""
        write_declaration(self.place, self.pool, self.name, **changes)

    def edit(self, *changes: tuple[str, str]) -> None:
        """Replace texts in its declaration; each must occur."""
        edit(self.declaration, *changes)

    def says(self, command: str, *, code: int = 0) -> str:
        """Run a command on it, expect an exit code, and return the output, and the errors below."""
        word, *options = shlex.split(command)
        output, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(errors):
            ended = main([word, str(self.declaration), "--results", str(self.place), *options])
        said = output.getvalue() + errors.getvalue()
        assert ended == code, said
        return said

    def run(self, options: str = "", *, code: int = 0) -> str:
        """Run it without Ray in this process, so that tests share the fork server of trials."""
        return self.says(f"run --backend local {options}", code=code)

    def start(self, *options: str, alone: bool = False) -> subprocess.Popen[str]:
        """Start a run like a user, in the background; context manager.

        Args:
            options: Options of the command.
            alone: True for a process group and a server of trials of its own, for tests that look for the
                processes it leaves; otherwise the trials are forked from the server of the tests.
        """
        words = ("run", str(self.declaration), "--results", str(self.place), *options)
        return subprocess.Popen(
            [sys.executable, "-m", "study", *words],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"} | ({} if alone else shared_server()),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=alone,
        )

    @property
    def study(self) -> Study:
        return study_of(self.declaration)

    @property
    def plan(self) -> Plan:
        return plan_study(self.study)

    def table(self, name: str = "results") -> pd.DataFrame:
        return pd.read_parquet(self.folder / f"{name}.parquet")

    def tables(self) -> dict[str, bytes]:
        """Return the rows of the tables that must not depend on how it was run."""
        names = ("results.parquet", "curves.parquet")
        return {name: repr(pq.read_table(self.folder / name).to_pydict()).encode() for name in names}

    def book(self) -> Book:
        """Return its book, by the trials of its plan."""
        return read_book(self.study, {trial.trial_id: trial for trial in self.plan.all_trials})

    def booked(self, kind: str) -> int:
        """Return the training FLOPs of its trials that are ``spent`` or ``wasted``."""
        return sum(getattr(account, f"{kind}_flops") for account in self.book().trials.values())

    def reserved(self) -> set[str]:
        """Return the trials that FLOPs are set aside for."""
        return {trial for trial, account in self.book().trials.items() if account.reserved_flops}

    def settled(self) -> dict[str, int]:
        """Return what was spent and wasted, once nothing is set aside; its table must have the same."""
        book = self.book()
        assert not self.reserved()
        pd.testing.assert_frame_equal(self.table("spent"), book.frame())
        return {kind: self.booked(kind) for kind in ("spent", "wasted")}

    def planned_flops(self) -> int:
        """Return what its trials cost by its plan."""
        plan = self.table("plan")
        return int((plan["samples_seen"] * plan["train_flops_per_sample"]).sum())

    def statuses(self) -> dict[str, str]:
        """Return the status of each architecture's only trial."""
        results = self.table()
        return dict(zip(results["architecture"], results["status"], strict=True))

    def trials(self, file: str = "") -> list[Path]:
        """Return the folders of its trials, or those files in them."""
        return list(self.folder.glob(f"trials/*/{file}" if file else "trials/*"))

    def at_work(self) -> list[Path]:
        """Return the folders of trials with a checkpoint."""
        return [path for path in self.trials() if checkpoints(path)]

    def finished(self) -> dict[Path, tuple[int, bytes]]:
        """Return the files of finished trials with their times of modification."""
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes())
            for result in self.trials("result.json")
            for path in result.parent.iterdir()
            if path.name != ".lock"
        }

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """Return its events, or those of one kind."""
        lines = (self.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
        return [event for event in map(json.loads, lines) if kind in {"", event["event"]}]

    def event_names(self) -> list[str]:
        return [event["event"] for event in self.events()]

    def status(self) -> dict[str, Any]:
        """Return what ``status --json`` says."""
        content: dict[str, Any] = json.loads(self.says("status --json"))
        return content


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever is in it
    return json.loads(path.read_text(encoding="utf-8"))


def in_session(leader: int) -> list[str]:
    """Return the processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = path.read_text().rsplit(")", 1)[1].split()[:4]
            found += [path.parent.name] if int(session) == leader and state != "Z" else []
    return found


def ended(process: subprocess.Popen[str], *, code: int = 0) -> str:
    """Wait for a command in the background, expect its exit code, and return its output and errors."""
    output, errors = process.communicate(timeout=400)
    assert process.returncode == code, output + errors
    return output + errors
