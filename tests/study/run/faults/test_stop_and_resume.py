"""Stopped runs continue; changed declarations run only what changed; finished trials stay untouched."""

import errno
import io
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from budgets.book.book import Book
from budgets.book.ledger import read_entries
from runners.host import faults
from runners.scheduling.local_backend import LocalBackend
from runners.trials.records.trial_files import checkpoints
from study.cli import main
from study.run import execution, run_study, site
from study.run.pipeline import Run
from study.state.study import Study
from study.storage.lock import stop_mark
from tests import waiting
from tests.root import ROOT
from tests.runners.host.test_faults import fill
from tests.study import shown
from tests.study.conftest import start_study, write_declaration
from tests.study.run.test_run_trunks import declare as declare_trunks

pytestmark = pytest.mark.slow

wait_for = partial(waiting.wait_for, seconds=120)

LONG = {"levels": "10 GFLOP", "seeds": "0, 1, 2"}
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


@pytest.fixture(scope="module")
def quiet(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("quiet")
    assert run(write_declaration(folder, pool, **LONG)) == 0
    return tables(folder / "tiny")


@pytest.mark.parametrize("how", ["SIGTERM", "study stop"])
def test_a_stopped_run_leaves_no_process_loses_nothing_and_continues_to_the_same_rows(
    pool: Path,
    tmp_path: Path,
    quiet: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Said,
    how: str,
) -> None:
    mark = f"{uuid.uuid4()}"
    declaration, folder = write_declaration(tmp_path, pool, **LONG), tmp_path / "tiny"
    with monkeypatch.context() as environment:
        environment.setenv("STUDY_TEST_MARK", mark)
        process = start(declaration, alone=True)
    with process:
        wait_for(lambda: at_work(folder))
        assert len(marked(mark)) >= 3
        if how == "study stop":
            assert main(["stop", str(declaration), "--results", str(tmp_path)]) == 0
            printed = capsys.readouterr().out
            assert printed.startswith(f"asked process {process.pid} on ")
            assert printed.endswith("the run has ended; `run` continues it\n")
        else:
            process.send_signal(signal.Signals[how])
        output, errors = process.communicate(timeout=120)

    assert process.returncode == 4, output + errors
    assert "stopped by" in output
    assert how in output
    wait_for(lambda: not marked(mark), seconds=20)
    before, kept = finished(folder), at_work(folder)
    assert run(declaration, "--dry-run") == 0
    assert capsys.readouterr().out.count("continues at") == len(kept)

    assert run(declaration) == 0

    assert tables(folder) == quiet
    assert {path: state for path, state in finished(folder).items() if path in before} == before
    assert not Book.of(read_entries(folder / "ledger.jsonl")).open
    assert booked(folder, "wasted") == 0


@pytest.mark.usefixtures("default_signals")
def test_a_closed_terminal_stops_a_run_with_checkpoints(
    pool: Path, tmp_path: Path, quiet: dict[str, bytes]
) -> None:
    declaration, folder, mark = (
        write_declaration(tmp_path, pool, **LONG),
        tmp_path / "tiny",
        f"{uuid.uuid4()}",
    )
    words = ["run", str(declaration), "--results", str(tmp_path), "--backend", "local"]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "STUDY_TEST_MARK": mark}
        os.execve(sys.executable, [sys.executable, "-m", "study", *words], environment)  # noqa: S606
    wait_for(lambda: os.read(terminal, 65_536) and at_work(folder))
    os.close(terminal)

    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 4
    wait_for(lambda: not marked(mark), seconds=20)
    assert run(declaration) == 0
    assert tables(folder) == quiet
    assert booked(folder, "wasted") == 0


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(("by", "code"), [("study stop", 4), ("SIGINT", 130)])
def test_a_run_that_is_stopped_while_it_builds_its_pool_starts_no_trial(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, code: int
) -> None:
    def build(study: Study, _say: object) -> None:
        if by == "SIGINT":
            signal.raise_signal(signal.SIGINT)
        stop_mark(study.folder).touch()

    declaration, folder = write_declaration(tmp_path, pool), tmp_path / "tiny"
    monkeypatch.setattr(run_study, "ensure_pools", build)
    monkeypatch.setattr(run_study, "cluster_address", lambda _address: "a cluster")
    monkeypatch.setattr(site, "open_backend", lambda *_address, local: LocalBackend())  # noqa: ARG005

    assert main(["run", str(declaration), "--results", str(tmp_path)]) == code
    assert not list(folder.glob("trials/*"))


def test_trials_keep_their_work_when_an_error_ends_the_run(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    declaration, folder = write_declaration(tmp_path, pool, levels="25 GFLOP"), tmp_path / "tiny"
    declaration.write_text(declaration.read_text().replace("checkpoint: 0.2 s", "checkpoint: 1 h"))
    write_tables = Run.write_tables

    def fail_once_trials_train(run: Run) -> None:
        if any(
            json.loads(path.read_text())["samples_seen"] for path in folder.glob("trials/*/progress.json")
        ):
            raise ValueError("a table is damaged")
        write_tables(run)

    with monkeypatch.context() as trouble:
        trouble.setattr(execution, "_WRITE_TABLES_S", 0.0)
        trouble.setattr(Run, "write_tables", fail_once_trials_train)
        assert run(declaration) == 2
    said = capsys.readouterr()
    assert "the run ends with an error: running trials write a checkpoint and exit" in said.out
    assert said.err == "study: a table is damaged\n"
    assert at_work(folder)

    assert run(declaration) == 0
    assert booked(folder, "wasted") == 0


def test_every_command_of_the_page_on_faults_does_what_it_says(
    pool: Path, tmp_path: Path, capsys: Said
) -> None:
    declaration = write_declaration(tmp_path, pool)
    said = []
    for line in shown.commands("docs/faults.md"):
        words = [*shlex.split(line.replace("STUDY", str(declaration))), "--results", str(tmp_path)]
        code = main([*words, "--backend", "local"] if words[0] == "run" else words)
        out, err = capsys.readouterr()
        said.append((code, out + err))

    assert [code for code, _ in said] == [0, 0, 0, 2]
    assert "1 trial: 1 to run" in said[0][1]
    assert "[1/1] mini-ViT-XXS-8 clip" in said[1][1]
    assert "1 of them already finished" in said[2][1]
    assert "no run of " in said[3][1], "nothing runs that could be told to stop"


@pytest.mark.parametrize("trouble", ["away", "full"])
def test_unreachable_or_full_storage_delays_a_study_and_loses_nothing(
    pool: Path, tmp_path: Path, quiet: dict[str, bytes], trouble: str
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "none", results],  # noqa: S607 - the system's own
        check=False,
        capture_output=True,
    )
    if mounted.returncode and trouble == "full":
        pytest.skip("only root can mount a small disk")
    folder = results / "tiny"
    try:
        with start(write_declaration(results, pool, **LONG)) as process:
            wait_for(lambda: at_work(folder))
            if trouble == "full":
                fill(results / "filler")
            else:
                folder.rename(results / "away")
            time.sleep(6)
            assert process.poll() is None
            if trouble == "full":
                (results / "filler").unlink()
            else:
                (results / "away").rename(folder)
            output, errors = process.communicate(timeout=200)

        assert process.returncode == 0, output + errors
        assert tables(folder) == quiet
        assert not Book.of(read_entries(folder / "ledger.jsonl")).open
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "--lazy", results], check=True)  # noqa: S607


def test_stale_handles_in_the_driver_delay_a_study_and_lose_nothing(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    declaration = declare_trunks(tmp_path, pool, "tiny")
    folder, seen = tmp_path / "tiny", set[tuple[str, str]]()
    monkeypatch.setattr(faults, "_PAUSES_S", (0.01,))

    def stale_once(name: str, do: Callable[..., object]) -> Callable[..., object]:
        """Let the first access to each path of the study fail once its trials run, as on NFS."""

        def call(path: object = ".", *args: object, **options: object) -> object:
            if isinstance(path, str | Path) and Path(path).is_relative_to(folder):
                access = name, str(path)
                # Names of partial files are random, so each attempt would be a first access.
                new = access not in seen and ".partial-" not in str(path)
                if new and (seen or access == ("stat", str(folder / "stop"))):
                    seen.add(access)
                    raise OSError(errno.ESTALE, "Stale file handle", str(path))
            return do(path, *args, **options)

        return call

    with monkeypatch.context() as storage:
        for module, name in ((os, "stat"), (os, "scandir"), (os, "open"), (io, "open")):
            storage.setattr(module, name, stale_once(name, getattr(module, name)))
        code = run(declaration)
    said = capsys.readouterr()

    assert code == 0, said
    assert "Stale file handle" in said.out
    assert len(seen) > 20
    assert set(pd.read_parquet(folder / "results.parquet")["status"]) == {"finished"}
    assert booked(folder, "wasted") == 0


def test_a_changed_declaration_runs_only_changed_trials_and_reports_the_old_ones(
    pool: Path, tmp_path: Path, capsys: Said
) -> None:
    declaration, folder = write_declaration(tmp_path, pool, seeds="0, 1"), tmp_path / "tiny"
    assert run(declaration) == 0
    first = finished(folder)

    # A level, a seed and a strategy more.
    write_declaration(tmp_path, pool, seeds="0, 1, 2", levels="5 GFLOP, 6 GFLOP", strategies="clip, slip")
    capsys.readouterr()
    assert run(declaration, "--dry-run") == 0
    assert "12 trials: 2 finished, 10 to run" in capsys.readouterr().out
    assert run(declaration, "--only", "slipp") == 2
    assert "'slipp' matches no trial of this plan" in capsys.readouterr().err
    assert finished(folder) == first
    assert run(declaration, "--only", "slip 6", "--only", "clip 5") == 0
    results = pd.read_parquet(folder / "results.parquet")
    assert results.value_counts(["strategy", "level_flops"]).to_dict() == {("slip", 6e9): 3, ("clip", 5e9): 3}
    assert {path: state for path, state in finished(folder).items() if path in first} == first

    # Another learning rate, and the second level gone: new trials, and old ones that no cell asks for.
    text = declaration.read_text().replace("ViT-XXS-8: 2e-3", "ViT-XXS-8: 3e-3")
    declaration.write_text(text.replace("5 GFLOP, 6 GFLOP", "5 GFLOP"))
    spent = booked(folder, "spent")
    capsys.readouterr()
    assert run(declaration, "--only", "clip") == 0
    assert "belong to trials that are not in this declaration" in capsys.readouterr().out
    assert pd.read_parquet(folder / "results.parquet")["lr_peak"].tolist() == [3e-3] * 3
    assert {path: state for path, state in finished(folder).items() if path in first} == first
    assert booked(folder, "spent") > spent


def test_a_failed_and_a_diverged_trial_do_not_stop_the_others(
    pool: Path, tmp_path: Path, capsys: Said
) -> None:
    buggy = json.loads(Path("budgets/cost/catalogue/mini-ViT-XXS-8.json").read_text())
    buggy["vision_cfg"]["ls_init_value"] = "large"  # nothing checks it before it is trained
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue" / "buggy.json").write_text(json.dumps(buggy))
    architectures = "buggy, mini-ViT-XXS-8, mini-ViT-XS-8"
    declaration = write_declaration(tmp_path, pool, architectures=architectures)
    text = declaration.read_text().replace("mini-ViT-XXS-8: 2e-3", "buggy: 1e-3, mini-ViT-XXS-8: 10")
    text = text.replace("batch_size: 16", "batch_size: 16\n  weight_decay: 1000\n  warmup: 0%")
    declaration.write_text(text + f"catalogue: {tmp_path / 'catalogue'}\n")
    folder = tmp_path / "tiny"

    assert run(declaration) == 1
    assert "FAILED buggy clip" in capsys.readouterr().out
    expected = {"buggy": "failed", "mini-ViT-XXS-8": "diverged", "mini-ViT-XS-8": "finished"}
    assert statuses(folder) == expected
    reasons = pd.read_parquet(folder / "results.parquet").set_index("architecture")["reason"]
    assert "TypeError" in reasons["buggy"]
    assert "the loss is not finite" in reasons["mini-ViT-XXS-8"]
    first, entries = finished(folder), read_entries(folder / "ledger.jsonl")
    assert not Book.of(entries).open

    assert run(declaration) == 1
    assert "1 failed in an earlier run; --retry-failed runs them again" in capsys.readouterr().out
    assert read_entries(folder / "ledger.jsonl") == entries

    assert run(declaration, "--only", "mini-ViT-XS-8") == 0, "the failed trial is not selected"
    assert "--retry-failed" not in capsys.readouterr().out
    assert statuses(folder) == expected

    assert run(declaration, "--retry-failed") == 1
    assert statuses(folder) == expected
    assert finished(folder) == first
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("trial-started") == 4
    assert "trial-retried" not in {event["event"] for event in events}


def test_a_trial_without_retries_left_keeps_checkpoint_and_log_for_retry_failed(
    pool: Path, tmp_path: Path
) -> None:
    declaration, folder = write_declaration(tmp_path, pool, levels="25 GFLOP"), tmp_path / "tiny"
    text = declaration.read_text().replace("checkpoint: 0.2 s", "checkpoint: 0.1 s, retries: 0")
    declaration.write_text(text + "loggers: [tensorboard]\n")
    with start(declaration) as process:
        wait_for(lambda: at_work(folder) and logged(folder))
        (trial,) = at_work(folder)
        os.kill(json.loads((trial / "progress.json").read_text())["pid"], signal.SIGKILL)
        output, errors = process.communicate(timeout=120)

    assert process.returncode == 1, output + errors
    assert statuses(folder) == {"mini-ViT-XXS-8": "failed"}
    lost, entries = booked(folder, "wasted"), read_entries(folder / "ledger.jsonl")
    assert list(Book.of(entries).open) == [trial.name]
    kept = logged(folder)

    assert run(declaration, "--retry-failed") == 0
    assert statuses(folder) == {"mini-ViT-XXS-8": "finished"}
    assert booked(folder, "wasted") == lost
    assert booked(folder, "spent") == Book.of(entries).open[trial.name].left
    curve = pd.read_parquet(folder / "curves.parquet")
    assert logged(folder) == pytest.approx(dict(zip(curve["samples_seen"], curve["loss"], strict=True)))
    assert kept.items() <= logged(folder).items()
    assert len(kept) < len(curve)
