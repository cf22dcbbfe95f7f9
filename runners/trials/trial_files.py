"""Files in a trial's folder: result, reason of a failure, names of checkpoints, progress.

A result holds digests of itself and of the files that belong to it, so that damage shows. This module does
not import torch, so that ``status`` answers at once.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

from budgets.names import one_line
from runners.host.faults import Left, Notice
from runners.store.files import locked, matching, open_file, read_json, read_sealed, write_sealed
from runners.trials.meter import METER

FAILURE = "failed.json"
"""File with the reason why a trial was given up."""
MIDWAY = "midway.parquet"
"""File with the metrics of the model in training, at declared shares of its steps."""
SMALL = (METER, "curve.parquet", MIDWAY, "damage.jsonl", "result.json")
"""Small files of a trial, which the driver downloads from a bucket."""

WEIGHTS = "weights.pt"
"""File with the weights that a trial ended with."""
_TABLES = ("curve.parquet", MIDWAY)

FILES = "files.json"
"""Object with the names of a trial's other objects, but for the count, the failure and the progress.

It is written after each of them, so that nobody depends on a list of the bucket, which may be out of date.
"""

PROGRESS = "progress.json"
"""File that a running trial writes every second."""

CHECKPOINTS_KEPT = 2
DIGITS = 16  # of the content's SHA-256
_AWAY = ".away"
_STATE = re.compile(
    r"(checkpoint|milestone)-(?P<step>[0-9]+)-(?P<digest>[0-9a-f]+)" rf"(\.pt|{re.escape(_AWAY)})"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Result of a trial: its row of `runners.results.RESULT_COLUMNS`, with metrics, and its timing.

    The timing, which no rerun repeats, has seconds, samples a second, peak memory of the first rank and
    damaged pairs; ``weights`` is the digest of the trial's weights.
    """

    row: Mapping[str, Any]
    timing: Mapping[str, float]
    weights: str = ""


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write a trial's result, with digests of itself and of the tables that lie in the folder."""
    content = {
        "row": dict(outcome.row),
        "timing": dict(outcome.timing),
        "weights": outcome.weights,
        "tables": {name: file_digest(folder / name) for name in _TABLES if (folder / name).exists()},
    }
    write_sealed(folder / "result.json", content)


def read_outcome(folder: Path, trial_id: str | None = None) -> Outcome | None:
    """Read a trial's result, or return None if it has none yet; by default the trial is named as its folder.

    Raises:
        ValueError: The result is damaged or incomplete; the message says what to do.
    """
    path, again = folder / "result.json", f"delete {folder} to run the trial again"
    try:
        content = read_sealed(path, again)
    except FileNotFoundError:
        return None
    if content.keys() != {"row", "timing", "weights", "tables"}:
        raise ValueError(f"{path} is damaged (its keys are {', '.join(sorted(content))}); {again}")
    if content["row"]["trial"] != (trial_id or folder.name):
        raise ValueError(f"{path} is damaged (it is the result of trial {content['row']['trial']}); {again}")
    for name, digest in content["tables"].items():
        if not (folder / name).exists() and path.exists():  # if the storage is unreachable, both are missing
            raise ValueError(f"{path} exists, but {name} beside it is missing; {again}")
        if file_digest(folder / name) != digest:
            raise ValueError(f"{folder / name} was changed after the trial ended; {again}")
    return Outcome(row=content["row"], timing=content["timing"], weights=content["weights"])


def require_own_weights(weights: Path) -> None:
    """Raise ValueError if a trial's weights are not those of its result; other checkpoints have none."""
    outcome = read_outcome(weights.parent) if weights.name == WEIGHTS else None
    if outcome is not None and file_digest(weights) != outcome.weights:
        raise ValueError(
            f"{weights} has other weights than those with which trial {weights.parent.name} ended: restore "
            f"them, or delete {weights.parent} to run the trial again"
        )


def drop_scaffolding(folder: Path) -> None:
    """Remove the files that a trial needs only until it has a result."""
    patterns = "checkpoint-*", ".*.partial-*", "stacks-*.txt"
    for path in (folder / PROGRESS, *(path for pattern in patterns for path in matching(folder, pattern))):
        path.unlink(missing_ok=True)


def read_failure(folder: Path) -> str | None:
    """Return why a trial was given up in an earlier run, or None; ValueError if the file is damaged."""
    path, again = folder / FAILURE, "delete it to run the trial again"
    try:
        return str(read_sealed(path, again)["reason"])
    except FileNotFoundError:
        return None


def write_failure(folder: Path, reason: str) -> None:
    """Record that a trial was given up; later runs skip it unless asked to retry it."""
    folder.mkdir(exist_ok=True)
    write_sealed(folder / FAILURE, {"reason": one_line(reason)})


def forget_failure(folder: Path) -> bool:
    """Remove the record that a trial was given up; return True if there was one."""
    was = (folder / FAILURE).exists()
    (folder / FAILURE).unlink(missing_ok=True)
    return was


def state_name(kind: Literal["checkpoint", "milestone"], step: int, digest: str) -> str:
    """Return the name of a checkpoint's or milestone's file."""
    return f"{kind}-{step:010d}-{digest}.pt"


def is_checkpoint(name: str) -> bool:
    """Return whether a name is that of a checkpoint, on this node or away."""
    return name.startswith("checkpoint") and _STATE.fullmatch(name) is not None


def is_milestone(name: str) -> bool:
    """Return whether a name is that of a milestone, on this node or away."""
    return name.startswith("milestone") and _STATE.fullmatch(name) is not None


def step_of(state: Path) -> int:
    """Return the step of a checkpoint or milestone, which its name holds."""
    return int(_parts(state)["step"])


def _parts(state: Path) -> re.Match[str]:
    parts = _STATE.fullmatch(state.name)
    assert parts is not None, "it was listed by its name"
    return parts


def checkpoints(folder: Path) -> list[Path]:
    """List a trial's checkpoints, newest first; a file whose name lacks step or digest is left aside."""
    return sorted((path for path in matching(folder, "*.pt") if is_checkpoint(path.name)), reverse=True)


def kept_steps(folder: Path) -> int:
    """Return the steps kept in the newest checkpoint, on this node or away; 0 if there is none."""
    saved = (path for path in matching(folder, "checkpoint-*") if is_checkpoint(path.name))
    return max(map(step_of, saved), default=0)


def milestone(folder: Path) -> Path | None:
    """Return the file of a trial's milestone, from which longer trials of its trunk continue, or None.

    For the driver of a study in a bucket, it is an empty file that represents the milestone.
    """
    return min((path for path in matching(folder, "milestone-*") if is_milestone(path.name)), default=None)


def drop_milestone(folder: Path) -> None:
    """Remove a trial's milestone, if it has one."""
    while (path := milestone(folder)) is not None:
        path.unlink(missing_ok=True)


def placeholder(state: str) -> str:
    """Return the name of the empty file that represents a checkpoint or milestone away from the driver."""
    return f"{state.removesuffix('.pt')}{_AWAY}"


def drop_damaged(folder: Path) -> list[Path]:
    """Remove damaged checkpoints, from the newest to the first undamaged one, and return their files."""
    damaged = []
    for path in checkpoints(folder):
        if is_whole(path):
            break
        path.unlink()
        damaged.append(path)
    return damaged


def is_whole(path: Path) -> bool:
    """Return whether a checkpoint's or milestone's content is that of its name."""
    with suppress(ValueError):  # it is no file
        return file_digest(path) == _parts(path)["digest"]
    return False


def file_digest(path: Path) -> str:
    """Return the first digits of a file's SHA-256, as in the name of a checkpoint."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def read_progress(folder: Path, running_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read the progress of running trials of a study: trial id → as written by `runners.trials.trial`.

    A trial that has just started or ended, or whose file is damaged, may be missing.
    """
    by_trial = {}
    for trial in sorted(running_ids):
        try:
            progress = read_json(folder / "trials" / trial / PROGRESS, "it is rewritten soon")
        except (OSError, ValueError):
            continue
        if _is_whole(progress):
            by_trial[trial] = progress
    return by_trial


def _is_whole(progress: Mapping[str, Any]) -> bool:
    counts = (
        progress.get(key) for key in ("samples_seen", "samples_planned", "shared_samples", "train_flops")
    )
    measured = (progress.get(key, "missing") for key in ("loss", "samples_per_s"))
    lists = (progress.get(key) for key in ("losses", "curve"))
    return (
        all(isinstance(count, int) and count >= 0 for count in counts)
        and progress["samples_planned"] > 0
        and all(value is None or _is_finite(value) for value in measured)
        and all(isinstance(values, list) and all(map(_is_finite, values)) for values in lists)
    )


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < inf


@contextmanager
def owned(lock: Path, notice: Notice) -> Iterator[None]:
    """Context manager that holds a trial's lock; a notice ends the wait for another process (`Left`)."""
    with locked(lock, given_up=lambda: bool(notice.by)) as held:
        if held is None:
            raise Left(f"{notice.by} while another process had {lock}")
        yield
