"""Writing of a trial's checkpoints, on a GPU in the background, for a small share of the time."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from runners.training.learner import Learner
from runners.trials.checkpoints.checkpoint import Notes, copied_state, save_checkpoint, write_checkpoint

MOST_OF_THE_TIME = 0.02
"""Largest share of the time for which checkpoints that are due by the clock hold up training on a GPU."""

_AGAIN_S = 10.0  # delay after a checkpoint that could not be written


class CheckpointWriter:
    """Writer of checkpoints that are due after some seconds or steps.

    On a GPU, training stops only for the copy to main memory. On a CPU a write in the background would
    compete with the training for cores and need a copy too, so the training writes.

    Args:
        folder: The trial's folder.
        learner: The learner.
        seconds: Seconds between checkpoints.
        steps: Maximum steps between checkpoints; 0 for no limit.
        first_step: Steps done before this process took over.
        notes: Returns the trial's notes at the moment of a checkpoint.
        background: True to write in a thread; by default on a GPU.
    """

    def __init__(  # noqa: PLR0913 - settings of checkpoints
        self,
        folder: Path,
        learner: Learner,
        *,
        seconds: float,
        steps: int,
        first_step: int,
        notes: Callable[[], Notes] = dict,
        background: bool | None = None,
    ) -> None:
        self._folder, self._learner, self._seconds, self._steps = folder, learner, seconds, steps
        self.step, self._notes = first_step, notes
        self._due = time.monotonic() + seconds
        gpu = learner.losses.device.type == "cuda"
        self._thread = ThreadPoolExecutor(1) if (gpu if background is None else background) else None
        self._writing: tuple[int, Future[None]] | None = None

    def is_due(self, done: int) -> bool:
        """Return whether a checkpoint is due after ``done`` steps."""
        self._look()
        if 0 < self._steps <= done - self._last:
            return True
        return time.monotonic() >= self._due and self._writing is None

    def write(self, done: int) -> None:
        """Write a checkpoint, or begin to; one that cannot be written is tried again later."""
        if done <= self._last:
            self._due = time.monotonic() + self._seconds
            return
        began = time.monotonic()
        self.settle()
        try:
            if self._thread is None:
                save_checkpoint(self._folder, self._learner, step=done, notes=self._notes())
                self.step = done
            else:
                state = copied_state(self._learner, step=done, notes=self._notes())
                self._writing = done, self._thread.submit(write_checkpoint, self._folder, state)
        except OSError:
            self._try_again()
            return
        now = time.monotonic()
        # On a CPU, where the write itself is part of it, the declared seconds hold: models are small there.
        least = 0.0 if self._thread is None else (now - began) / MOST_OF_THE_TIME
        self._due = now + max(self._seconds, least)

    def settle(self) -> None:
        """Wait until nothing is being written."""
        if self._writing is not None:
            wait([self._writing[1]])
            self._look()

    @property
    def _last(self) -> int:
        """Step of the newest checkpoint, one that is being written included."""
        return self.step if self._writing is None else self._writing[0]

    def _look(self) -> None:
        if self._writing is None or not self._writing[1].done():
            return
        (step, future), self._writing = self._writing, None
        try:
            future.result()
        except OSError:  # the previous checkpoint remains
            self._try_again()
        else:
            self.step = step

    def _try_again(self) -> None:
        self._due = time.monotonic() + min(_AGAIN_S, self._seconds)
