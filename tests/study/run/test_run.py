"""A study from YAML to rows with real models and shards, on Ray or, where equal, without it."""

import io
import json
import os
import shutil
import signal
import time
import uuid
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from budgets.book import Book
from budgets.ledger import read_entries
from runners.results import CURVE_COLUMNS, RESULT_COLUMNS
from runners.trials.trial_files import kept_steps
from study.cli import main
from tests import waiting
from tests.holding import hold, let_go
from tests.study.conftest import start_study, study, write_declaration
from tests.study.run.faults.local_study import marked

pytestmark = pytest.mark.slow

wait_for = partial(waiting.wait_for, seconds=240)

DETERMINISTIC = ("results.parquet", "curves.parquet")
LONG = {"levels": "15 GFLOP", "seeds": "0, 1, 2"}


WITHOUT_RAY = ("--backend", "local")


def run(declaration: Path, results: Path, *options: str) -> str:
    ended = study("run", declaration, "--results", results, *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def run_here(declaration: Path, results: Path) -> str:
    """Run without Ray in this process, so that tests share the fork server of trials."""
    with redirect_stdout(io.StringIO()) as said:
        assert main(["run", str(declaration), "--results", str(results), *WITHOUT_RAY]) == 0
    return said.getvalue()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in DETERMINISTIC}


def test_every_strategy_learns_on_a_vit_and_on_a_cnn(pool: Path, tmp_path: Path) -> None:
    declaration = write_declaration(
        tmp_path,
        pool,
        levels="15 GFLOP",
        architectures="mini-ViT-XXS-8, mini-ConvNeXt",
        strategies="clip, clip-crop-flip, flip-50, slip",
    )

    output = run_here(declaration, tmp_path)

    folder = tmp_path / "tiny"
    results = pd.read_parquet(folder / "results.parquet")
    trained = set(zip(results["architecture"], results["strategy"], strict=True))
    assert trained == {
        (architecture, strategy)
        for architecture in ("mini-ViT-XXS-8", "mini-ConvNeXt")
        for strategy in ("clip", "clip-crop-flip", "flip-50", "slip")
        if (architecture, strategy) != ("mini-ConvNeXt", "flip-50")
    }
    left_out = pd.read_parquet(folder / "left-out.parquet")
    assert left_out["strategy"].tolist() == ["flip-50"]
    assert "patch dropout needs a ViT" in left_out["reason"].item()

    assert set(results["status"]) == {"finished"}
    assert set(RESULT_COLUMNS) < set(results.columns)
    assert results.notna().all(axis=None)
    assert (results["samples_seen"] == results["steps"] * results["batch_size"]).all()
    assert (results["held-out/count"] == 200).all()

    curves = pd.read_parquet(folder / "curves.parquet")
    assert list(curves.columns) == list(CURVE_COLUMNS)
    for trial, curve in curves.groupby("trial"):
        tenth = max(1, len(curve) // 10)
        assert curve["loss"].tail(tenth).mean() < 0.95 * curve["loss"].head(tenth).mean(), trial
        assert curve["samples_seen"].iloc[-1] == results.set_index("trial")["samples_seen"][trial]

    plan = pd.read_parquet(folder / "plan.parquet")
    entries = read_entries(folder / "ledger.jsonl")
    exact = plan["samples_seen"] * plan["train_flops_per_sample"]
    assert Book.of(entries).spent_flops == exact.sum()
    assert not Book.of(entries).open
    assert "[7/7]" in output


@pytest.mark.ray
def test_the_same_declaration_gives_the_same_rows_with_a_ray_of_this_machine_and_without(
    pool: Path, tmp_path: Path, mark: str
) -> None:
    declaration = write_declaration(
        tmp_path, pool, architectures="mini-ViT-XXS-8, mini-ConvNeXt", strategies="clip, slip"
    )

    output = run(declaration, tmp_path / "with")
    wait_for(lambda: not marked(mark))  # the Ray that it started has ended
    run_here(declaration, tmp_path / "without")

    assert "Ray on this machine: " in output
    assert bytes_of(tmp_path / "with" / "tiny") == bytes_of(tmp_path / "without" / "tiny")


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a mark in the environment of the processes that the test starts."""
    monkeypatch.setenv("STUDY_TEST_MARK", uuid.uuid4().hex)
    return os.environ["STUDY_TEST_MARK"]


@pytest.fixture(scope="module")
def undisturbed(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Run three trials of some seconds without faults."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_here(write_declaration(folder, pool, **LONG), folder)
    return bytes_of(folder / "tiny")


@pytest.mark.ray
def test_a_killed_driver_continues_and_gives_the_same_rows(
    pool: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    declaration = write_declaration(tmp_path, pool, **LONG)
    folder = tmp_path / "tiny"
    hold(folder, step=100, seeds=(2,))
    with start_study("run", declaration, "--results", tmp_path) as first:
        wait_for(
            lambda: (
                list(folder.glob("trials/*/result.json")) and list(folder.glob("trials/*/checkpoint-*.pt"))
            )
        )
        first.send_signal(signal.SIGKILL)
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}
    assert 0 < len(finished) < 3
    let_go(folder)

    output = run_here(declaration, tmp_path)

    assert "already finished" in output
    assert bytes_of(folder) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "finished work was done again"
    plan = pd.read_parquet(folder / "plan.parquet")
    entries = read_entries(folder / "ledger.jsonl")
    spent = sum(entry.train_flops for entry in entries if entry.entry == "spent")
    assert spent == (plan["samples_seen"] * plan["train_flops_per_sample"]).sum()


@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_a_killed_worker_is_restarted_from_its_checkpoint(
    pool: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    declaration = write_declaration(tmp_path, pool, **LONG)
    folder = tmp_path / "tiny"
    hold(folder, step=100)
    with start_study("run", declaration, "--results", tmp_path) as process:
        wait_for(lambda: list(folder.glob("trials/*/checkpoint-*.pt")))
        progress = next(folder.glob("trials/*/checkpoint-*.pt")).with_name("progress.json")
        wait_for(progress.exists)
        os.kill(json.loads(progress.read_text())["pid"], signal.SIGKILL)
        let_go(folder)
        output, errors = process.communicate(timeout=300)

    assert process.returncode == 0, output + errors
    assert "retrying from its last checkpoint" in output
    assert bytes_of(folder) == undisturbed
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("trial-retried") == 1


@pytest.mark.ray
def test_a_ray_of_this_machine_that_dies_is_started_anew_once(pool: Path, tmp_path: Path) -> None:
    declaration = write_declaration(tmp_path, pool, levels="600 GFLOP")
    folder = tmp_path / "tiny"

    def kept() -> int:
        return max(map(kept_steps, folder.glob("trials/*")), default=0)

    with start_study("run", declaration, "--results", tmp_path, alone=True) as process:
        wait_for(kept)
        kill_part("raylet", process.pid)
        wait_for(lambda: events(folder).count("study-started") == 2)
        first = kept()
        wait_for(lambda: kept() > first)
        kill_part("gcs_server", process.pid, asked_s=1.6)
        output, errors = process.communicate(timeout=240)

    assert process.returncode == 5, output + errors
    once, twice = errors.splitlines()
    died = "study: the Ray on this machine has died: "
    kept_and = ". Finished trials and checkpoints are kept; "
    assert once == f"{died}its raylet has ended{kept_and}Ray is started anew, once"
    assert twice.startswith(f"{died}no answer from 127.0.0.1:")
    assert twice.endswith("are kept; run the same command again to continue")
    assert kept() > first
    assert "trial-failed" not in events(folder)
    waiting.wait_for(lambda: not in_session(process.pid), seconds=60)


def events(folder: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]


def kill_part(of_ray: str, driver: int, *, asked_s: float = 0) -> None:
    """Kill a part of the Ray that a driver has started, after seconds in which it does not answer."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = path.read_text().rsplit(")", 1)[1].split()[1]
            if int(parent) == driver and f"/{of_ray}\0" in (path.parent / "cmdline").read_text():
                os.kill(int(path.parent.name), signal.SIGSTOP)
                time.sleep(asked_s)
                os.kill(int(path.parent.name), signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_process_group_keeps_every_checkpoint_and_leaves_no_process(
    pool: Path, tmp_path: Path, how: signal.Signals
) -> None:
    folder = tmp_path / "tiny"
    declaration = write_declaration(tmp_path, pool, levels="600 GFLOP", seeds="0, 1")
    with start_study("run", declaration, "--results", tmp_path, alone=True) as process:
        wait_for(lambda: list(folder.glob("trials/*/checkpoint-*.pt")))
        os.killpg(process.pid, how)  # as `timeout`, a terminal and Slurm send it
        output, errors = process.communicate(timeout=240)

    assert process.returncode == 4, output + errors
    assert f"stopped by {how.name}" in output
    begun = [path.parent for path in folder.glob("trials/*/progress.json")]
    assert begun
    for trial in begun:
        done = json.loads((trial / "progress.json").read_text())["samples_seen"] // 16
        assert kept_steps(trial) == done
    wait_for(lambda: not in_session(process.pid))


def in_session(leader: int) -> list[str]:
    """Return the processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = path.read_text().rsplit(")", 1)[1].split()[:4]
            found += [path.parent.name] if int(session) == leader and state != "Z" else []
    return found


def test_a_second_run_of_the_same_study_is_refused(pool: Path, tmp_path: Path) -> None:
    declaration = write_declaration(
        tmp_path, pool, levels="600 GFLOP"
    )  # longer than the second takes to start
    with start_study("run", declaration, "--results", tmp_path, *WITHOUT_RAY) as first:
        wait_for((tmp_path / "tiny" / "plan.parquet").exists)
        second = study("run", declaration, "--results", tmp_path, *WITHOUT_RAY)
        first.kill()

    assert second.returncode == 2
    assert "another run of" in second.stderr


def test_a_trial_that_fails_by_itself_is_reported_and_the_others_finish(pool: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pool"
    shutil.copytree(pool, copy)
    declaration = write_declaration(tmp_path, copy, seeds="0, 1")
    run_here(declaration, tmp_path)
    shard = next((copy / "shards").glob("*.tar"))
    content = bytearray(shard.read_bytes())
    index = pd.read_parquet(copy / "index" / "00000.parquet")
    for offset in index["offset"]:
        content[offset : offset + 8] = b"no image"
    shard.write_bytes(content)

    declaration = write_declaration(tmp_path, copy, seeds="0, 1, 2")
    ended = study("run", declaration, "--results", tmp_path, *WITHOUT_RAY)

    assert ended.returncode == 1
    assert "FAILED" in ended.stdout
    assert "pairs are damaged, more than the tolerated 0.10%" in ended.stdout
    results = pd.read_parquet(tmp_path / "tiny" / "results.parquet")
    assert results["status"].tolist() == ["finished", "finished", "failed"]
    entries = read_entries(tmp_path / "tiny" / "ledger.jsonl")
    assert not Book.of(entries).open


def test_work_lost_to_a_crash_is_booked_and_the_budget_never_exceeded(pool: Path, tmp_path: Path) -> None:
    declaration = write_declaration(tmp_path, pool, **{**LONG, "seeds": "0"})
    # Room for the trial and no more: what a crash loses can't be done again.
    text = declaration.read_text().replace("study: 10 TFLOP", "study: 15 GFLOP")
    declaration.write_text(text.replace("checkpoint: 0.2 s", "checkpoint: 1 h, retries: 5"))
    folder = tmp_path / "tiny"
    hold(folder, step=100)
    with start_study("run", declaration, "--results", tmp_path, *WITHOUT_RAY) as process:
        wait_for(lambda: any(json.loads(path.read_text())["samples_seen"] for path in progress_of(folder)))
        os.kill(json.loads(progress_of(folder)[0].read_text())["pid"], signal.SIGKILL)
        output, errors = process.communicate(timeout=300)

    assert process.returncode == 3, output + errors
    assert "1 of 1 trials remain and need" in output
    assert "mini-ViT-XXS-8 clip on 512 pairs (top50) at 15 GFLOP, seed 0" in output
    entries = read_entries(folder / "ledger.jsonl")
    assert [entry.entry for entry in entries] == ["reserved", "wasted", "released"]
    assert 0 < Book.of(entries).spent_flops <= 15e9
    assert [each for each in events(folder) if "back" in each or "out" in each] == [
        "trial-set-back",
        "trial-left-out",
    ]
    assert pd.read_parquet(folder / "results.parquet").empty


def progress_of(folder: Path) -> list[Path]:
    return list(folder.glob("trials/*/progress.json"))
