"""Checkpoints: everything that a trial needs to go on as if it had never stopped.

A file is named ``checkpoint-<step>-<digest>.pt`` after what it holds: a damaged one is known by its name.
The last two are kept, so that one damaged file costs the steps between them, not the trial.
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
    """Writes a trial's state whole or not at all, and drops all but the last two.

    Args:
        folder: The trial's folder.
        learner: What is trained.
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
    """Puts a trial back into its last sound state.

    Returns:
        Optimiser steps done; 0, with nothing changed, when there is no checkpoint.
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
    """Writes what torch reads.

    Raises:
        OSError: It can't be written; torch's own error does not say that it is the disk's.
    """
    try:
        torch.save(content, path)
    except RuntimeError as error:
        raise OSError(f"{path} can't be written: {str(error).splitlines()[0]}") from error
