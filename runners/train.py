"""The training loop: exactly the samples that were planned, each step a function of (seed, step) alone."""

import hashlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import open_clip
import torch
from torch import Tensor, nn

from budgets.declaration import Recipe
from runners.data.training_set import TrainingData
from runners.model import clamp_logit_scale
from runners.strategies.protocol import TrainingStrategy

_STEPS_BETWEEN_CHECKS = 25


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """What decides each step of a run.

    Attributes:
        seed: Seed of order and augmentation.
        steps: Optimiser steps.
        batch_size: Pairs in a batch.
        lr_peak: Peak learning rate.
        recipe: The rest of the optimisation.
    """

    seed: int
    steps: int
    batch_size: int
    lr_peak: float
    recipe: Recipe


class Diverged(Exception):  # noqa: N818 - an outcome of a run, not an error of the program
    """The loss is no longer a number.

    Attributes:
        steps: Steps done, those that were lost included.
    """

    def __init__(self, steps: int, reason: str) -> None:
        super().__init__(reason)
        self.steps = steps


def learning_rate(step: int, *, steps: int, peak: float, warmup: float) -> float:
    """Gives the learning rate of a step: a linear rise to the peak, then a cosine to zero.

    Args:
        step: The step, from 0.
        steps: All steps of the run.
        peak: Peak learning rate.
        warmup: Share of the steps that the rise takes.
    """
    rise = round(warmup * steps)
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def make_optimizer(modules: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Makes AdamW; gains, biases and the temperature are not decayed, as in open_clip."""
    parameters = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.eps,
        fused=True,
    )


def train(  # noqa: PLR0913 - the parts of a run
    *,
    model: open_clip.CLIP,
    strategy: TrainingStrategy,
    optimizer: torch.optim.Optimizer,
    data: TrainingData,
    schedule: Schedule,
    losses: Tensor,
    first_step: int,
    context: Callable[[], AbstractContextManager[object]],
    before_step: Callable[[], None] = lambda: None,
    after_step: Callable[[int], None],
) -> None:
    """Trains from `first_step` to the end of the schedule.

    Args:
        model: The model; trained in place.
        strategy: Gives the loss.
        optimizer: Over the model's and the strategy's parameters.
        data: The subset.
        schedule: What decides each step.
        losses: Filled with the loss of each step, (steps,), on the model's device.
        first_step: Where a resumed run goes on.
        context: Precision and attention of the forward pass.
        before_step: Called before a step computes.
        after_step: Called with the number of steps done.

    Raises:
        Diverged: The loss is not finite.
    """
    model.train()
    recipe = schedule.recipe
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    batches = data.batches(
        seed=schedule.seed, batch_size=schedule.batch_size, first_step=first_step, steps=schedule.steps
    )
    for step, (images, tokens) in enumerate(batches, first_step):
        floats = to_float(images.to(losses.device, non_blocking=True))
        ids = tokens.to(losses.device, non_blocking=True)
        lr = learning_rate(step, steps=schedule.steps, peak=schedule.lr_peak, warmup=recipe.warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr
        before_step()
        generator = step_generator(schedule.seed, step)
        with context():
            views = strategy.views(floats, ids, generator)
            loss = strategy.loss(model, *strategy.features(model, *views))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.gradient_clip)
        optimizer.step()
        clamp_logit_scale(model)
        losses[step] = loss.detach()
        done = step + 1
        if done % _STEPS_BETWEEN_CHECKS == 0 or done == schedule.steps:
            # Of the schedule alone, so that a resumed run says the same.
            since = max(0, done - _STEPS_BETWEEN_CHECKS)
            if not bool(torch.isfinite(losses[since:done]).all()):
                raise Diverged(
                    done, f"the loss is not finite within steps {since} to {done} of {schedule.steps}"
                )
        after_step(done)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Seeds a step's randomness: the generator that it returns, and torch's own for patch dropout."""
    derived = derive_seed(seed, "step", step)
    torch.manual_seed(derived)
    return torch.Generator().manual_seed(derived)


def derive_seed(seed: int, purpose: str, index: int = 0) -> int:
    """Derives an independent seed of 63 bits from a trial's seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def to_float(images: Tensor) -> Tensor:
    """Turns uint8 images into floats in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)
