"""Metrics of a model that is still in training, at declared shares of its steps."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from budgets.planning.planned_trial import Trial, evaluated_steps
from runners.evaluate.features import NotFiniteError
from runners.results import MIDWAY_COLUMNS, read_table, step_row, to_frame, write_table
from runners.trials.records.meter import Meter
from runners.trials.records.trial_files import MIDWAY


class Midway:
    """Evaluates at shares of a run, and keeps the metrics in the trial's folder, one row an evaluation.

    A resumed run keeps the rows up to its checkpoint and measures later ones again. Unreachable storage does
    not stop the training: the rows are written later.

    Args:
        folder: The trial's folder.
        trial: The trial; its evaluation FLOPs are those of all its evaluations.
        shares: Shares of the steps; one that is rounded to the end of the run has no evaluation of its own.
        first_step: Steps done before this process took over.
        measure: Evaluates the model as it is.
        meter: Counts the compute.

    Attributes:
        took_s: Seconds that evaluations took in this process, which are not seconds of training.
    """

    def __init__(  # noqa: PLR0913 - the parts of an evaluation
        self,
        folder: Path,
        trial: Trial,
        shares: Sequence[float],
        *,
        first_step: int,
        measure: Callable[[], Mapping[str, float]],
        meter: Meter,
    ) -> None:
        self._path, self._trial, self._measure, self._meter = folder / MIDWAY, trial, measure, meter
        self._steps = evaluated_steps(shares, trial.steps)
        self.took_s = 0.0
        self._rows: list[dict[str, Any]] = []
        self._written = True
        if self._path.exists():
            kept = read_table(self._path)
            rows = kept[kept["step"] <= first_step].to_dict("records")
            self._rows = [{str(name): value for name, value in row.items()} for row in rows]

    def after_step(self, done: int) -> None:
        """Evaluate, and write the file if the storage allows it, if that is due after ``done`` steps."""
        if done not in self._steps or any(row["step"] == done for row in self._rows):
            return
        self._meter.add(evaluation_flops=self._trial.flops_per_evaluation)
        began = time.monotonic()
        try:
            # The training must not depend on its evaluations. By default torch initialises all GPUs for this.
            devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
            with torch.random.fork_rng(devices):
                metrics = self._measure()
        except NotFiniteError:  # the next loss shows that the trial has diverged
            return
        finally:
            self.took_s += time.monotonic() - began
        self._rows.append({**step_row(self._trial, done), **metrics})
        self._written = False
        with suppress(OSError):
            self.write()

    def write(self) -> None:
        """Write the rows that are not in the file yet; call it before a checkpoint and before the result."""
        if not self._written:
            write_table(self._path, to_frame(self._rows, MIDWAY_COLUMNS))
            self._written = True
