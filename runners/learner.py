"""What a run changes: weights, optimiser, loss scale, moving average, and the losses so far."""

from dataclasses import dataclass
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from budgets.recipe import Recipe
from runners.optimizer import make_optimizer
from runners.strategies.protocol import TrainingStrategy


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """A model in training, with all that a checkpoint holds.

    Attributes:
        model: The model.
        strategy: Gives the loss.
        modules: All that is trained: the model and the strategy's head.
        optimizer: Over their parameters.
        scaler: Loss scale of fp16, else None.
        average: Moving average of the model's weights, or None.
        losses: Loss of each step, (steps,), on the model's device; not a number where none was yet.
    """

    model: open_clip.CLIP
    strategy: TrainingStrategy
    modules: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    scaler: GradScaler | None
    average: AveragedModel | None
    losses: Tensor

    @property
    def evaluated(self) -> open_clip.CLIP:
        """The model whose weights are the run's result."""
        return self.model if self.average is None else self.average.module

    def state_dict(self) -> dict[str, Any]:
        """Gives everything but the losses; random state is no part: each step draws from its own seed."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts everything but the losses back."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts = {
            "modules": self.modules,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
            "average": self.average,
        }
        return {name: part for name, part in parts.items() if part is not None}


def make_learner(  # noqa: PLR0913 - what a run is made of
    model: open_clip.CLIP,
    strategy: TrainingStrategy,
    *,
    recipe: Recipe,
    lr_peak: float,
    steps: int,
    precision: str = "fp32",
) -> Learner:
    """Prepares a model, on its device, for a run.

    Args:
        model: The model.
        strategy: Gives the loss; its head is moved to the model's device.
        recipe: The optimisation.
        lr_peak: Peak learning rate.
        steps: Steps of the run.
        precision: ``fp32``, ``bf16`` or ``fp16``.
    """
    device = model.logit_scale.device
    head = {} if strategy.head is None else {"head": strategy.head.to(device)}
    modules = nn.ModuleDict({"model": model} | head)
    average = None
    if recipe.ema:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
    if recipe.gradient_checkpointing:
        model.set_grad_checkpointing()
    if recipe.compile:
        model.visual.compile()
        model.transformer.compile()
    return Learner(
        model=model,
        strategy=strategy,
        modules=modules,
        optimizer=make_optimizer(modules, recipe, lr_peak=lr_peak),
        scaler=GradScaler(device.type) if precision == "fp16" else None,
        average=average,
        losses=torch.full((steps,), float("nan"), device=device),
    )
