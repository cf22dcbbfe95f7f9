"""Other tools' logs of trials: TensorBoard's and Weights & Biases', written by their own libraries.

The driver writes the points of a trial's curve as they come, and its metrics when it has its result. Since
the points are those of the curve that stays, whoever begins a log writes it from the start: no step stands
twice however often a trial or its driver was killed, and trials that ended before a logger was declared are
written by the next run. A step of these logs is a sample seen.
"""

import importlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from budgets.planning.plan import Trial
from runners.host.progress_file import read_progress
from runners.results import plan_row
from runners.trials.curve import curve_rows

_LOOK_S = 2.0
_WHOLE = "whole"  # the file that says that a trial's result is in its log

Row = Mapping[str, Any]


class _Log(Protocol):
    """A trial's log in one of the tools."""

    def add(self, samples: int, values: Mapping[str, float]) -> None:
        """Add a point, whose samples seen are more than those of the one before."""

    def show(self) -> None:
        """Has what was added seen."""

    def close(self, row: Row | None) -> None:
        """Add the trial's row of `runners.results.RESULT_COLUMNS`, where it has a result, and ends."""


class Loggers:
    """The declared loggers of a study. No trouble of theirs ends it.

    Args:
        names: Of `budgets.declaration.LOGGERS`, each the name of its package, too.
        folder: The study's folder, where each has a folder with one of each trial.
        say: Told of a trial that could not be written.

    Raises:
        ValueError: A logger's library is not installed.
    """

    def __init__(self, names: tuple[str, ...], folder: Path, say: Callable[[str], None]) -> None:
        for name in names:
            _require(name)
        self._names, self._folder, self._say = names, folder, say
        self._open: dict[tuple[str, str], _Log] = {}  # by logger and trial, as are those below
        self._samples: dict[tuple[str, str], int] = {}  # of the last point
        self._troubled: set[tuple[str, str]] = set()
        self._due = 0.0

    def follow(self, trials: Mapping[str, Trial], running_ids: Iterable[str]) -> None:
        """Write the new points of the trials that run, now and then."""
        if not self._names or time.monotonic() < self._due:
            return
        for trial_id, progress in read_progress(self._folder, running_ids).items():
            trial = trials[trial_id]
            points = curve_rows(trial, progress["curve"], steps=trial.steps)
            for name in self._names:
                if points and (name, trial_id) not in self._troubled:
                    self._write(name, plan_row(trial), points, None)
        self._due = time.monotonic() + _LOOK_S

    def finish(self, row: Row, curve: Path) -> None:
        """Write what is still to be written of a trial with a result.

        Args:
            row: Its row of `runners.results.RESULT_COLUMNS`, with metrics.
            curve: File of its curve, with `runners.results.CURVE_COLUMNS`.
        """
        for name in self._names:
            if not (self._folder / name / str(row["trial"]) / _WHOLE).exists():
                points: list[dict[str, Any]] = pd.read_parquet(curve).to_dict("records")  # type: ignore[assignment]
                self._write(name, row, points, row)

    def leave(self, trial_id: str) -> None:
        """End the logs of a trial that does not go on in this run; they keep what they have."""
        for name in self._names:
            log = self._open.pop((name, trial_id), None)
            if log is not None:
                log.close(None)

    def close(self) -> None:
        """End all logs that are open."""
        for _, trial_id in list(self._open):
            self.leave(trial_id)

    def _write(self, name: str, known: Row, points: Iterable[Row], result: Row | None) -> None:
        trial = str(known["trial"])
        key, folder = (name, trial), self._folder / name / trial
        try:
            if key not in self._open:
                shutil.rmtree(folder, ignore_errors=True)  # of a driver that was killed
                folder.mkdir(parents=True)
                self._samples[key] = -1
                self._open[key] = _begin(name, folder, self._folder.name, known)
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
        except Exception as error:  # noqa: BLE001 - a server that does not answer, a full disk, and so on
            self._open.pop(key, None)
            self._troubled.add(key)
            when = "when it has ended" if result is None else "by the next run"
            self._say(f"note: {name}: trial {trial} is not logged, it will be {when}: {error}")


def _values(point: Row) -> dict[str, float]:
    return {"train/loss": point["loss"], "train/lr": point["lr"], "train/flops": point["train_flops"]}


def _require(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError:
        raise ValueError(
            f"loggers: {name} needs the package of that name: `pip install {name}`, or leave it out"
        ) from None


def _begin(name: str, folder: Path, study: str, known: Row) -> _Log:
    return _TensorBoard(folder, known) if name == "tensorboard" else _WandB(folder, study, known)


class _TensorBoard:
    def __init__(self, folder: Path, known: Row) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - needs a package that may be absent

        self._writer = SummaryWriter(str(folder))
        self._describe(known, 0)

    def add(self, samples: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, samples)

    def show(self) -> None:
        self._writer.flush()

    def close(self, row: Row | None) -> None:
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
    """A run of a project named as the study; on this machine, unless WANDB_MODE is set."""

    def __init__(self, folder: Path, study: str, known: Row) -> None:
        import wandb  # noqa: PLC0415 - a package that may not be there

        self._run = wandb.init(
            project=study,
            id=str(known["trial"]),
            name=f"{known['architecture']} {known['strategy']} seed {known['seed']} {known['trial']}",
            group=f"{known['architecture']} {known['strategy']}",
            config=_split(known)[0],
            dir=folder,
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            resume="allow",
            reinit="create_new",  # one for each trial that runs
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
        )

    def add(self, samples: int, values: Mapping[str, float]) -> None:
        if samples >= self._run.step:  # a server that knows the run may have more of it
            self._run.log(dict(values), step=samples)

    def show(self) -> None:
        """It shows a point when it has the next."""

    def close(self, row: Row | None) -> None:
        if row is None:
            self._run.finish(exit_code=1)
            return
        settings, metrics = _split(row)
        self._run.config.update(settings, allow_val_change=True)  # type: ignore[no-untyped-call]
        self._run.summary.update(metrics)
        self._run.finish()


def _split(row: Row) -> tuple[dict[str, Any], dict[str, float]]:
    """Parts a row into what describes the trial and its metrics."""
    settings = {name: value for name, value in row.items() if "/" not in name}
    return settings, {name: float(value) for name, value in row.items() if "/" in name}
