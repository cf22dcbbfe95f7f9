"""Runs that are stopped, or lose their storage for a while, continue to the same rows."""

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
from pathlib import Path

import pandas as pd
import pytest

from budgets.book import Book
from budgets.ledger import read_entries
from runners.host import faults
from runners.scheduling.local_backend import LocalBackend
from study.cli import main
from study.run import execution, run_study, site
from study.run.pipeline import Run
from study.state.study import Study
from study.storage.lock import stop_mark
from tests.holding import hold, let_go
from tests.root import ROOT
from tests.runners.host.test_faults import fill
from tests.study import shown
from tests.study.conftest import write_declaration
from tests.study.run.faults.local_study import (
    Said,
    at_work,
    booked,
    finished,
    marked,
    run,
    start,
    tables,
    wait_for,
)
from tests.study.run.test_run_trunks import declare as declare_trunks

pytestmark = pytest.mark.slow

LONG = {"levels": "10 GFLOP", "seeds": "0, 1, 2"}


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
    hold(folder, step=40)
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
        output, errors = process.communicate(timeout=240)

    assert process.returncode == 4, output + errors
    assert "stopped by" in output
    assert how in output
    wait_for(lambda: not marked(mark), seconds=60)
    let_go(folder)
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
    hold(folder, step=40)
    words = ["run", str(declaration), "--results", str(tmp_path), "--backend", "local"]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "STUDY_TEST_MARK": mark}
        os.execve(sys.executable, [sys.executable, "-m", "study", *words], environment)  # noqa: S606
    wait_for(lambda: os.read(terminal, 65_536) and at_work(folder))
    os.close(terminal)

    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 4
    wait_for(lambda: not marked(mark), seconds=60)
    let_go(folder)
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
    hold(folder, step=100)

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

    let_go(folder)
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
        hold(folder, step=40)
        with start(write_declaration(results, pool, **LONG)) as process:
            wait_for(lambda: at_work(folder))
            let_go(folder)
            if trouble == "full":
                fill(results / "filler", seconds=6)
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
