"""Speed measurement of a kind of trial: the first steps of a real one in a fresh process."""

import dataclasses
import tempfile
import time
from functools import partial
from pathlib import Path

from budgets.planning.planned_trial import Trial
from runners.training.ranks import decided_by_first, run_ranks
from runners.trials.throughput import Throughput
from runners.trials.trial import take_part
from runners.trials.trial_files import Outcome
from runners.trials.trial_job import TrialJob
from runners.trials.trial_setup import load_subset

_WARM_STEPS = 5
_FEWEST_STEPS = 10
_LOADING_S = 2.0


def measure_kind(
    job: TrialJob,
    seconds: float,
    *,
    warm_steps: int = _WARM_STEPS,
    fewest_steps: int = _FEWEST_STEPS,
    below: str | None = None,
) -> Throughput:
    """Measure one kind for about ``seconds`` seconds, after a few warm-up steps.

    Its files are in a temporary folder, ``below`` a folder if one is given.
    """
    with tempfile.TemporaryDirectory(dir=below) as folder:
        runs = partial(_runs, job, Path(folder), seconds, warm_steps, fewest_steps)
        # All in the same processes, so that what each does once is part of the warm-up.
        outcomes = run_ranks(runs, count=job.ranks, gpus=bool(job.gpus)) if job.ranks > 1 else runs()
    worker = loading_speed(job, max(_LOADING_S, seconds / 10)) if job.gpus else 0.0
    memory = max(int(outcome.timing["memory_bytes"]) for outcome in outcomes)
    speed = throughput_of(job.trial, outcomes[-1], worker_samples_per_s=worker)
    return dataclasses.replace(speed, memory_bytes=memory)


def _runs(job: TrialJob, folder: Path, seconds: float, warm_steps: int, fewest_steps: int) -> list[Outcome]:
    """Return the outcomes of three runs of a trial's first steps, the last for ``seconds``, on rank 0."""
    # The unmasked tail needs the most memory, but is too short a part of a trial to be timed here.
    outcomes = [take_part(some_steps(job, warm_steps, folder / "warm", unmasked=True))]
    # One-time costs slow down the first steps: a second, longer measurement tells how many steps fit.
    for share in (0.1, 1.0):
        fitting = decided_by_first(partial(_fitting, outcomes[-1], job, seconds * share))
        outcomes.append(take_part(some_steps(job, max(fewest_steps, fitting), folder / str(share))))
    return [outcome for outcome in outcomes if outcome is not None]


def _fitting(outcome: Outcome | None, job: TrialJob, seconds: float) -> int:
    """Return the number of a trial's steps that fit into some seconds, by rank 0's last measurement."""
    assert outcome is not None, "called on rank 0"
    return min(int(outcome.timing["samples_per_s"] * seconds / job.trial.batch_size), job.trial.steps)


def throughput_of(trial: Trial, outcome: Outcome, *, worker_samples_per_s: float = 0.0) -> Throughput:
    """Return the measurement of a kind of trial from the outcome of some of its steps."""
    return Throughput(
        architecture=trial.cell.architecture,
        strategy=trial.cell.strategy,
        batch_size=trial.batch_size,
        precision=str(outcome.row["precision"]),
        steps=outcome.row["steps"],
        samples_per_s=outcome.timing["samples_per_s"],
        memory_bytes=int(outcome.timing["memory_bytes"]),
        passes=trial.recipe.passes,
        gpus=trial.resources.devices,
        worker_samples_per_s=worker_samples_per_s,
        waited=outcome.timing["waited_s"] / max(outcome.timing["train_s"], 1e-9),
    )


def some_steps(job: TrialJob, steps: int, folder: Path, *, unmasked: bool = False) -> TrialJob:
    """Return the job of a trial's first steps in another folder, without evaluation.

    If the trial ends with unmasked steps, ``unmasked`` makes the last of these steps one.
    """
    recipe = job.trial.recipe
    if unmasked and recipe.unmasked_tail:
        recipe = dataclasses.replace(recipe, unmasked_tail=max(recipe.unmasked_tail, 1 / steps))
    trial = dataclasses.replace(
        job.trial,
        samples_seen=steps * job.trial.batch_size,
        # A declared warm-up may be longer than these few steps, and divergence cannot be judged.
        recipe=dataclasses.replace(recipe, warmup_samples=None, diverged_after=None),
    )
    return dataclasses.replace(job, trial=trial, evaluation={}, probes=(), trunk=(), folder=folder)


def loading_speed(job: TrialJob, seconds: float) -> float:
    """Measure one loader worker: samples a second of a trial's data without training, over its workers.

    The samples are from the middle of the trial, so that most were not read just before. The start of the
    workers is part of the time, since what they load meanwhile is part of the samples.
    """
    trial, (data, _) = job.trial, load_subset(job)
    middle = trial.steps // 2
    began, seen = time.perf_counter(), 0
    for batch in data.batches(
        seed=trial.seed, batch_size=trial.batch_size, first_step=middle, steps=trial.steps
    ):
        seen += len(batch.ids)
        took = time.perf_counter() - began
        if took >= seconds:
            break
    return seen / took / max(1, job.cpus // job.ranks if job.gpus else 1)
