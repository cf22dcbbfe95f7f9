"""What a running trial leaves on disk as it goes: its progress every second, a checkpoint when it is due."""

import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from budgets.plan import Trial
from runners.checkpoint import save_checkpoint
from runners.files import write_json

_PROGRESS_S = 1.0


class Watch:
    """Writes ``progress.json`` and ``checkpoint.pt``.

    What a crash loses is what the progress has beyond the checkpoint; the driver books it.

    Args:
        folder: The trial's folder.
        trial: The trial.
        checkpoint_s: Seconds between checkpoints.
        first_step: Steps done before this process took over.
        losses: Loss of each step, filled by the training loop.
        modules: What is trained.
        optimizer: Its optimiser.
    """

    def __init__(  # noqa: PLR0913 - the parts of a checkpoint
        self,
        folder: Path,
        trial: Trial,
        *,
        checkpoint_s: float,
        first_step: int,
        losses: Tensor,
        modules: nn.ModuleDict,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self._folder, self._trial, self._checkpoint_s = folder, trial, checkpoint_s
        self._losses, self._modules, self._optimizer = losses, modules, optimizer
        self._progress_at = self._checkpoint_at = time.monotonic()
        self._checkpoint_step = first_step
        self._write_progress(first_step)

    def after_step(self, done: int) -> None:
        """Writes what is due after so many steps."""
        now = time.monotonic()
        if now - self._checkpoint_at >= self._checkpoint_s:
            self._checkpoint_at = now
            save_checkpoint(
                self._folder / "checkpoint.pt",
                step=done,
                losses=self._losses,
                modules=self._modules,
                optimizer=self._optimizer,
            )
            self._checkpoint_step = done
        elif now - self._progress_at < _PROGRESS_S and done < self._trial.steps:
            return
        self._progress_at = now
        self._write_progress(done)

    def _write_progress(self, done: int) -> None:
        batch_size = self._trial.batch_size
        write_json(
            self._folder / "progress.json",
            {
                "samples_seen": done * batch_size,
                "samples_planned": self._trial.samples_seen,
                "checkpoint_samples": self._checkpoint_step * batch_size,
                "train_flops": done * batch_size * self._trial.train_flops_per_sample,
                "loss": self._losses[done - 1].item() if done else None,
                "pid": os.getpid(),
            },
        )
