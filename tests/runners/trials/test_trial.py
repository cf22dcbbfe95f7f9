"""One trial in this process: its row, its files, and the row of a diverged one."""

import dataclasses
import json
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from budgets.declaration.recipe import Recipe
from runners.host.faults import ProcessEnded
from runners.host.watchdog import Phase, position
from runners.models import model
from runners.results import RESULT_COLUMNS, to_frame
from runners.store.files import put
from runners.training.learner import Learner
from runners.training.train import train
from runners.trials import checkpoint, trial, trial_setup
from runners.trials.meter import FlopCount, Meter, read_meter, write_meter
from runners.trials.trial import run_trial
from runners.trials.trial_files import kept_steps, read_outcome
from runners.trials.trial_job import TrialJob
from tests.root import ROOT
from tests.runners.tiny import RESULT_FILES, stop_at, tiny_job, tiny_trial

pytestmark = pytest.mark.slow


@pytest.fixture
def job(pool: Path, tmp_path: Path) -> TrialJob:
    trial = tiny_trial()
    return tiny_job(trial, pool, tmp_path / trial.trial_id)


def test_a_trial_sees_exactly_its_samples_and_leaves_row_curve_and_weights_once(job: TrialJob) -> None:
    outcome = run_trial(job)

    row = to_frame([outcome.row], RESULT_COLUMNS).iloc[0]
    assert (row["samples_seen"], row["steps"], row["epochs"], row["train_flops"]) == (480, 30, 4.8, 3360)
    assert row["status"] == "finished"
    assert 0 <= row["held-out/top1"] <= row["held-out/top5"] <= 1
    curve = pd.read_parquet(job.folder / "curve.parquet")
    assert curve["samples_seen"].iloc[-1] == 480
    assert row["train_loss"] == pytest.approx(curve["loss"].tail(3).mean())
    assert {path.name for path in job.folder.iterdir()} == RESULT_FILES

    again, stored = run_trial(job), read_outcome(job.folder)
    assert stored is not None
    assert stored.timing == again.timing == outcome.timing  # measured, so it was not run again
    # As text, since a regime without levels has NaN there.
    assert len({str(sorted(each.row.items())) for each in (outcome, again, stored)}) == 1


def test_the_wait_for_a_last_checkpoint_has_the_limit_of_writing(
    job: TrialJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases, settle = set[int](), checkpoint.CheckpointWriter.settle

    def waiting(self: checkpoint.CheckpointWriter) -> None:
        phases.add(position._record.phase)  # noqa: SLF001 - what the watchdog reads
        settle(self)

    monkeypatch.setattr(checkpoint.CheckpointWriter, "settle", waiting)
    run_trial(dataclasses.replace(job, checkpoint_steps=10))
    assert phases == {Phase.BETWEEN}


@pytest.mark.parametrize(
    ("changes", "why", "ends"),
    [
        (
            {"lr_peak": 1e30, "recipe": Recipe(precision="fp32", gradient_clip=1e30, warmup=0.0)},
            "steps 0 to 25 of 30",
            {25},
        ),
        # Its features collapse: the loss stays at chance, ln 16.
        (
            {"lr_peak": 0.3, "samples_seen": 4000, "recipe": Recipe(precision="fp32", diverged_after=0.4)},
            "mean 2.77",
            {*range(125, 250)},
        ),
    ],
)
def test_diverged_trial_ends_early_and_counts_only_the_steps_done(
    job: TrialJob, changes: dict[str, Any], why: str, ends: set[int]
) -> None:
    row = run_trial(dataclasses.replace(job, trial=dataclasses.replace(job.trial, **changes))).row

    assert row["status"] == "diverged"
    assert why in row["reason"]
    assert row["steps"] in ends
    assert (row["samples_seen"], row["train_flops"]) == (16 * row["steps"], 16 * 7 * row["steps"])
    assert not [name for name in row if name.startswith("held-out/")]
    assert (job.folder / "result.json").exists()


def test_siglip_that_learns_has_the_same_rows_with_and_without_the_rule(pool: Path, tmp_path: Path) -> None:
    for steps in (140, 216):  # in the shorter one, the mean loss of steps 25 to 125 is above chance
        rows = []
        for share in (0.5, None):
            recipe = Recipe(precision="fp32", diverged_after=share)
            planned = tiny_trial(strategy="siglip", steps=steps, recipe=recipe)
            planned = dataclasses.replace(planned, lr_peak=1e-4)
            row = run_trial(tiny_job(planned, pool, tmp_path / planned.trial_id)).row
            rows.append({name: value for name, value in row.items() if name not in {"trial", "level_flops"}})
        assert rows[0]["status"] == "finished"
        assert rows[0] == rows[1]


def test_a_trial_whose_last_step_breaks_the_weights_has_diverged(
    job: TrialJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(learner: Learner, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - those of `train`
        train(learner, *arguments, **options)
        with torch.no_grad():
            next(learner.model.parameters()).fill_(torch.nan)

    monkeypatch.setattr(trial_setup, "train", broken)
    row = run_trial(job).row
    assert (row["status"], row["steps"]) == ("diverged", 30)
    assert not [name for name in row if name.startswith("held-out/")]


def test_evaluations_on_the_way_are_not_seconds_of_training(
    job: TrialJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress: list[dict[str, float]] = []
    evaluated_s, clock = [0.0], time.monotonic

    def measure(*_: object) -> dict[str, float]:
        progress.append(json.loads((job.folder / "progress.json").read_text(encoding="utf-8")))
        evaluated_s[0] += 300.0
        return {}

    monkeypatch.setattr(trial, "evaluate_trial", measure)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + evaluated_s[0])

    timing = run_trial(dataclasses.replace(job, evaluate_at=(0.25, 0.5))).timing

    assert timing["train_s"] < 2 * 300.0 < timing["wall_s"]
    assert progress[-1]["samples_seen"] == job.trial.samples_seen
    assert progress[-1]["samples_per_s"] > job.trial.samples_seen / 300.0


def test_killed_trial_resumes_to_the_same_row_and_files(job: TrialJob, tmp_path: Path) -> None:
    recipe = Recipe(precision="fp32", optimizer="adafactor", ema=0.9, accumulation=2, unmasked_tail=0.2)
    cell = dataclasses.replace(job.trial.cell, strategy="flip-50")
    trial = dataclasses.replace(job.trial, cell=cell, recipe=recipe, tail_flops_per_sample=9)
    whole = run_trial(dataclasses.replace(job, trial=trial, folder=tmp_path / "whole"))
    killed = dataclasses.replace(
        job, trial=trial, folder=tmp_path / "killed", checkpoint_s=0, evaluate_at=(0.5, 0.25, 0.9, 1.0)
    )
    (tmp_path / "job").write_bytes(pickle.dumps(killed))
    dies = (
        "import os, pickle, signal, sys; from pathlib import Path; from runners.trials import trial\n"
        "after = trial.Watch.after_step\n"
        "def after_step(self, done, **seconds):\n"
        "    after(self, done, **seconds)\n"
        "    if done == 26: os.kill(os.getpid(), signal.SIGKILL)\n"
        "trial.Watch.after_step = after_step\n"
        "trial.run_trial(pickle.loads(Path(sys.argv[1]).read_bytes()))\n"
    )
    ended = subprocess.run([sys.executable, "-c", dies, tmp_path / "job"], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert kept_steps(killed.folder) == 26

    outcome = run_trial(killed)

    assert str(outcome.row) == str(whole.row)  # evaluations on the way do not change the training
    assert outcome.row["train_flops"] == 16 * (24 * 7 + 6 * 9)
    midway = pd.read_parquet(killed.folder / "midway.parquet")
    assert midway["step"].tolist() == [8, 15, 27]
    assert midway["train_flops"].tolist() == [16 * 8 * 7, 16 * 15 * 7, 16 * (24 * 7 + 3 * 9)]
    assert midway["held-out/top5"].between(0, 1).all()
    assert (read_meter(killed.folder) or FlopCount()).evaluation_flops == 4 * 11
    one, other = (torch.load(tmp_path / name / "weights.pt") for name in ("whole", "killed"))
    assert all(torch.equal(other[name], value) for name, value in one.items())


def test_a_power_cut_leaves_no_meter_that_is_older_than_the_checkpoint(
    job: TrialJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, states = [0], []
    monkeypatch.setattr(Meter, "sync", lambda self: synced.append(self.count.train_flops))

    def keep(partial: Path, path: Path) -> None:
        states.append(synced[-1])
        put(partial, path)

    monkeypatch.setattr(checkpoint, "put", keep)
    stop_at(monkeypatch, partial(run_trial, job), 13)
    assert states == [13 * 16 * 7]

    write_meter(job.folder, FlopCount(train_flops=5 * 16 * 7))  # as if it had not been synced
    outcome = run_trial(job)

    assert outcome.row["paid_flops"] == outcome.row["train_flops"] == 30 * 16 * 7
    assert read_meter(job.folder) == FlopCount(train_flops=30 * 16 * 7, evaluation_flops=11)


def test_a_trial_of_automatic_precision_keeps_the_one_that_it_began_with(
    job: TrialJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_processor(*, bf16: bool) -> None:
        monkeypatch.setattr(model, "_processor_has_bf16", lambda: bf16)

    trial = dataclasses.replace(job.trial, recipe=Recipe(precision="auto"))
    auto = dataclasses.replace(job, trial=trial)
    other = dataclasses.replace(auto, folder=job.folder.with_name("other"))
    on_processor(bf16=False)
    stop_at(monkeypatch, partial(run_trial, auto), 13)
    on_processor(bf16=True)
    assert run_trial(auto).row["precision"] == "fp32"

    stop_at(monkeypatch, partial(run_trial, other), 13)
    on_processor(bf16=False)
    with pytest.raises(ProcessEnded, match="bf16") as ended:
        run_trial(other)
    assert ended.value.fault == "crashed"
    assert kept_steps(other.folder) == 13
    on_processor(bf16=True)
    assert run_trial(other).row["precision"] == "bf16"


def test_trial_resumes_with_other_parts_and_checkpointing_to_the_same_weights_up_to_rounding(
    job: TrialJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Recipe(precision="fp32", accumulation=4, gradient_checkpointing=True)
    first = dataclasses.replace(job, checkpoint_s=0)
    second = dataclasses.replace(first, trial=dataclasses.replace(job.trial, recipe=parts))
    assert first.trial.trial_id == second.trial.trial_id
    whole = run_trial(dataclasses.replace(first, folder=tmp_path / "whole"))
    stop_at(monkeypatch, partial(run_trial, first), 20)
    assert kept_steps(first.folder) == 20

    outcome = run_trial(second)

    assert outcome.row["train_loss"] == pytest.approx(whole.row["train_loss"], rel=1e-4)
    assert outcome.row["train_flops"] == whole.row["train_flops"]
