"""Files of a running trial: FLOP count each step, progress each second, checkpoints."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from math import isnan, nan
from pathlib import Path

import torch
from torch import Tensor

from budgets.planning.planned_trial import Trial
from runners.host.faults import Left, Notice
from runners.host.files import write_json
from runners.host.progress_file import PROGRESS
from runners.training.learner import Learner
from runners.trials.checkpoints.checkpoint import Notes, save_milestone
from runners.trials.checkpoints.checkpoint_writer import CheckpointWriter
from runners.trials.records.curve import mean_losses
from runners.trials.records.meter import Meter

_PROGRESS_S = 1.0
_OUTLINE_POINTS = 24
_SYNC_S = 10.0  # a sync waits for the disk


class Watch:
    """Count each step, write ``progress.json`` and checkpoints, and leave when asked to.

    Unreachable storage does not stop the training: a failed write is repeated later.

    Args:
        folder: The trial's folder.
        trial: The trial.
        checkpoint_s: Seconds between checkpoints.
        checkpoint_steps: Maximum steps between checkpoints; 0 for no limit.
        first_step: Steps done before this process took over.
        learner: The learner.
        meter: Counts the compute.
        notice: Request to leave.
        notes: Returns the trial's notes at the moment of a checkpoint.

    Attributes:
        waited_s: Seconds between steps, without the first one's: training waited for its data.
    """

    def __init__(  # noqa: PLR0913 - settings of checkpoints and progress
        self,
        folder: Path,
        trial: Trial,
        learner: Learner,
        *,
        checkpoint_s: float,
        checkpoint_steps: int,
        first_step: int,
        meter: Meter,
        notice: Notice,
        notes: Callable[[], Notes],
    ) -> None:
        self._folder, self._trial, self._learner = folder, trial, learner
        self._checkpoints = CheckpointWriter(
            folder,
            learner,
            seconds=checkpoint_s,
            steps=checkpoint_steps,
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
        """Write the files that are due after ``done`` steps.

        Args:
            done: Steps done, by this and earlier processes.
            evaluated_s: Seconds that evaluations on the way took in this process so far.

        Raises:
            Left: The process was asked to leave; a checkpoint was written if the storage allowed it.
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
        """Write a last checkpoint if the trial has written one before, and count the evaluation."""
        # A run too short for a checkpoint is cheaper to repeat than to save.
        self._checkpoints.settle()
        if 0 < self._checkpoints.step < self._trial.steps:
            self._sync_meter()
            self._checkpoints.write(self._trial.steps)
            self._checkpoints.settle()
        self._meter.add(evaluation_flops=self._trial.flops_per_evaluation)

    def settle(self) -> None:
        """Wait until no checkpoint is being written."""
        self._checkpoints.settle()

    def _keep_milestone(self, done: int) -> None:
        if done == 0 or done != self._trial.milestone_step:
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
        self._curve += mean_losses(losses, steps=self._trial.steps, first=len(self._curve))
        with suppress(OSError):  # only for display, and rewritten soon
            if time.monotonic() - self._synced_at >= _SYNC_S:
                self._sync_meter()
            write_json(
                self._folder / PROGRESS,
                {
                    "samples_seen": done * batch_size,
                    "samples_planned": self._trial.samples_seen,
                    "train_flops": self._trial.train_flops_after(done * batch_size),
                    "loss": self._learner.losses[done - 1].item() if done else None,
                    "losses": _outline(losses),
                    "curve": self._curve,
                    "samples_per_s": (done - self._first_step) * batch_size / passed if passed > 0 else None,
                    "pid": os.getpid(),
                },
                sync=False,
            )


def _outline(losses: Tensor) -> list[float]:
    """Return means of equal intervals of the losses so far, for a sparkline."""
    if not len(losses):
        return []
    stretches = losses.split(-(-len(losses) // _OUTLINE_POINTS))
    outline: list[float] = torch.stack([stretch.mean() for stretch in stretches]).tolist()
    return outline
