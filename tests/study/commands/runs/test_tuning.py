"""Tuning of the learning rate with real Ray Tune and trials, also with a killed driver."""

import json
import os
import signal
from pathlib import Path

import pandas as pd
import pytest

from budgets.book import Book, reconcile
from budgets.ledger import Ledger, read_entries
from budgets.planning.tuning_plan import values_words
from runners.results import read_table, write_table
from runners.trials.meter import Meter, read_meter
from runners.trials.trial_files import write_failure
from study.cli import main
from study.declare.load import load_declaration
from study.state.plan_study import plan_study
from study.state.study import Study
from tests.holding import hold, let_go
from tests.study.conftest import Run, start_study, study_in, write_declaration
from tests.study.events import require_documented
from tests.study.run.faults.local_study import at_work, booked, wait_for

pytestmark = pytest.mark.slow

TUNING = "tuning: {share: 5%, fields: {lr_peak: [1e-5, 1e-3]}, seeds: [1000]}\n"
RANKS = "cpus: 2, ranks: 2, checkpoint: 0.1 s, backoff: 0.1 s"


@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_tuning_widens_its_values_at_the_edge_outlives_its_worker_and_decides_the_grid(
    pool: Path, tmp_path: Path
) -> None:
    declaration, folder = declare(tmp_path, pool, level="10 GFLOP", resources=RANKS), tmp_path / "tiny"
    hold(folder, step=60)
    with start_study("run", declaration, "--results", tmp_path) as process:
        wait_for(lambda: at_work(folder))
        os.kill(json.loads((at_work(folder)[0] / "progress.json").read_text())["pid"], signal.SIGKILL)
        let_go(folder)
        output, errors = process.communicate(timeout=400)

    assert process.returncode == 0, output + errors
    assert "Traceback" not in output + errors
    assert "╭" not in output, "Tune prints no tables"
    assert "rank 0 of 2: the trial's process died by SIGKILL; retrying from its last checkpoint" in output
    assert said_events(folder).count("trial-retried") == 1
    assert output.count("at once on 1 node") == 1, "of the tuning and of the grid"

    tried = read_table(folder / "tuning.parquet")
    assert tried["tuned_lr_peak"].tolist() == [1e-5, 1e-3, 1e-1], "the higher one won at the edge"
    assert set(tried["level_flops"]) == {10e9}
    (winner,) = json.loads((folder / "tuning.json").read_text())["winners"]
    assert (winner["values"], winner["widened"], winner["at_edge"]) == ({"lr_peak": 1e-3}, ["lr_peak"], [])
    assert pd.read_parquet(folder / "results.parquet")["lr_peak"].tolist() == [1e-3]
    require_reconciled(declaration)
    assert "tuning selects by held-out/top1, which the study also reports" in output


@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_a_tuning_whose_driver_was_killed_continues_without_ray_and_repeats_nothing(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration, folder = declare(tmp_path, pool, level="10 GFLOP"), tmp_path / "tiny"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with monkeypatch.context() as environment:
        environment.setenv("TMPDIR", str(scratch))
        first = start_study("run", declaration, "--results", tmp_path)
    with first:
        wait_for(lambda: list(folder.glob("trials/*/result.json")))
        first.send_signal(signal.SIGKILL)
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}
    assert finished
    assert not list(scratch.glob("tun*")), "Tune's records are in memory and in Ray's own session"

    assert main(["run", str(declaration), "--results", str(tmp_path), "--backend", "local"]) == 0

    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "finished work was done again"
    assert len(read_table(folder / "tuning.parquet")) == 3
    require_reconciled(declaration)


def test_a_tuning_whose_share_was_used_up_by_crashes_lists_the_remaining_trials(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration, folder = declare(tmp_path, pool, resources="checkpoint: 1000 s"), tmp_path / "tiny"
    declaration.write_text(declaration.read_text().replace("share: 5%", "share: 0.6%"))  # two trials, no more
    tuning = plan_study(loaded(declaration)).tuning
    assert tuning is not None
    # The slowest learner ends early as diverged, which would leave room for the other.
    slowest = min(tuning.trials, key=lambda trial: trial.lr_peak)
    killed = folder / "trials" / slowest.trial_id
    hold(folder, step=100)
    with start_study("run", declaration, "--results", tmp_path, "--backend", "local") as process:
        wait_for(lambda: killed in far_on(folder))
        os.kill(json.loads((killed / "progress.json").read_text())["pid"], signal.SIGKILL)
        let_go(folder)
        output, errors = process.communicate(timeout=400)

    assert process.returncode == 3, output + errors
    *_, first, which = output.splitlines()
    assert first.startswith("1 of 2 trials of the tuning remain and need ")
    assert "the share of 60 GFLOP has no room for them" in first
    assert which.endswith(f" at 30 GFLOP, {values_words({'lr_peak': slowest.lr_peak})}, seed 1000")
    assert said_events(folder).count("trial-left-out") == 1
    assert "study-started" not in said_events(folder), "the grid waits"
    assert booked(folder, "spent") + booked(folder, "wasted") <= 60e9

    assert main(["run", str(declaration), "--results", str(tmp_path), "--dry-run"]) == 0
    assert "2 trials of the tuning: 1 finished, 1 to run" in capsys.readouterr().out

    for share, left in (("0.6%", {"waiting": 0, "left_out": 1}), ("5%", {"waiting": 1, "left_out": 0})):
        declaration.write_text(declaration.read_text().replace("share: 0.6%", f"share: {share}"))
        assert main(["status", str(declaration), "--results", str(tmp_path), "--json"]) == 0
        level, *_ = json.loads(capsys.readouterr().out)["levels"]
        assert level == {"name": "tuning", "done": 1, "running": 0, "failed": 0} | left


def test_a_failed_trial_of_a_tuning_stops_the_grid_and_neither_the_others_nor_an_earlier_declaration(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration, folder = declare(tmp_path, pool, level="3 GFLOP"), tmp_path / "tiny"
    tuning = plan_study(loaded(declaration)).tuning
    assert tuning is not None
    failed, other = tuning.trials
    (folder / "trials" / failed.trial_id).mkdir(parents=True)
    write_failure(folder / "trials" / failed.trial_id, "made up")
    (folder / "trials" / "earlier").mkdir()
    Meter(folder / "trials" / "earlier").add(train_flops=10**9)
    Ledger(folder / "ledger.jsonl", None).reserve("earlier", 10 * 10**12)  # the whole budget, before tuning:

    def said(command: str, *words: str) -> tuple[int, str]:
        code = main([command, str(declaration), "--results", str(tmp_path), *words])
        return code, capsys.readouterr().out

    _, agenda = said("run", "--dry-run")
    assert "2 trials of the tuning: 1 failed in an earlier run" in agenda
    assert "then the grid, with the winning values, once all have a result:" in agenda
    code, run = said("run", "--backend", "local")
    assert code == 1
    assert (folder / "trials" / other.trial_id / "result.json").exists()
    assert Book.of(read_entries(folder / "ledger.jsonl")).open["earlier"].left == 10**9, (
        "the grid may need it"
    )
    assert (
        "1 of the tuning failed in an earlier run, and the grid can't start before they have a result" in run
    )
    assert "the grid can't start without what failed: `run --retry-failed`" in said("status")[1]
    assert said("run", "--backend", "local", "--retry-failed")[0] == 0
    assert len(read_table(folder / "results.parquet")) == 1
    assert booked(folder, "wasted") == 10**9
    assert not Book.of(read_entries(folder / "ledger.jsonl")).open


def test_another_selecting_metric_without_anything_to_run_is_written(
    pool: Path, tmp_path: Path, run: Run
) -> None:
    declaration, folder = declare(tmp_path, pool, level="3 GFLOP"), tmp_path / "tiny"
    run(f"run {declaration} --results {tmp_path} --backend local")
    entries, tried = read_entries(folder / "ledger.jsonl"), read_table(folder / "tuning.parquet")
    write_table(folder / "tuning.parquet", tried.assign(**{"held-out/top5": tried["held-out/top1"] + 0.5}))
    (folder / "tuning-plan.parquet").unlink()
    declaration.write_text(declaration.read_text().replace("share: 5%", "share: 5%, metric: held-out/top5"))

    run(f"run {declaration} --results {tmp_path} --backend local")

    assert read_entries(folder / "ledger.jsonl") == entries, "nothing was run"
    written, planned = (
        json.loads((folder / "tuning.json").read_text()),
        plan_study(loaded(declaration)).tuning,
    )
    assert planned is not None
    assert (written["metric"], written["winners"][0]["score"]) == ("held-out/top5", planned.winners[0].score)
    ids = [trial.trial_id for trial in planned.ready]
    assert read_table(folder / "tuning-plan.parquet")["trial"].tolist() == ids


def test_the_pools_validation_set_selects_if_there_is_one(tmp_path: Path, run: Run) -> None:
    declaration = tmp_path / "tuned.yaml"
    declaration.write_text(
        "study: tuned\npool: {embedded: {pairs: 1024}}\nbudget: {levels: [25 GFLOP], study: 9 TFLOP}\n"
        "grid: [{architectures: [mini-ViT-XXS-8]}]\ntraining: {batch_size: 16}\n" + TUNING
    )

    printed = run(f"plan {declaration} --results {tmp_path}")

    assert "tuning: 2 trials, 49.81 GFLOP, at most 74.72 GFLOP if all ranges are widened" in printed
    assert "450 GFLOP of the study budget are set aside; validation/top1 selects" in printed
    assert "1 trial and 2 of the tuning, " in printed
    assert "of one slot (0 of 3 trials by measured throughput)" in printed


def declare(
    folder: Path, pool: Path, *, level: str = "30 GFLOP", resources: str = "checkpoint: 0.3 s"
) -> Path:
    declaration = write_declaration(folder, pool, levels=level)
    text = declaration.read_text().replace("checkpoint: 0.2 s", resources)
    declaration.write_text(text + TUNING)
    return declaration


def said_events(folder: Path) -> list[str]:
    require_documented(folder / "events.jsonl")
    return [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("how", [pytest.param("SIGUSR1", marks=pytest.mark.ray), "study stop"])
def test_a_stopped_tuning_keeps_its_work_and_continues(
    pool: Path, tmp_path: Path, run: Run, how: str, request: pytest.FixtureRequest
) -> None:
    declaration, folder = declare(tmp_path, pool), tmp_path / "tiny"
    by_signal = how == "SIGUSR1"  # which Ray Tune would take for itself
    if by_signal:
        request.getfixturevalue("on_ray")
    backend = "ray" if by_signal else "local"
    hold(folder, step=100)
    with start_study("run", declaration, "--results", tmp_path, "--backend", backend) as process:
        wait_for(lambda: at_work(folder))
        if by_signal:
            process.send_signal(signal.SIGUSR1)
        else:
            run(f"stop {declaration} --results {tmp_path}")
        output, errors = process.communicate(timeout=240)

    assert process.returncode == 4, output + errors
    assert f"stopped by {how if by_signal else '`study stop`'}" in output
    assert said_events(folder)[-1] == "tuning-ended"
    let_go(folder)
    assert at_work(folder), "it left a checkpoint"
    assert booked(folder, "wasted") == 0
    printed = run(f"run {declaration} --results {tmp_path} --dry-run")
    assert "2 trials of the tuning: " in printed
    assert "at 30 GFLOP, lr_peak 1e-05, seed 1000: " in printed
    assert printed.count("continues at") == len(at_work(folder))
    assert "then the grid, with the winning values:\n1 trial: 1 to run" in printed


def require_reconciled(declaration: Path) -> None:
    folder = declaration.parent / "tiny"
    require_documented(folder / "events.jsonl")
    entries = read_entries(folder / "ledger.jsonl")
    assert not Book.of(entries).open
    spent = [entry.what for entry in entries if entry.entry == "spent"]
    assert len(spent) == len(set(spent)) == 4
    counted = [read_meter(trial) for trial in folder.glob("trials/*")]
    done = sum(count.train_flops for count in counted if count is not None)
    assert done == booked(folder, "spent") + booked(folder, "wasted")
    assert not reconcile(plan_study(loaded(declaration)), entries)


def loaded(declaration: Path) -> Study:
    folder = declaration.parent
    return study_in(declaration=load_declaration(declaration), folder=folder / "tiny", pools=folder)


def far_on(folder: Path) -> list[Path]:
    """Return the trials that have computed more than a few steps."""
    counts = {trial: read_meter(trial) for trial in folder.glob("trials/*")}
    return [trial for trial, count in counts.items() if count is not None and count.train_flops > 3e9]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backend", "local", "--address", "x:1"),
         "--address is for a Ray cluster and --backend local runs"),
        (("--only", "clip"), "--only can't be used before the tuning is finished"),
    ],
)  # fmt: skip
def test_an_invalid_tuning_is_refused_before_anything_is_written(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    declaration = declare(tmp_path, pool)

    assert main(["run", str(declaration), "--results", str(tmp_path), *words]) == 2

    assert message in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()
