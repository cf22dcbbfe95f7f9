"""Checkpoints: all state that a trial needs to resume as if it had never stopped.

A file is named ``checkpoint-<step>-<digest>.pt`` after its content, so a damaged file does not match its
name. The last two are kept, so that one damaged file costs only the steps between them.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from runners.host.files import put
from runners.training.learner import Learner
from runners.training.ranks import decided_by_first

_KEPT = 2
_DIGITS = 16  # of the content's SHA-256
_AWAY = ".away"


def save_checkpoint(folder: Path, learner: Learner, *, step: int) -> None:
    """Write a trial's state atomically and delete all but the last two checkpoints.

    Args:
        folder: The trial's folder.
        learner: The learner to save.
        step: Optimiser steps done.
    """
    state = {"step": step, "losses": learner.losses[:step].cpu(), **learner.state_dict()}
    partial = folder / f".checkpoint.partial-{os.getpid()}"
    try:
        save(state, partial)
        put(partial, folder / f"checkpoint-{step:010d}-{_digest(partial)}.pt")
    finally:
        partial.unlink(missing_ok=True)
    for old in checkpoints(folder)[_KEPT:]:
        old.unlink(missing_ok=True)


def load_checkpoint(folder: Path, learner: Learner) -> int:
    """Restore a trial's newest undamaged checkpoint, which rank 0 chooses for all ranks.

    Returns:
        Optimiser steps done; 0, with nothing changed, if there is no checkpoint.

    Raises:
        OSError: The chosen file is not on this rank's storage, or has another step's content there.
    """
    chosen = decided_by_first(lambda: newest(folder))
    if chosen is None:
        return 0
    name, step = chosen
    state: dict[str, Any] = torch.load(folder / name, map_location=learner.losses.device, weights_only=True)
    if state["step"] != step:
        raise OSError(f"{folder / name} is of step {state['step']}, rank 0 resumes at step {step}")
    learner.load_state_dict(state)
    learner.losses[:step] = state["losses"]
    return step


def newest(folder: Path) -> tuple[str, int] | None:
    """Return name and step of the newest undamaged checkpoint; damaged ones are removed."""
    drop_damaged(folder)
    kept = checkpoints(folder)
    return (kept[0].name, _step_of(kept[0])) if kept else None


def checkpoints(folder: Path) -> list[Path]:
    """List a trial's checkpoints, newest first."""
    return sorted(folder.glob("checkpoint-*.pt"), reverse=True)


def kept_steps(folder: Path) -> int:
    """Return the steps kept in the newest checkpoint, on this node or away; 0 if there is none."""
    return max((_step_of(path) for path in folder.glob("checkpoint-*")), default=0)


def _step_of(path: Path) -> int:
    return int(path.name.split("-")[1])


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
        if _digest(path) == path.stem.split("-")[2]:
            break
        path.unlink()
        damaged.append(path)
    return damaged


def save(content: object, path: Path) -> None:
    """Write ``content`` in torch's format.

    Raises:
        OSError: Writing failed; torch raises a RuntimeError instead, which does not show that it is the disk.
    """
    try:
        torch.save(content, path)
    except RuntimeError as error:
        raise OSError(f"cannot write {path}: {str(error).splitlines()[0]}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]
