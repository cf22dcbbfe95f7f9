"""Other tools' logs of trials: TensorBoard's and Weights & Biases', written by their own libraries.

The driver writes a trial when it has its result: its whole curve, then its metrics, in one piece and once. So
no step stands twice however often a trial was resumed, and trials that ended before a logger was declared are
written by the next run. A step of these logs is a sample seen.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from runners.files import new_folder

Write = Callable[[Path, Mapping[str, Any], pd.DataFrame], None]


class Loggers:
    """The declared loggers of a study.

    Args:
        names: Of `budgets.declaration.LOGGERS`, each the name of its package, too.
        folder: The study's folder, where each has a folder with one of each trial.
        say: Told of a trial that could not be written.

    Raises:
        ValueError: A logger's library is not installed.
    """

    def __init__(self, names: tuple[str, ...], folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self._write = {name: _writer(name, folder.name) for name in names}

    def add(self, row: Mapping[str, Any], curve: Path) -> None:
        """Writes a trial, unless it is written. No trouble of a logger's ends a study.

        Args:
            row: Its row of `runners.results.RESULT_COLUMNS`, with metrics.
            curve: File of its curve, with `runners.results.CURVE_COLUMNS`.
        """
        for name, write in self._write.items():
            path = self._folder / name / str(row["trial"])
            if path.exists():
                continue
            try:
                with new_folder(path) as partial:
                    write(partial, row, pd.read_parquet(curve))
            except Exception as error:  # noqa: BLE001 - a server that does not answer, a full disk, and so on
                self._say(f"note: {name}: trial {row['trial']} is not logged, the next run does it: {error}")


def _writer(name: str, study: str) -> Write:
    try:
        importlib.import_module(name)
    except ImportError:
        raise ValueError(
            f"loggers: {name} needs the package of that name: `pip install {name}`, or leave it out"
        ) from None
    return _tensorboard if name == "tensorboard" else _wandb(study)


def _tensorboard(folder: Path, row: Mapping[str, Any], curve: pd.DataFrame) -> None:
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - needs a package that may not be there

    with SummaryWriter(str(folder)) as writer:
        settings, metrics = _split(row)
        table = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
        writer.add_text("trial", f"| | |\n|---|---|\n{table}", 0)
        for samples, values in _steps(curve):
            for name, value in values.items():
                writer.add_scalar(name, value, samples)
        for name, value in metrics.items():
            writer.add_scalar(name, value, row["samples_seen"])


def _wandb(study: str) -> Write:
    """Gives a writer of runs to a project named as the study; on this machine, unless WANDB_MODE is set."""
    import wandb  # noqa: PLC0415 - a package that may not be there

    def write(folder: Path, row: Mapping[str, Any], curve: pd.DataFrame) -> None:
        settings, metrics = _split(row)
        run = wandb.init(
            project=study,
            id=str(row["trial"]),
            name=f"{row['architecture']} {row['strategy']} seed {row['seed']} {row['trial']}",
            group=f"{row['architecture']} {row['strategy']}",
            config=settings,
            dir=folder,
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            resume="allow",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
        )
        for samples, values in _steps(curve):
            run.log(values, step=samples)
        run.summary.update(metrics)
        run.finish()

    return write


def _split(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Parts a row into what describes the trial and its metrics."""
    settings = {name: value for name, value in row.items() if "/" not in name}
    return settings, {name: float(value) for name, value in row.items() if "/" in name}


def _steps(curve: pd.DataFrame) -> list[tuple[int, dict[str, float]]]:
    columns = curve["samples_seen"], curve["loss"], curve["lr"], curve["train_flops"]
    return [
        (int(samples), {"train/loss": loss, "train/lr": lr, "train/flops": flops})
        for samples, loss, lr, flops in zip(*columns, strict=True)
    ]
