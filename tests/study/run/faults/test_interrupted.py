"""Runs that are stopped, or lose their storage for a while, continue to the same rows."""

import errno
import io
import os
import pty
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runners.host import faults
from runners.scheduling.local_backend import LocalBackend
from runners.trials.trial_files import kept_steps
from study.run import execution, run_context, run_study
from study.run.pipeline import Run
from study.state.study import Study
from study.storage.lock import STOP
from tests.holding import hold, let_go
from tests.root import ROOT
from tests.study import shown
from tests.study.tiny_study import TRUNK, TinyStudy, ended, in_session, read_json
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

LONG = {"levels": "10 GFLOP", "seeds": "0, 1, 2"}


@pytest.fixture(scope="module")
def quiet(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    tiny = TinyStudy(tmp_path_factory.mktemp("quiet"), pool, **LONG)
    tiny.run()
    return tiny.tables()


@pytest.mark.parametrize("how", ["SIGTERM", "study stop"])
def test_a_stopped_run_leaves_no_process_loses_nothing_and_continues_to_the_same_rows(
    tiny: TinyStudy, quiet: dict[str, bytes], how: str
) -> None:
    tiny.declare(**LONG)
    hold(tiny.folder, step=40)
    with tiny.start("--backend", "local", alone=True) as process:
        wait_for(tiny.at_work)
        assert len(in_session(process.pid)) >= 3
        if how == "study stop":
            printed = tiny.says("stop")
            assert printed.startswith(f"asked process {process.pid} on ")
            assert printed.endswith("`run` continues it\n")
        else:
            process.send_signal(signal.Signals[how])
        output = ended(process, code=4)

    assert "stopped by" in output
    assert how in output
    wait_for(lambda: not in_session(process.pid), seconds=60)
    let_go(tiny.folder)
    before, kept = tiny.finished(), tiny.at_work()
    assert tiny.says("run --dry-run").count("continues at") == len(kept)

    tiny.run()

    assert tiny.tables() == quiet
    assert {path: state for path, state in tiny.finished().items() if path in before} == before
    assert tiny.settled()["wasted"] == 0


def test_a_trial_that_can_not_leave_is_ended_before_the_limit_and_the_books_are_closed(
    tiny: TinyStudy, quiet: dict[str, bytes]
) -> None:
    tiny.declare(**LONG, resources="checkpoint_steps: 20")
    hold(tiny.folder, step=40)
    with tiny.start("--backend", "local") as process:
        wait_for(lambda: any(kept_steps(folder) == 40 for folder in tiny.trials()))
        stuck = next(folder for folder in tiny.trials() if kept_steps(folder) == 40)
        os.kill(read_json(stuck / "progress.json")["pid"], signal.SIGSTOP)
        assert tiny.says("stop --within 30s").endswith("the run has ended; `run` continues it\n")
        ended(process, code=4)

    reasons = {event["trial"]: event["reason"] for event in tiny.events("trial-left")}
    assert reasons[stuck.name] == "had not left within 30 s"
    assert stuck.name in tiny.reserved()
    let_go(tiny.folder)
    tiny.declare(**LONG)
    tiny.run()
    assert tiny.tables() == quiet
    assert tiny.settled()["wasted"] == 0


@pytest.mark.usefixtures("default_signals")
def test_a_closed_terminal_stops_a_run_with_checkpoints(tiny: TinyStudy, quiet: dict[str, bytes]) -> None:
    tiny.declare(**LONG)
    hold(tiny.folder, step=40)
    words = ["run", str(tiny.declaration), "--results", str(tiny.place), "--backend", "local"]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "study", *words], environment)  # noqa: S606
    wait_for(lambda: os.read(terminal, 65_536) and tiny.at_work())
    os.close(terminal)

    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 4
    wait_for(lambda: not in_session(process), seconds=60)
    let_go(tiny.folder)
    tiny.run()
    assert tiny.tables() == quiet
    assert tiny.settled()["wasted"] == 0


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(("by", "code"), [("study stop", 4), ("SIGINT", 130)])
def test_a_run_that_is_stopped_while_it_builds_its_pool_starts_no_trial(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch, by: str, code: int
) -> None:
    def build(study: Study, _say: object) -> None:
        if by == "SIGINT":
            signal.raise_signal(signal.SIGINT)
        (study.folder / STOP).touch()

    monkeypatch.setattr(run_study, "ensure_pools", build)
    monkeypatch.setattr(run_study, "cluster_address", lambda _address: "a cluster")
    monkeypatch.setattr(run_context, "open_backend", lambda *_address, local: LocalBackend())  # noqa: ARG005

    tiny.says("run", code=code)
    assert not tiny.trials()


def test_trials_keep_their_work_when_an_error_ends_the_run(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.declare(levels="25 GFLOP", resources="checkpoint: 1 h")
    write_tables = Run.write_tables
    hold(tiny.folder, step=100)

    def fail_once_trials_train(run: Run) -> None:
        if any(read_json(path)["samples_seen"] for path in tiny.trials("progress.json")):
            raise ValueError("a table is damaged")
        write_tables(run)

    with monkeypatch.context() as trouble:
        trouble.setattr(execution, "_WRITE_TABLES_S", 0.0)
        trouble.setattr(Run, "write_tables", fail_once_trials_train)
        said = tiny.run(code=2)
    assert "the run ends with an error: running trials write a checkpoint and exit" in said
    assert said.endswith("\nstudy: a table is damaged\n")
    assert tiny.at_work()

    let_go(tiny.folder)
    tiny.run()
    assert tiny.settled()["wasted"] == 0


def test_every_command_of_the_page_on_faults_does_what_it_says(tiny: TinyStudy) -> None:
    described, ran, again, repeated, nothing = (
        line.replace("STUDY ", "").replace("STUDY", "") for line in shown.commands("docs/faults.md")
    )

    assert "1 trial: 1 to run" in tiny.says(described)
    assert "[1/1] mini-ViT-XXS-8 clip" in tiny.says(f"{ran} --backend local")
    assert "1 of them" in tiny.says(f"{again} --backend local")
    repeated = repeated.replace("3f2a91c05b7e", tiny.trials()[0].name)
    assert f"{tiny.trials()[0].name}-2" in tiny.says(f"{repeated} --backend local --dry-run")
    assert "no run of " in tiny.says(nothing, code=2), "nothing runs that could be told to stop"


def test_stale_handles_in_the_driver_delay_a_study_and_lose_nothing(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.declare(levels="5 GFLOP, 7 GFLOP, 10 GFLOP", training=TRUNK)
    seen = set[tuple[str, str]]()
    monkeypatch.setattr(faults, "_PAUSES_S", (0.01,))

    def stale_once(name: str, do: Callable[..., object]) -> Callable[..., object]:
        """Let the first access to each path of the study fail once its trials run, as on NFS."""

        def call(path: object = ".", *args: object, **options: object) -> object:
            if isinstance(path, str | Path) and Path(path).is_relative_to(tiny.folder):
                access = name, str(path)
                # Names of partial files are random, so each attempt would be a first access.
                new = access not in seen and ".partial-" not in str(path)
                if new and (seen or access == ("stat", str(tiny.folder / "stop"))):
                    seen.add(access)
                    raise OSError(errno.ESTALE, "Stale file handle", str(path))
            return do(path, *args, **options)

        return call

    with monkeypatch.context() as storage:
        for module, name in ((os, "stat"), (os, "scandir"), (os, "open"), (io, "open")):
            storage.setattr(module, name, stale_once(name, getattr(module, name)))
        output = tiny.run()

    assert "Stale file handle" in output
    read = [("open", name) for name in ("meter", "result.json", "curve.parquet")] + [("scandir", "")]
    assert seen >= {(access, str(trial / name)) for trial in tiny.trials() for access, name in read}
    assert len(tiny.trials()) == 3
    assert set(tiny.table()["status"]) == {"finished"}
    assert tiny.settled()["wasted"] == 0
