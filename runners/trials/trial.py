"""A trial in the calling process: data, model, training, evaluation, one result row.

The folder of a trial holds ``progress.json`` and its checkpoints while it runs; then ``result.json`` (its row
and timing), ``curve.parquet``, ``weights.pt`` and, if pairs were damaged, ``damage.jsonl``; and always
``meter``, its compute over all attempts. A trial with a result is never run again.
"""

import errno
import json
import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from math import isnan, nan

import torch
from torch import Tensor

from budgets.planning.planned_trial import Trial, evaluated_steps
from runners.evaluate.evaluate import NotFiniteError
from runners.host.faults import Left, Notice
from runners.host.watchdog import GRACE_S, Phase, position
from runners.results import (
    CURVE_COLUMNS,
    EVALUATION_VERSION,
    plan_row,
    steps_per_point,
    to_frame,
    trial_curve,
    write_table,
)
from runners.store.files import matching, new_file, write_json
from runners.training.ranks import decided_by_first, rank, run_ranks
from runners.training.train import Diverged
from runners.trials.checkpoint import CheckpointWriter, Notes, save_hashed, save_milestone
from runners.trials.meter import FlopCount, Meter
from runners.trials.trial_evaluation import EvaluationData, Midway, evaluate_midway, evaluate_trial
from runners.trials.trial_files import (
    PROGRESS,
    WEIGHTS,
    Outcome,
    drop_scaffolding,
    owned,
    read_outcome,
    write_outcome,
)
from runners.trials.trial_job import TrialJob
from runners.trials.trial_setup import RankTraining, set_up

_PROGRESS_S = 1.0
_OUTLINE_POINTS = 24
_SYNC_S = 10.0  # a sync waits for the disk


def run_trial(job: TrialJob) -> Outcome:
    """Train and evaluate a trial, or return the result that it already has.

    A second process that runs the same trial waits for the first. The parent of the trial's folder must
    exist: creating it would hide that the storage is not mounted.

    Raises:
        Left: The process was asked to leave, see `runners.host.faults.Notice`.
        ProcessEnded: One of several ranks did not finish.
        OSError: The storage is unreachable.
    """
    if job.ranks == 1:
        return _run_first(job)
    outcome = run_ranks(partial(take_part, job), count=job.ranks, gpus=bool(job.gpus))
    assert outcome is not None, "rank 0 returns the result"
    return outcome


def take_part(job: TrialJob) -> Outcome | None:
    """Run a trial as one of several ranks; rank 0 returns its outcome, the others None."""
    if rank() == 0:
        return _run_first(job)
    position.watch(job.hang_s, job.folder)
    if _earlier_result(job) is not None:
        return None
    setup, sets = set_up(job), EvaluationData(job)
    measure = partial(evaluate_trial, job, setup, sets)
    midway = evaluated_steps(job.evaluate_at, job.trial.steps)

    def after_step(done: int) -> None:
        sets.check()
        if done in midway:
            evaluate_midway(measure)

    # Rank 0 reports what both errors tell.
    with suppress(Diverged, NotFiniteError), sets.decoding():
        setup.train(after_step=after_step)
        measure()
    return None


def _run_first(job: TrialJob) -> Outcome:
    notice = Notice()
    position.watch(job.hang_s, job.folder)
    with notice.listening():
        job.folder.mkdir(exist_ok=True)
        with owned(job.folder / ".lock", notice):
            for torn in matching(job.folder, ".*.partial-*"):
                torn.unlink()
            finished = _earlier_result(job)
            if finished is not None:
                return finished
            try:
                with Meter(job.folder) as meter:
                    return _run(job, meter, notice)
            except ValueError as error:
                for place in (*job.pools, *job.evaluation.values(), job.folder):
                    if not place.exists():  # the storage is gone, its content is not at fault
                        raise FileNotFoundError(errno.ENOENT, "storage is unreachable", str(place)) from error
                raise


def _earlier_result(job: TrialJob) -> Outcome | None:
    """Return the result of an earlier attempt, as rank 0 finds it."""
    return decided_by_first(partial(read_outcome, job.folder, job.trial.trial_id))


def _run(job: TrialJob, meter: Meter, notice: Notice) -> Outcome:
    started = time.monotonic()
    trial = job.trial
    setup = set_up(job)
    # Before any step counts: the meter's file may be older than the checkpoint that was just read.
    if setup.notes:
        meter.raise_to(FlopCount(**setup.notes["metered"]))
    sets = EvaluationData(job)
    learner = setup.learner
    measure = partial(evaluate_trial, job, setup, sets)
    midway = Midway(job, meter, measure, first_step=setup.first_step)

    def notes() -> Notes:
        midway.write()  # a checkpoint of a step implies its row
        return {
            "precision": setup.precision,
            "metered": asdict(meter.count),
            "damage": setup.data.noted_damage(),
        }

    watch = Watch(job, setup, meter, notice, notes)
    metrics: dict[str, float] = {}
    with sets.decoding():
        began = time.monotonic()
        steps, reason = _train(setup, sets, watch, midway)
        train_s = time.monotonic() - began - midway.took_s
        if not reason:
            watch.before_evaluation()
            try:
                metrics = measure()
            except NotFiniteError as error:  # by the last step, after the loss that would have shown it
                reason = str(error)
    row = {
        **plan_row(trial),
        **_done(trial, steps, meter.count.train_flops),
        "precision": setup.precision,
        "evaluation_version": EVALUATION_VERSION,
        "status": "diverged" if reason else "finished",
        "reason": reason,
        "train_loss": learner.losses[steps - max(1, steps // 10) : steps].mean().item(),
        **metrics,
    }
    outcome = Outcome(
        row=row,
        timing={
            "wall_s": time.monotonic() - started,
            "train_s": train_s,
            "samples_per_s": (steps - setup.first_step) * trial.batch_size / max(train_s, 1e-9),
            "waited_s": watch.waited_s,
            "memory_bytes": _peak_memory(job),
            "damaged_pairs": len(setup.data.damage),
        },
    )
    return notice.patiently(partial(_write_result, job, setup, midway, outcome, steps=steps))


class Watch:
    """Count each step, write ``progress.json`` and checkpoints, and leave when asked to.

    Unreachable storage does not stop the training: a failed write is repeated later. ``notes`` returns the
    trial's notes at the moment of a checkpoint. ``waited_s`` are the seconds between steps, in which training
    waited for its data, without the first step's.
    """

    def __init__(
        self, job: TrialJob, setup: RankTraining, meter: Meter, notice: Notice, notes: Callable[[], Notes]
    ) -> None:
        self._folder, self._trial, self._learner = job.folder, job.trial, setup.learner
        first_step = setup.first_step
        self._checkpoints = CheckpointWriter(
            job.folder,
            setup.learner,
            seconds=job.checkpoint_s,
            steps=job.checkpoint_steps,
            first_step=first_step,
            notes=notes,
        )
        self._meter, self._notice, self._notes = meter, notice, notes
        # monotonic: a clock set back must not delay checkpoints.
        self._progress_at = time.monotonic()
        self._synced_at = self._progress_at
        self._first_step, self._began = first_step, self._progress_at
        self._done = first_step
        self._curve: list[float] = []
        self._evaluated_s = 0.0
        self.waited_s, self._stepped = 0.0, nan
        self._keep_milestone(first_step)
        self._write_progress(first_step)

    def before_step(self) -> None:
        """Count the step that starts now."""
        if not isnan(self._stepped):
            self.waited_s += time.monotonic() - self._stepped
        trial, done = self._trial, self._done
        begun = trial.train_flops_after((done + 1) * trial.batch_size)
        self._meter.add(train_flops=begun - trial.train_flops_after(done * trial.batch_size))

    def after_step(self, done: int, *, evaluated_s: float = 0.0) -> None:
        """Write the files that are due after ``done`` steps, by this and earlier processes.

        Evaluations on the way took ``evaluated_s`` seconds in this process so far. `Left` is raised if the
        process was asked to leave; a checkpoint was then written if the storage allowed it.
        """
        self._done, self._evaluated_s = done, evaluated_s
        try:
            self._look_after(done)
        finally:
            self._stepped = time.monotonic()

    def _look_after(self, done: int) -> None:
        self._keep_milestone(done)
        now = time.monotonic()
        look = now - self._progress_at >= _PROGRESS_S
        asked_by = self._notice.by
        if asked_by or self._checkpoints.is_due(done):
            self._sync_meter()
            self._checkpoints.write(done)
        elif not look and done < self._trial.steps:
            return
        self._progress_at = now
        self._write_progress(done)
        if asked_by:
            self._checkpoints.settle()
            raise Left(f"{asked_by} after {done} of {self._trial.steps} steps")

    def before_evaluation(self) -> None:
        """Write a last checkpoint unless the trial was short, and count the evaluation."""
        # A run too short for a checkpoint is cheaper to repeat than to save.
        long = time.monotonic() - self._began > GRACE_S  # it may be asked to leave while it evaluates
        if self._checkpoints.step < self._trial.steps and (long or self._checkpoints.step > 0):
            self._sync_meter()
            self._checkpoints.write(self._trial.steps)
            self._checkpoints.settle()
        times = 2 if self._trial.of_trunk else 1
        self._meter.add(evaluation_flops=times * self._trial.flops_per_evaluation)

    def settle(self) -> None:
        """Wait until no checkpoint is being written; call it when training has ended."""
        position.at(Phase.BETWEEN, self._done)  # which may take longer than data
        self._checkpoints.settle()

    def _keep_milestone(self, done: int) -> None:
        if done != self._trial.milestone_step or not self._trial.keeps_milestone:
            return
        self._sync_meter()
        with suppress(OSError):  # a longer trial then computes the shared steps again
            self._notice.patiently(
                lambda: save_milestone(self._folder, self._learner, step=done, notes=self._notes())
            )

    def _sync_meter(self) -> None:
        """Flush the meter; called before a state is written, so that a power cut leaves no older meter."""
        with suppress(OSError):  # the state then has the count as well
            self._meter.sync()
        self._synced_at = time.monotonic()

    def _write_progress(self, done: int) -> None:
        batch_size = self._trial.batch_size
        passed = time.monotonic() - self._began - self._evaluated_s
        losses = self._learner.losses[:done]
        self._curve += _mean_losses(losses, steps=self._trial.steps, first=len(self._curve))
        with suppress(OSError):  # only for display, and rewritten soon
            if time.monotonic() - self._synced_at >= _SYNC_S:
                self._sync_meter()
            write_json(
                self._folder / PROGRESS,
                {
                    "samples_seen": done * batch_size,
                    "samples_planned": self._trial.samples_seen,
                    "shared_samples": self._trial.shared_samples,
                    "train_flops": self._trial.train_flops_after(done * batch_size),
                    "loss": self._learner.losses[done - 1].item() if done else None,
                    "losses": _outline(losses),
                    "curve": self._curve,
                    "samples_per_s": (done - self._first_step) * batch_size / passed if passed > 0 else None,
                    "pid": os.getpid(),
                },
                sync=False,
            )


def _mean_losses(losses: Tensor, *, steps: int, first: int = 0) -> list[float]:
    """Return the means of a curve's complete intervals from a ``first`` on, the same during and after a run.

    Losses, (steps done,), are those of a run of some steps, which decide the length of an interval.
    """
    length = steps_per_point(steps)
    starts = range(first * length, len(losses), length)
    whole = [start for start in starts if min(start + length, steps) <= len(losses)]
    return [losses[start : start + length].cpu().mean().item() for start in whole]


def _outline(losses: Tensor) -> list[float]:
    """Return means of equal intervals of the losses so far, for a sparkline."""
    if not len(losses):
        return []
    stretches = losses.split(-(-len(losses) // _OUTLINE_POINTS))
    outline: list[float] = torch.stack([stretch.mean() for stretch in stretches]).tolist()
    return outline


def _train(setup: RankTraining, sets: EvaluationData, watch: Watch, midway: Midway) -> tuple[int, str]:
    """Train to the end; return the steps done, and the reason if the trial has diverged."""

    def after_step(done: int) -> None:
        midway.after_step(done)  # first, so that a checkpoint of this step has its row
        watch.after_step(done, evaluated_s=midway.took_s)
        sets.check()  # a set that can't be decoded would end the trial only after all its training

    try:
        setup.train(before_step=watch.before_step, after_step=after_step)
    except Diverged as diverged:
        return diverged.steps, str(diverged)
    finally:
        watch.settle()
    return setup.schedule.steps, ""


def _write_result(
    job: TrialJob, setup: RankTraining, midway: Midway, outcome: Outcome, *, steps: int
) -> Outcome:
    """Write the result files of a trial after ``steps`` steps; return the result with their digests."""
    midway.write()
    damage = "".join(json.dumps(asdict(pair)) + "\n" for pair in setup.data.damage)
    if damage:  # pairs that were replaced in training
        with new_file(job.folder / "damage.jsonl") as file:
            file.write_text(damage, encoding="utf-8")
    losses = _mean_losses(setup.learner.losses[:steps].cpu(), steps=steps)
    curve = trial_curve(job.trial, losses, steps=steps)
    write_table(job.folder / "curve.parquet", to_frame(curve, CURVE_COLUMNS), source=job.trial.trial_id)
    with new_file(job.folder / WEIGHTS) as file:
        # From the CPU, so that a machine without GPU can read them.
        state = {name: value.cpu() for name, value in setup.learner.evaluated.state_dict().items()}
        outcome = replace(outcome, weights=save_hashed(state, file))
    # Last of the result files: a folder with result.json is complete.
    write_outcome(job.folder, outcome)
    drop_scaffolding(job.folder)
    return outcome


def _peak_memory(job: TrialJob) -> int:
    """Return the most bytes that torch had allocated on the GPU, or that this process had in memory."""
    if job.gpus:
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _done(trial: Trial, steps: int, metered: int) -> dict[str, float]:
    """Return the columns of what was actually done, which is less than planned if a trial diverged."""
    samples = steps * trial.batch_size
    return {
        "steps": steps,
        "samples_seen": samples,
        "epochs": samples / trial.cell.subset_size,
        "train_flops": float(trial.train_flops_after(samples)),
        # An integer, so that the book stays exact. The meter is lower if the trial started from a milestone
        # whose trial is no longer in the plan.
        "paid_flops": min(trial.paid_flops_after(samples), metered),
    }
