"""Checkpoints: everything that a trial needs to go on as if it had never stopped."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runners.files import new_file


def save_checkpoint(
    path: Path, *, step: int, losses: Tensor, modules: nn.ModuleDict, optimizer: torch.optim.Optimizer
) -> None:
    """Writes a trial's state atomically.

    Random state is not part of it: each step draws from a generator of the trial's seed and the step.

    Args:
        path: The file.
        step: Optimiser steps done.
        losses: Loss of each step so far, (steps,).
        modules: The model and the strategy's head.
        optimizer: Their optimiser.
    """
    state = {
        "step": step,
        "losses": losses[:step].cpu(),
        "modules": modules.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with new_file(path) as file:
        torch.save(state, file)


def load_checkpoint(
    path: Path, *, losses: Tensor, modules: nn.ModuleDict, optimizer: torch.optim.Optimizer
) -> int:
    """Puts a trial back into a saved state.

    Returns:
        Optimiser steps done; 0, with nothing changed, when there is no checkpoint.
    """
    if not path.exists():
        return 0
    state: dict[str, Any] = torch.load(path, map_location=losses.device, weights_only=True)
    modules.load_state_dict(state["modules"])
    optimizer.load_state_dict(state["optimizer"])
    step: int = state["step"]
    losses[:step] = state["losses"]
    return step
