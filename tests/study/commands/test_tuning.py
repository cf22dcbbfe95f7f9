"""Tuning of the learning rate with real Ray Tune and trials, also with a killed driver."""

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from budgets.planning.tuning_plan import TuningPlan, values_words
from runners.trials.meter import Meter, read_meter
from runners.trials.trial_files import read_outcome, write_failure, write_outcome
from tests.holding import hold, let_go
from tests.study.conftest import Run
from tests.study.events import require_documented
from tests.study.tiny_study import TinyStudy, ended, read_json
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

TUNING = "tuning: {{{}, fields: {{lr_peak: [1e-5, 1e-3]}}, seeds: [1000]}}\n"
RANKS = "cpus: 2, ranks: 2, checkpoint: 0.1 s, backoff: 0.1 s"


def declare(
    tiny: TinyStudy, *, level: str = "30 GFLOP", resources: str = "checkpoint: 0.3 s", rate: str = "2e-3",
    **tuning: str,
) -> None:  # fmt: skip
    """Declare a tuning that tries two rates; its share or metric may be another."""
    keys = ", ".join(f"{key}: {value}" for key, value in ({"share": "5%"} | tuning).items())
    tiny.declare(levels=level, resources=resources, lr_peak=rate, more=TUNING.format(keys))


def require_reconciled(tiny: TinyStudy, *, trials: int) -> None:
    require_documented(tiny.folder / "events.jsonl")
    book = tiny.settled()
    assert sum(account.spent_flops > 0 for account in tiny.book().trials.values()) == trials
    counted = [read_meter(trial) for trial in tiny.trials()]
    assert sum(count.train_flops for count in counted if count is not None) == sum(book.values())


def tuning_of(tiny: TinyStudy) -> TuningPlan:
    tuning = tiny.plan.tuning
    assert tuning is not None
    return tuning


def far_on(tiny: TinyStudy) -> list[Path]:
    """Return the trials that have computed more than a few steps."""
    counts = {trial: read_meter(trial) for trial in tiny.trials()}
    return [trial for trial, count in counts.items() if count is not None and count.train_flops > 3e9]


@pytest.mark.ray
@pytest.mark.usefixtures("on_ray", "undrawn")
def test_tuning_at_chance_goes_on_at_the_next_level_outlives_its_worker_and_picks_no_winner_from_noise(
    tiny: TinyStudy,
) -> None:
    declare(tiny, level="10 GFLOP, 11 GFLOP", resources=RANKS)
    hold(tiny.folder, step=60)
    with tiny.start() as process:
        wait_for(tiny.at_work)
        os.kill(read_json(tiny.at_work()[0] / "progress.json")["pid"], signal.SIGKILL)
        let_go(tiny.folder)
        output = ended(process)

    assert "Traceback" not in output
    assert "╭" not in output, "Tune prints no tables"
    assert re.search(r"rank 0 of 2: .* SIGKILL", output)
    assert tiny.event_names().count("trial-retried") == 1
    assert output.count("at once on 1 node") == 1, "of the tuning and of the grid"

    tried = tiny.table("tuning")
    assert tried["tuned_lr_peak"].tolist() == [1e-5, 1e-3] * 2
    assert tried["level_flops"].tolist() == [10e9, 10e9, 11e9, 11e9]
    assert read_json(tiny.folder / "tuning.json")["winners"] == []
    assert tiny.table()["lr_peak"].tolist() == [2e-3, 2e-3], "the declared rate"
    require_reconciled(tiny, trials=6)
    assert output.count("note: tuning of mini-ViT-XXS-8 with clip: all 2 results at ") == 2
    tiny.says("report")
    page = (tiny.folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "all 2 results at 11 GFLOP are at chance" in " ".join(page.split())
    assert "selects by held-out/top1" in output


@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_a_tuning_whose_driver_was_killed_continues_without_ray_and_repeats_nothing(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(tiny, level="10 GFLOP")
    scratch = tiny.place / "scratch"
    scratch.mkdir()
    with monkeypatch.context() as environment:
        environment.setenv("TMPDIR", str(scratch))
        first = tiny.start()
    with first:
        wait_for(lambda: tiny.trials("result.json"))
        first.send_signal(signal.SIGKILL)
    finished = {path: path.stat().st_mtime_ns for path in tiny.trials("result.json")}
    assert finished
    assert not list(scratch.glob("tun*")), "Tune's records are in memory and in Ray's own session"

    tiny.run()

    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "finished work was done again"
    assert len(tiny.table("tuning")) == 2
    require_reconciled(tiny, trials=3)


def test_a_tuning_whose_share_was_used_up_by_crashes_lists_the_remaining_trials(tiny: TinyStudy) -> None:
    # Two trials, no more.
    declare(tiny, resources="checkpoint: 1000 s", share="0.6%")
    # The slowest learner ends early as diverged, which would leave room for the other.
    slowest = min(tuning_of(tiny).trials, key=lambda trial: trial.lr_peak)
    killed = tiny.folder / "trials" / slowest.trial_id
    hold(tiny.folder, step=100)
    with tiny.start("--backend", "local") as process:
        wait_for(lambda: killed in far_on(tiny))
        os.kill(read_json(killed / "progress.json")["pid"], signal.SIGKILL)
        let_go(tiny.folder)
        output = ended(process, code=3)

    *_, first, which = output.splitlines()
    assert first.startswith("1 of 2 trials ")
    assert "60 GFLOP" in first
    assert which.endswith(f" at 30 GFLOP, {values_words({'lr_peak': slowest.lr_peak})}, seed 1000")
    require_documented(tiny.folder / "events.jsonl")
    assert tiny.event_names().count("trial-left-out") == 1
    assert "study-started" not in tiny.event_names(), "the grid waits"
    assert tiny.booked("spent") + tiny.booked("wasted") <= 60e9

    assert "2 trials of the tuning: 1 finished, 1 to run" in tiny.says("run --dry-run")

    for share, left in (("0.6%", {"waiting": 0, "left_out": 1}), ("5%", {"waiting": 1, "left_out": 0})):
        tiny.edit(("share: 0.6%", f"share: {share}"))
        level, *_ = tiny.status()["levels"]
        assert level == {"name": "tuning", "done": 1, "running": 0, "failed": 0} | left


def test_a_failed_trial_of_a_tuning_stops_the_grid_and_neither_the_others_nor_an_earlier_declaration(
    tiny: TinyStudy,
) -> None:
    declare(tiny, level="3 GFLOP")
    failed, other = tuning_of(tiny).trials
    trials = tiny.folder / "trials"
    (trials / failed.trial_id).mkdir(parents=True)
    write_failure(trials / failed.trial_id, "made up")
    (trials / "earlier").mkdir()
    Meter(trials / "earlier").add(train_flops=10**9)
    checkpoint = trials / "earlier" / "checkpoint-0000000040-abc.pt"
    checkpoint.touch()

    assert "2 trials of the tuning: 1 failed " in tiny.says("run --dry-run")
    tiny.run(code=1)
    assert "study-started" not in tiny.event_names(), "the grid waits"
    assert (trials / other.trial_id / "result.json").exists()
    assert checkpoint.exists(), "the grid may need it"
    assert "`run --retry-failed`" in tiny.says("status")
    tiny.run("--retry-failed")
    assert len(tiny.table()) == 1
    assert not checkpoint.exists()
    assert tiny.settled()["wasted"] == 10**9


def test_another_selecting_metric_without_anything_to_run_is_written(tiny: TinyStudy) -> None:
    # No room for values beyond the edge, and the rate of the grid is that which wins.
    declare(tiny, level="3 GFLOP", share="0.06%", rate="1e-5")
    tiny.run()
    book = tiny.book()
    for trial in tiny.trials():
        outcome = read_outcome(trial)
        assert outcome is not None
        better = {**outcome.row, "held-out/top5": outcome.row["held-out/top1"] + 0.5}
        write_outcome(trial, replace(outcome, row=better))
    (tiny.folder / "tuning.parquet").unlink()
    (tiny.folder / "tuning-plan.parquet").unlink()
    declare(tiny, level="3 GFLOP", share="0.06%", rate="1e-5", metric="held-out/top5")

    tiny.run()

    assert tiny.book() == book, "nothing was run"
    written, planned = read_json(tiny.folder / "tuning.json"), tuning_of(tiny)
    assert (written["metric"], written["winners"][0]["score"]) == ("held-out/top5", planned.winners[0].score)
    ids = [trial.trial_id for trial in planned.ready]
    assert tiny.table("tuning-plan")["trial"].tolist() == ids


def test_the_pools_validation_set_selects_if_there_is_one(tmp_path: Path, run: Run) -> None:
    declaration = tmp_path / "tuned.yaml"
    declaration.write_text(
        "study: tuned\npool: {embedded: {pairs: 1024}}\nbudget: {levels: [25 GFLOP], study: 9 TFLOP}\n"
        "grid: [{architectures: [mini-ViT-XXS-8]}]\ntraining: {batch_size: 16}\n" + TUNING.format("share: 5%")
    )

    printed = run(f"plan {declaration} --results {tmp_path}")

    assert "tuning: 2 trials, 49.81 GFLOP; 450 GFLOP " in printed
    assert "tuning by pair: mini-ViT-XXS-8 clip 49.8 GFLOP\n" in printed
    assert re.search("450 GFLOP .* validation/top1 selects", printed)


@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_a_stopped_tuning_keeps_its_work_and_continues(tiny: TinyStudy) -> None:
    declare(tiny)
    hold(tiny.folder, step=100)
    with tiny.start() as process:
        wait_for(tiny.at_work)
        process.send_signal(signal.SIGUSR1)  # which Ray Tune would take for itself
        output = ended(process, code=4)

    assert "stopped by SIGUSR1" in output
    require_documented(tiny.folder / "events.jsonl")
    assert tiny.event_names()[-1] == "tuning-ended"
    let_go(tiny.folder)
    assert tiny.at_work(), "it left a checkpoint"
    assert tiny.booked("wasted") == 0
    printed = tiny.says("run --dry-run")
    assert "at 30 GFLOP, lr_peak 1e-05, seed 1000: " in printed
    assert printed.count("continues at") == len(tiny.at_work())
    assert "\n1 trial: 1 to run" in printed


def test_an_invalid_tuning_is_refused_before_anything_is_written(tiny: TinyStudy) -> None:
    declare(tiny)
    assert "--only" in tiny.says("run --only clip", code=2)
    assert not tiny.folder.exists()
