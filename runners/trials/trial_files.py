"""Files in a trial's folder: result, reason of a failure, checkpoints.

A checkpoint is named ``checkpoint-<step>-<digest>.pt`` after its content, so that damage shows against its
name. This module does not import torch, so that ``status`` answers at once.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners.host.faults import words_of
from runners.host.files import write_json
from runners.trials.meter import METER

FAILURE = "failed.json"
"""File with the reason why a trial was given up."""
SMALL = (METER, "curve.parquet", "damage.jsonl", "result.json")
"""Small files of a trial, which the driver downloads from a bucket."""

DIGITS = 16  # of the content's SHA-256
_AWAY = ".away"
_MILESTONE = "milestone-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Result of a trial.

    Attributes:
        row: Its row of `runners.results.RESULT_COLUMNS`, with metrics.
        timing: Seconds, samples a second and damaged pairs; not deterministic.
    """

    row: Mapping[str, Any]
    timing: Mapping[str, float]


def read_outcome(folder: Path) -> Outcome | None:
    """Read a trial's result, or return None if it has none yet.

    Raises:
        ValueError: The result is damaged or incomplete; the message says what to do.
    """
    path, curve = folder / "result.json", folder / "curve.parquet"
    if not path.exists():
        return None
    again = f"delete {folder} to run the trial again"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        # A result from before trunks paid for all of its training.
        row = {"trunk": ""} | content["row"]
        row.setdefault("paid_flops", row.get("train_flops"))
        outcome = Outcome(row=row, timing=content["timing"])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({words_of(error)}); {again}") from None
    if not curve.exists() and path.exists():  # if the storage is unreachable, both are missing
        raise ValueError(f"{path} exists, but {curve.name} beside it is missing; {again}")
    return outcome


def drop_scaffolding(folder: Path) -> None:
    """Remove the files that a trial needs only until it has a result."""
    for path in (*folder.glob("checkpoint-*"), folder / "progress.json", *folder.glob(".*.partial-*")):
        path.unlink(missing_ok=True)


def read_failure(folder: Path) -> str | None:
    """Return the reason why a trial was given up in an earlier run, or None.

    Raises:
        ValueError: The file with the reason is damaged.
    """
    path = folder / FAILURE
    if not path.exists():
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["reason"])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({words_of(error)}); delete it to run the trial again") from None


def write_failure(folder: Path, reason: str) -> None:
    """Record that a trial was given up; later runs skip it unless asked to retry it."""
    folder.mkdir(exist_ok=True)
    write_json(folder / FAILURE, {"reason": reason})


def forget_failure(folder: Path) -> bool:
    """Remove the record that a trial was given up; return True if there was one."""
    was = (folder / FAILURE).exists()
    (folder / FAILURE).unlink(missing_ok=True)
    return was


def checkpoints(folder: Path) -> list[Path]:
    """List a trial's checkpoints, newest first."""
    return sorted(folder.glob("checkpoint-*.pt"), reverse=True)


def milestone(folder: Path) -> Path | None:
    """Return the state of a trial at which longer trials of its trunk continue, or None if it has none."""
    return next(iter(sorted(folder.glob(f"{_MILESTONE}*.pt"))), None)


def milestone_name(step: int, digest: str) -> str:
    """Return the name of a milestone's file: that of a checkpoint, with another first word."""
    return f"{_MILESTONE}{step:010d}-{digest}.pt"


def drop_milestone(folder: Path) -> None:
    """Remove a trial's milestone, if it has one."""
    for path in folder.glob(f"{_MILESTONE}*.pt"):
        path.unlink(missing_ok=True)


def kept_steps(folder: Path) -> int:
    """Return the steps kept in the newest checkpoint, on this node or away; 0 if there is none."""
    return max((int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*")), default=0)


def stand_in(checkpoint: str) -> str:
    """Return the name of the empty file that represents a checkpoint stored away from the driver's folder."""
    return f"{checkpoint.removesuffix('.pt')}{_AWAY}"


def drop_damaged(folder: Path) -> list[Path]:
    """Remove damaged checkpoints, from the newest to the first undamaged one.

    Returns:
        The removed files.
    """
    damaged = []
    for path in checkpoints(folder):
        if digest(path) == path.stem.split("-")[2]:
            break
        path.unlink()
        damaged.append(path)
    return damaged


def digest(path: Path) -> str:
    """Return the first digits of a checkpoint's SHA-256, which its name holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
