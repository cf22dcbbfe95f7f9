"""A study that tunes its learning rate first: real Ray Tune, real trials, a driver that is killed."""

import json
import os
import signal
from pathlib import Path

import pandas as pd
import pytest

from budgets.ledger import read_entries, reserved
from budgets.reconcile import reconcile
from runners.meter import read_count
from runners.results import read_table
from study.cli import main
from study.load import load_declaration
from study.study import Study, plan_study
from tests.study.conftest import start_study, study, write_declaration
from tests.study.events import require_documented
from tests.study.test_stop_and_resume import at_work, booked, wait_for

pytestmark = pytest.mark.ray

TUNING = "tuning: {share: 5%, fields: {lr_peak: [1e-5, 1e-3]}, seeds: [1000]}\n"
RANKS = "cpus: 2, ranks: 2, checkpoint: 0.1 s, backoff: 0.1 s"


def test_tuning_widens_its_values_at_the_edge_goes_on_after_a_kill_and_decides_the_grid(
    pool: Path, tmp_path: Path
) -> None:
    declaration = write_declaration(tmp_path, pool, levels="25 GFLOP, 30 GFLOP")
    declaration.write_text(declaration.read_text() + TUNING)
    folder = tmp_path / "tiny"
    with start_study("run", declaration, "--results", tmp_path) as first:
        wait_for(lambda: list(folder.glob("trials/*/result.json")))
        first.send_signal(signal.SIGKILL)
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}

    ended = study("run", declaration, "--results", tmp_path)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "finished work was done again"
    tried = read_table(folder / "tuning.parquet")
    assert tried["tuned_lr_peak"].tolist() == [1e-5, 1e-3, 1e-1], "the higher one won at the edge"
    assert set(tried["level_flops"]) == {25e9}
    (winner,) = json.loads((folder / "tuning.json").read_text())["winners"]
    assert (winner["values"], winner["widened"], winner["at_edge"]) == ({"lr_peak": 1e-3}, ["lr_peak"], [])
    assert pd.read_parquet(folder / "results.parquet")["lr_peak"].tolist() == [1e-3, 1e-3]

    entries = read_entries(folder / "ledger.jsonl")
    assert reserved(entries) == {}
    spent = [entry.what for entry in entries if entry.entry == "spent"]
    assert len(spent) == len(set(spent)) == 5
    loaded = Study(declaration=load_declaration(declaration), folder=folder, pools=tmp_path)
    assert reconcile(plan_study(loaded), entries).holds
    require_documented(folder / "events.jsonl")
    assert "tuning selects by held-out/top1, which is also what the study reports" in ended.stdout


def test_the_pools_validation_set_selects_where_it_has_one(tmp_path: Path) -> None:
    declaration = tmp_path / "tuned.yaml"
    declaration.write_text(
        "study: tuned\npool: {embedded: {pairs: 1024}}\nbudget: {levels: [25 GFLOP], study: 9 TFLOP}\n"
        "grid: [{architectures: [mini-ViT-XXS-8]}]\ntraining: {batch_size: 16}\n" + TUNING
    )

    ended = study("plan", declaration, "--results", tmp_path)

    assert "tuning: 2 trials, 49.81 GFLOP, at most 74.72 GFLOP where values are widened" in ended.stdout
    assert "450 GFLOP of the study budget are set aside; validation/top1 selects" in ended.stdout
    assert "1 trials wait for it" in ended.stdout


def declare(
    folder: Path, pool: Path, *, level: str = "60 GFLOP", resources: str = "checkpoint: 0.3 s"
) -> Path:
    declaration = write_declaration(folder, pool, levels=level)
    text = declaration.read_text().replace("checkpoint: 0.5 s", resources)
    declaration.write_text(text + TUNING)
    return declaration


def said_events(folder: Path) -> list[str]:
    require_documented(folder / "events.jsonl")
    return [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("how", ["SIGUSR1", "study stop"])
def test_a_tuning_that_is_stopped_keeps_its_work_and_goes_on(pool: Path, tmp_path: Path, how: str) -> None:
    declaration, folder = declare(tmp_path, pool), tmp_path / "tiny"
    with start_study("run", declaration, "--results", tmp_path) as process:
        wait_for(lambda: at_work(folder))
        if how == "study stop":
            assert study("stop", declaration, "--results", tmp_path).returncode == 0
        else:
            process.send_signal(signal.Signals[how])
        output, errors = process.communicate(timeout=120)

    assert process.returncode == 4, output + errors
    assert f"told to stop by {how if how != 'study stop' else '`study stop`'}" in output
    assert said_events(folder)[-1] == "tuning-ended"
    assert at_work(folder), "it left a checkpoint"
    assert booked(folder, "wasted") == 0
    told = study("run", declaration, "--results", tmp_path, "--dry-run")
    assert "2 trials of the tuning: " in told.stdout
    assert "at 60 GFLOP, lr_peak 1e-05, seed 1000: " in told.stdout
    assert told.stdout.count("goes on at") == len(at_work(folder))
    assert "then, with the values that win, the grid:\n1 trials: 1 to run" in told.stdout


def test_a_tuning_in_ranks_goes_on_after_its_worker_is_killed(pool: Path, tmp_path: Path) -> None:
    declaration, folder = declare(tmp_path, pool, level="10 GFLOP", resources=RANKS), tmp_path / "tiny"
    with start_study("run", declaration, "--results", tmp_path) as process:
        wait_for(lambda: at_work(folder))
        os.kill(json.loads((at_work(folder)[0] / "progress.json").read_text())["pid"], signal.SIGKILL)
        output, errors = process.communicate(timeout=200)

    assert process.returncode == 0, output + errors
    assert "Traceback" not in output + errors
    assert "rank 0 of 2: the trial's process died by SIGKILL; it goes on from its last checkpoint" in output
    assert said_events(folder).count("trial-retried") == 1
    entries = read_entries(folder / "ledger.jsonl")
    assert reserved(entries) == {}
    counted = [read_count(trial) for trial in folder.glob("trials/*")]
    done = sum(count.train_flops for count in counted if count is not None)
    assert done == booked(folder, "spent") + booked(folder, "wasted")
    loaded = Study(declaration=load_declaration(declaration), folder=folder, pools=tmp_path)
    assert reconcile(plan_study(loaded), entries).holds
    assert output.count("at once on 1 node") == 2, "of the tuning and of the grid"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--backend", "local", "--address", "x:1"), "--address names a Ray cluster, --backend local runs"),
        (
            ("--backend", "local"),
            "--backend local: the tuning is not finished, and it runs on Ray Tune alone",
        ),
        (
            ("--only", "clip"),
            "--only: the tuning is not finished, and it decides what all cells are run with",
        ),
    ],
)
def test_what_a_tuning_cannot_do_is_refused_before_anything_is_written(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    declaration = declare(tmp_path, pool)

    assert main(["run", str(declaration), "--results", str(tmp_path), *words]) == 2

    assert told in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()
