"""Speed of loading, measured and held against the speed of training."""

import re
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from budgets.declaration.recipe import Recipe
from budgets.declaration.rules import TrialResources
from runners.training.ranks import rank
from runners.trials import try_kind as trying
from runners.trials.throughput import Calibration, Throughput, read_calibration, slow_loading
from runners.trials.trial_files import Outcome
from runners.trials.trial_job import TrialJob
from runners.trials.try_kind import loading_speed, try_kind
from tests.fresh import in_fresh_process
from tests.runners.tiny import tiny_job, tiny_trial

pytestmark = pytest.mark.slow


def test_the_plan_names_kinds_whose_loader_workers_are_no_faster_than_their_training(tmp_path: Path) -> None:
    def notes(worker: float, cpus: int, *, devices: int = 1) -> list[str]:
        trial = replace(tiny_trial(), resources=TrialResources(cpus=cpus, gpus=devices))
        speed = Throughput(
            architecture="mini-ViT-XXS-8", strategy="clip", batch_size=16, precision="bf16", steps=10,
            samples_per_s=1000.0, memory_bytes=1, worker_samples_per_s=worker,
        )  # fmt: skip
        Calibration(machine="here", device="h100-sxm", side_by_side=1, kinds=(speed,)).write(
            tmp_path / "file"
        )
        return list(slow_loading((trial, trial), read_calibration(tmp_path / "file")))

    (note,) = notes(130.0, 8)
    assert note.startswith("mini-ViT-XXS-8 clip: 8 ")
    assert re.findall(r"1,0\d0", note) == ["1,040", "1,000"], "samples a second of loading and of training"
    assert notes(140.0, 8) == []
    assert len(notes(140.0, 8, devices=2)) == 1
    assert notes(0.0, 8) == []  # not measured
    assert list(slow_loading((tiny_trial(),), None)) == []


def test_speed_of_loading_is_that_of_one_worker(pool: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny_trial(), pool, tmp_path)

    began = time.perf_counter()
    found = loading_speed(job, 0.2)

    assert found > 16 / (time.perf_counter() - began)


def test_the_unmasked_tail_counts_for_memory_but_not_for_speed(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(precision="fp32", unmasked_tail=0.01)
    job = tiny_job(tiny_trial(strategy="flip-50", recipe=recipe), pool, tmp_path)
    runs: list[tuple[int, bool]] = []

    def run(tried: TrialJob) -> Outcome:
        trial = tried.trial
        tail = trial.recipe.tail_steps(trial.steps) > 0
        runs.append((trial.steps, tail))
        timing = {"samples_per_s": 10.0 if tail else 20.0, "memory_bytes": 9 if tail else 5}
        row = {"precision": "fp32", "steps": trial.steps}
        return Outcome(row=row, timing=timing | {"waited_s": 0.0, "train_s": 1.0})

    monkeypatch.setattr(trying, "take_part", run)
    found = try_kind(job)

    assert runs == [(2, True), (4, False), (4, False)]
    assert found is not None
    assert (found.speed.samples_per_s, found.speed.memory_bytes) == (20.0, 9)


_starts: list[int] = []


def _slow_to_begin(job: TrialJob) -> Outcome | None:
    """Take 10 ms a step, and 2 s at the start of a process, as CUDA and NCCL do."""
    if rank():
        return None
    cost = 0.01 * job.trial.steps + (0.0 if _starts else 2.0)
    _starts.append(1)
    speed = job.trial.samples_seen / cost
    timing = {"samples_per_s": speed, "memory_bytes": 5, "waited_s": 0.0, "train_s": cost}
    return Outcome(row={"precision": "fp32", "steps": job.trial.steps}, timing=timing)


def test_what_ranks_do_once_is_not_part_of_their_speed(pool: Path, tmp_path: Path) -> None:
    job = replace(tiny_job(tiny_trial(), pool, tmp_path), ranks=2)

    found = in_fresh_process(partial(try_kind, job, 1.0), {f"{trying.__name__}.take_part": _slow_to_begin})

    assert found is not None
    assert found.speed.samples_per_s == pytest.approx(job.trial.batch_size / 0.01)
