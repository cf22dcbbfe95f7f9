"""The training loop: exactly the planned samples, each step a function of (seed, step) alone."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from budgets.cost.memory import CHUNK_ENTRIES
from budgets.declaration.recipe import Recipe
from runners.data.reading.ahead import empty_for, on_device
from runners.data.reading.training_data import TrainingData
from runners.host.seeds import derive_seed, step_generator
from runners.models.model import clamp_logit_scale
from runners.training.backward import Context, backward, backward_in_parts
from runners.training.divergence import check_divergence
from runners.training.learner import Learner
from runners.training.learning_rate import learning_rate
from runners.training.ranks import gather_objects, rank, ranks

_STEPS_BETWEEN_CHECKS = 25


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSchedule:
    """The settings that decide each step of a run.

    Attributes:
        seed: Seed of order and augmentation.
        steps: Optimiser steps.
        batch_size: Pairs in a batch.
        lr_peak: Peak learning rate.
        recipe: The other optimisation settings.
    """

    seed: int
    steps: int
    batch_size: int
    lr_peak: float
    recipe: Recipe

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return learning_rate(
            step, steps=self.steps, batch_size=self.batch_size, peak=self.lr_peak, recipe=self.recipe
        )


def train(  # noqa: PLR0913 - the parts of a run
    learner: Learner,
    data: TrainingData,
    schedule: StepSchedule,
    *,
    first_step: int,
    context: Context,
    before_step: Callable[[], None] = lambda: None,
    after_step: Callable[[int], None] = lambda _done: None,
) -> None:
    """Train from `first_step` to the end of the schedule.

    Args:
        learner: The learner, trained in place; its losses are filled in.
        data: The subset.
        schedule: The settings that decide each step.
        first_step: First step of this process; above 0 for a resumed run.
        context: Precision and attention of the forward pass.
        before_step: Called before a step computes.
        after_step: Called with the number of steps done.

    Raises:
        Diverged: The loss is not finite, or stays at chance level (`runners.training.divergence`).
        ValueError: More pairs are damaged than tolerated.
    """
    model, strategy, optimizer, losses = learner.model, learner.strategy, learner.optimizer, learner.losses
    model.train()
    recipe = schedule.recipe
    masked_steps = schedule.steps - recipe.tail_steps(schedule.steps)
    chance = strategy.chance(schedule.batch_size)
    batches = data.batches(
        seed=schedule.seed,
        batch_size=schedule.batch_size,
        first_step=first_step,
        steps=schedule.steps,
        empty=empty_for(losses.device),
    )
    for step, (images, ids) in enumerate(on_device(batches, losses.device), first_step):
        floats = to_float(images)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        if step == masked_steps:
            for each in (model, *(() if learner.average is None else (learner.average.module,))):
                strategy.enlarge(each)
        if step >= masked_steps:
            strategy.unmask(model)
        before_step()
        generator = step_generator(schedule.seed, step, rank=rank())
        with context():
            views = strategy.views(floats, ids, generator)
        del images, floats  # a large batch takes gigabytes
        optimizer.zero_grad(set_to_none=True)
        # A large matrix is computed in chunks of rows, by one rank as by several.
        if recipe.accumulation == 1 and ranks() == 1 and schedule.batch_size**2 <= CHUNK_ENTRIES:
            losses[step] = backward(learner, views, context)
        else:
            # Unique per step and rank.
            seed = derive_seed(schedule.seed, "parts", step * ranks() + rank())
            losses[step] = backward_in_parts(learner, views, context, parts=recipe.accumulation, seed=seed)
        del views
        _update(learner, recipe.gradient_clip)
        done = step + 1
        if done % _STEPS_BETWEEN_CHECKS == 0 or done == schedule.steps:
            data.exchange_damage(gather_objects)
            check_divergence(
                losses,
                # Depends on the schedule alone, so that a resumed run checks the same ranges.
                since=max(0, done - _STEPS_BETWEEN_CHECKS),
                done=done,
                batch_size=schedule.batch_size,
                chance=chance,
                recipe=recipe,
            )
        after_step(done)


def to_float(images: Tensor) -> Tensor:
    """Turn uint8 images into floats in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)


def _update(learner: Learner, clip: float | None) -> None:
    """Take an optimiser step, then clamp the temperature and update the moving average."""
    optimizer, scaler = learner.optimizer, learner.scaler
    if scaler is not None:
        # Clipping needs the true gradients.
        scaler.unscale_(optimizer)
    if clip is not None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, clip)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)  # skips a step whose gradients are not finite
        scaler.update()
    clamp_logit_scale(learner.model)
    if learner.average is not None:
        learner.average.update_parameters(learner.model)
