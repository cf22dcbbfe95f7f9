"""Logs of trials for TensorBoard and Weights & Biases, written with their own libraries.

The driver writes the points of a trial's curve as they appear, and its metrics when it has a result. The
points are those of the stored curve, so a log is always written from the start: no step appears twice however
often a trial or its driver was killed, and trials that ended before a logger was declared are written by the
next run. The step of these logs is the number of samples seen.
"""

import importlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from budgets.planning.planned_trial import Trial
from runners.results import plan_row, read_table, trial_curve
from runners.trials.trial_files import read_progress

_LOOK_S = 2.0
_WHOLE = "whole"  # marker file: the trial's result is in its log

Row = Mapping[str, Any]


class Loggers:
    """The declared loggers of a study, each with a folder in the study's, with one folder per trial.

    Their names, of `budgets.declaration.sections.LOGGERS`, are also those of their packages. Their errors
    never end the study: ``say`` is called with a message about a trial that could not be written.

    Raises:
        ValueError: A logger's library is not installed.
    """

    def __init__(self, names: tuple[str, ...], folder: Path, say: Callable[[str], None]) -> None:
        for name in names:
            _require(name)
        self._names, self._folder, self._say = names, folder, say
        self._open: dict[tuple[str, str], _TensorBoard | _WandB] = {}  # key: (logger, trial), here and below
        self._samples: dict[tuple[str, str], int] = {}  # samples seen at the last point
        self._troubled: set[tuple[str, str]] = set()
        self._due = 0.0

    def follow(self, trials: Mapping[str, Trial], running_ids: Iterable[str]) -> None:
        """Write new points of the running trials, at most every two seconds."""
        if not self._names or time.monotonic() < self._due:
            return
        for trial_id, progress in read_progress(self._folder, running_ids).items():
            trial = trials[trial_id]
            points = trial_curve(trial, progress["curve"], steps=trial.steps)
            for name in self._names:
                if points and (name, trial_id) not in self._troubled:
                    self._write(name, plan_row(trial), points, None)
        self._due = time.monotonic() + _LOOK_S

    def finish(self, row: Row, curve: Path) -> None:
        """Write the remaining points of a trial, from the file of its curve, and its row with metrics."""
        for name in self._names:
            if not (self._folder / name / str(row["trial"]) / _WHOLE).exists():
                points: list[dict[str, Any]] = read_table(curve).to_dict("records")  # type: ignore[assignment]
                self._write(name, row, points, row)

    def leave(self, trial_id: str) -> None:
        """Close the logs of a trial that does not continue in this run; their content is kept."""
        for name in self._names:
            log = self._open.pop((name, trial_id), None)
            if log is not None:
                log.close(None)

    def close(self) -> None:
        """Close all open logs."""
        for _, trial_id in list(self._open):
            self.leave(trial_id)

    def _write(self, name: str, known: Row, points: Iterable[Row], result: Row | None) -> None:
        trial = str(known["trial"])
        key, folder = (name, trial), self._folder / name / trial
        try:
            if key not in self._open:
                shutil.rmtree(folder, ignore_errors=True)  # left by a killed driver
                folder.mkdir(parents=True)
                self._samples[key] = -1
                self._open[key] = (
                    _TensorBoard(folder, known)
                    if name == "tensorboard"
                    else _WandB(folder, self._folder.name, known)
                )
            log = self._open[key]
            for point in points:
                if point["samples_seen"] > self._samples[key]:
                    log.add(int(point["samples_seen"]), _values(point))
                    self._samples[key] = point["samples_seen"]
            if result is None:
                log.show()
                return
            del self._open[key]
            log.close(result)
            (folder / _WHOLE).touch()
        except Exception as error:  # noqa: BLE001 - an unreachable server, a full disk, and so on
            self._open.pop(key, None)
            self._troubled.add(key)
            when = "when the trial ends" if result is None else "by the next run"
            self._say(f"note: {name}: trial {trial} could not be logged; will be logged {when}: {error}")


def _values(point: Row) -> dict[str, float]:
    return {"train/loss": point["loss"], "train/lr": point["lr"], "train/flops": point["train_flops"]}


def _require(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError:
        raise ValueError(
            f"loggers: {name} needs the package {name}: `pip install {name}`, or remove it from loggers"
        ) from None


class _TensorBoard:
    """A trial's log as a run of TensorBoard."""

    def __init__(self, folder: Path, known: Row) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - needs a package that may be absent

        self._writer = SummaryWriter(str(folder))
        self._describe(known, 0)

    def add(self, samples: int, values: Mapping[str, float]) -> None:
        """Add a point; its samples seen must exceed those of the point before."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, samples)

    def show(self) -> None:
        """Make the added points visible."""
        self._writer.flush()

    def close(self, row: Row | None) -> None:
        """Add the trial's row of `runners.results.RESULT_COLUMNS` if it has a result, and close the log."""
        if row is not None:
            settings, metrics = _split(row)
            self._describe(settings, row["samples_seen"])
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, row["samples_seen"])
        self._writer.close()

    def _describe(self, settings: Row, samples: int) -> None:
        table = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
        self._writer.add_text("trial", f"| | |\n|---|---|\n{table}", samples)


class _WandB:
    """The same as a run of a W&B project named like the study; offline unless WANDB_MODE is set."""

    def __init__(self, folder: Path, study: str, known: Row) -> None:
        import wandb  # noqa: PLC0415 - an optional package

        self._run = wandb.init(
            project=study,
            id=str(known["trial"]),
            name=f"{known['architecture']} {known['strategy']} seed {known['seed']} {known['trial']}",
            group=f"{known['architecture']} {known['strategy']}",
            config=_split(known)[0],
            dir=folder,
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            resume="allow",
            reinit="create_new",  # several runs at a time, one per trial
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
        )

    def add(self, samples: int, values: Mapping[str, float]) -> None:
        if samples >= self._run.step:  # a resumed run on a server may already have more points
            self._run.log(dict(values), step=samples)

    def show(self) -> None:
        """Do nothing: wandb shows a point when it receives the next one."""

    def close(self, row: Row | None) -> None:
        if row is None:
            self._run.finish(exit_code=1)
            return
        settings, metrics = _split(row)
        self._run.config.update(settings, allow_val_change=True)  # type: ignore[no-untyped-call]
        self._run.summary.update(metrics)
        self._run.finish()


def _split(row: Row) -> tuple[dict[str, Any], dict[str, float]]:
    """Split a row into the settings of the trial and its metrics."""
    settings = {name: value for name, value in row.items() if "/" not in name}
    return settings, {name: float(value) for name, value in row.items() if "/" in name}
