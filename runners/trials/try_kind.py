"""A try of a kind of trial: its speed and memory in the first steps of a real one, and a checkpoint of it."""

import dataclasses
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from budgets.planning.planned_trial import Trial
from runners.training.ranks import decided_by_first, rank_count, run_ranks
from runners.trials.checkpoint import load_checkpoint, save_checkpoint
from runners.trials.preflight import PreflightCheck, check_group
from runners.trials.throughput import Throughput
from runners.trials.trial import take_part
from runners.trials.trial_files import Outcome
from runners.trials.trial_job import TrialJob
from runners.trials.trial_setup import load_subset, set_up

_WARM_STEPS, _STEPS = 2, 4
_TIMED_WARM_STEPS, _TIMED_STEPS = 5, 10
_LOADING_S = 2.0
_CHECKPOINT_PAIRS = 16  # the size of a checkpoint does not depend on the batch


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TriedKind:
    """Measurements of the first steps of a kind of trial, and of a checkpoint if one was written."""

    speed: Throughput
    ranks: PreflightCheck | None = None  # what they compute together, if they are on several nodes
    checkpoint_bytes: int = 0
    write_s: float = 0.0  # to the storage
    read_s: float = 0.0  # to check its hash and restore its state


def try_kind(job: TrialJob, seconds: float = 0.0) -> TriedKind | None:
    """Train a trial at its real batch for about ``seconds`` seconds, after a few warm-up steps.

    Without seconds it trains a few steps, and writes and reads a checkpoint. All files are in a temporary
    folder where the trial's are. Of a trial over several nodes, each rank makes the call; rank 0 returns the
    measurements, the others None.
    """
    if rank_count() > 1:
        ranks, outcomes = check_group(gpus=bool(job.gpus)), _runs(job, job.folder, seconds)
        return TriedKind(speed=_speed(job.trial, outcomes), ranks=ranks) if outcomes else None
    storage = next(path for path in (job.folder, *job.folder.parents) if path.exists())
    with TemporaryDirectory(dir=storage, prefix=".preflight-") as name:
        folder = Path(name)
        runs = partial(_runs, job, folder, seconds)
        # All in the same processes, so that what each does once is part of the warm-up.
        outcomes = run_ranks(runs, count=job.ranks, gpus=bool(job.gpus)) if job.ranks > 1 else runs()
        speed = _speed(job.trial, outcomes)
        if job.gpus:
            worker = loading_speed(job, max(_LOADING_S, seconds / 10))
            speed = dataclasses.replace(speed, worker_samples_per_s=worker)
        return TriedKind(speed=speed) if seconds else _with_checkpoint(speed, job, folder)


def _with_checkpoint(speed: Throughput, job: TrialJob, folder: Path) -> TriedKind:
    """Add measurements of a checkpoint in a folder, of one rank."""
    pairs = min(_CHECKPOINT_PAIRS, job.trial.batch_size)
    recipe = dataclasses.replace(job.trial.recipe, accumulation=1)
    small = dataclasses.replace(job.trial, batch_size=pairs, recipe=recipe)
    folder = folder / "checkpoint"
    folder.mkdir()
    setup = set_up(some_steps(dataclasses.replace(job, trial=small, ranks=1), 1, folder))
    setup.train()
    began = time.monotonic()
    save_checkpoint(folder, setup.learner, step=1)
    wrote = time.monotonic()
    load_checkpoint(folder, setup.learner)
    return TriedKind(
        speed=speed,
        checkpoint_bytes=sum(path.stat().st_size for path in folder.iterdir()),
        write_s=wrote - began,
        read_s=time.monotonic() - wrote,
    )


def _runs(job: TrialJob, folder: Path, seconds: float) -> list[Outcome]:
    """Return the outcomes of three runs of a trial's first steps, the last for ``seconds``, on rank 0."""
    warm_steps, fewest_steps = (_TIMED_WARM_STEPS, _TIMED_STEPS) if seconds else (_WARM_STEPS, _STEPS)
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


def _speed(trial: Trial, outcomes: list[Outcome]) -> Throughput:
    """Return the speed in the last run of a trial's first steps, and the most memory that any run took."""
    row, timing = outcomes[-1].row, outcomes[-1].timing
    return Throughput(
        architecture=trial.cell.architecture,
        strategy=trial.cell.strategy,
        batch_size=trial.batch_size,
        precision=str(row["precision"]),
        steps=row["steps"],
        samples_per_s=timing["samples_per_s"],
        memory_bytes=max(int(outcome.timing["memory_bytes"]) for outcome in outcomes),
        passes=trial.recipe.passes,
        gpus=trial.resources.devices,
        waited=timing["waited_s"] / max(timing["train_s"], 1e-9),
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
