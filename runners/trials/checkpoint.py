"""Checkpoints: all state that a trial needs to resume as if it had never stopped.

A file is named ``checkpoint-<step>-<digest>.pt`` after its content, so a damaged file does not match its
name. The last two are kept, so that one damaged file costs only the steps between them.
"""

import os
from pathlib import Path
from typing import Any

import torch

from runners.host.files import put
from runners.training.learner import Learner
from runners.trials.trial_files import checkpoints, digest, drop_damaged

_KEPT = 2


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
        put(partial, folder / f"checkpoint-{step:010d}-{digest(partial)}.pt")
    finally:
        partial.unlink(missing_ok=True)
    for old in checkpoints(folder)[_KEPT:]:
        old.unlink(missing_ok=True)


def load_checkpoint(folder: Path, learner: Learner) -> int:
    """Restore a trial's newest undamaged checkpoint.

    Returns:
        Optimiser steps done; 0, with nothing changed, if there is no checkpoint.
    """
    drop_damaged(folder)
    kept = checkpoints(folder)
    if not kept:
        return 0
    state: dict[str, Any] = torch.load(kept[0], map_location=learner.losses.device, weights_only=True)
    learner.load_state_dict(state)
    step: int = state["step"]
    learner.losses[:step] = state["losses"]
    return step


def save(content: object, path: Path) -> None:
    """Write ``content`` in torch's format.

    Raises:
        OSError: Writing failed; torch raises a RuntimeError instead, which does not show that it is the disk.
    """
    try:
        torch.save(content, path)
    except RuntimeError as error:
        raise OSError(f"cannot write {path}: {str(error).splitlines()[0]}") from error
