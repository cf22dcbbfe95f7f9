"""The training loop: exactly the planned samples, each step a function of (seed, step) alone.

A run ends early if it has diverged: its loss is not finite, or stays flat at chance level for long.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from budgets.declaration.recipe import Recipe
from runners.data.reading.training_data import TrainingData, empty_for, on_device
from runners.host.seeds import derive_seed, step_generator
from runners.host.watchdog import Phase, position
from runners.models.model import clamp_logit_scale, keep_all_patches
from runners.training.backward import Context, backward
from runners.training.learner import Learner
from runners.training.ranks import gather, gather_objects, rank, rank_count

_STEPS_BETWEEN_CHECKS = 25
_FALL, _MARGIN = 0.002, 0.001  # of chance
_BELOW, _SURE = 2.0, 4.0  # standard errors: for a sign of learning, and to exclude one
_ROUNDING = 1e-5  # of a loss in fp32
_FEWEST_STEPS = 100  # below which a loss at chance level may be a slow start


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSchedule:
    """The settings that decide each step of a run."""

    seed: int  # of order and augmentation
    steps: int
    batch_size: int
    lr_peak: float
    recipe: Recipe

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.recipe.learning_rate(
            step, steps=self.steps, batch_size=self.batch_size, peak=self.lr_peak
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
    """Train from ``first_step``, above 0 for a resumed run, to the end of the schedule.

    The learner is trained in place, and its losses are filled in. ``after_step`` is called with the number of
    steps done.

    Raises:
        Diverged: The loss is not finite, or stays at chance level.
        ValueError: More pairs are damaged than tolerated.
    """
    model, strategy, optimizer, losses = learner.model, learner.strategy, learner.optimizer, learner.losses
    model.train()
    recipe, steps, size, device = schedule.recipe, schedule.steps, schedule.batch_size, losses.device
    by_pair = learner.by_pair
    masked_steps = steps - recipe.tail_steps(steps)
    chance = strategy.chance(size)
    batches = data.batches(
        seed=schedule.seed, batch_size=size, first_step=first_step, steps=steps, empty=empty_for(device)
    )
    position.at(Phase.DATA, first_step)
    for step, batch in enumerate(on_device(batches, device), first_step):
        position.at(Phase.STEP, step + 1)
        pairs = replace(batch, images=to_float(batch.images))
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        with torch.no_grad():
            of_temperature = strategy.temperature_rate(schedule.lr_peak, model.logit_scale)
        if of_temperature is not None:
            optimizer.param_groups[-1]["lr"] = of_temperature
        if step == masked_steps:
            for grown in (model, *(() if learner.average is None else (learner.average.module,))):
                strategy.enlarge(grown)
        if step >= masked_steps:
            strategy = strategy.unmasked
            learner = replace(learner, strategy=strategy)
            keep_all_patches(model)
        before_step()  # counts the step: one that is killed in its middle was computed, too
        generator = step_generator(schedule.seed, step, rank=rank())
        with context():
            views = strategy.views(pairs, generator)
        values = None
        if by_pair is not None:
            ids = gather(batch.ids)
            values = by_pair.look_up(ids, progress=step / steps, epochs=steps * size / by_pair.pairs)
        del batch, pairs  # a large batch takes gigabytes
        optimizer.zero_grad(set_to_none=True)
        # Unique per step and rank.
        seed = derive_seed(schedule.seed, "parts", step * rank_count() + rank())
        losses[step] = backward(learner, views, context, parts=recipe.accumulation, seed=seed, values=values)
        if by_pair is not None and values is not None:
            by_pair.update(ids, values.after)
        del views
        _update(learner, recipe.gradient_clip, average=step >= recipe.averaged_from(steps))
        done = step + 1
        position.at(Phase.BETWEEN, done)
        if done % _STEPS_BETWEEN_CHECKS == 0 or done == steps:
            data.exchange_damage(gather_objects)
            # Depends on the schedule alone, so that a resumed run checks the same ranges.
            since = max(0, done - _STEPS_BETWEEN_CHECKS)
            check_divergence(losses, since=since, done=done, batch_size=size, chance=chance, recipe=recipe)
        after_step(done)
        position.at(Phase.DATA, done)


def to_float(images: Tensor) -> Tensor:
    """Turn uint8 images into floats in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)


def _update(learner: Learner, clip: float | None, *, average: bool) -> None:
    """Take an optimiser step, then clamp the temperature and update the average of the weights."""
    optimizer, scaler = learner.optimizer, learner.scaler
    if scaler is not None:
        # Clipping needs the true gradients.
        scaler.unscale_(optimizer)
    if clip is not None:
        nn.utils.clip_grad_norm_(learner.parameters, clip)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)  # skips a step whose gradients are not finite
        scaler.update()
    clamp_logit_scale(learner.model)
    if learner.average is not None and average:
        learner.average.update_parameters(learner.model)


class Diverged(Exception):  # noqa: N818 - an outcome of a run, not an error of the program
    """The run has failed to learn, after ``steps`` steps."""

    def __init__(self, steps: int, reason: str) -> None:
        super().__init__(reason)
        self.steps = steps


def check_divergence(  # noqa: PLR0913 - the state of a run
    losses: Tensor, *, since: int, done: int, batch_size: int, chance: float, recipe: Recipe
) -> None:
    """Raise `Diverged` for a run that cannot recover.

    A loss that is not finite ends a run at once. A flat one ends it after a whole stretch of steps behind the
    warm-up, as long as the share ``diverged_after`` of the run and at least 100 steps. It is flat if none of
    this is true:

    - The second half of the stretch is lower than the first by 0.2 % of chance. SigLIP's bias takes long.
    - A half is below chance by two standard errors of its mean. Features without information have no expected
      loss below chance, so something is learned.
    - A half has so much noise that its loss could be 0.1 % below chance, within four standard errors.

    Features that have collapsed are all equal: the loss is at chance, with next to no noise, in any batch. A
    slow start has noise, most in small batches, where it takes more steps to tell. The standard error is that
    of the differences of successive steps, in which a trend counts little.

    A trial of a trunk is not ended by a flat loss before its milestone, because longer ones continue from it.
    The schedule and the losses decide alone, so that a resumed run decides the same.

    ``losses`` has an entry for each step of the run, of which ``done`` are done, and those ``since`` a step
    were not checked before. ``chance`` is the loss of features without information.
    """
    steps = len(losses)
    if not bool(torch.isfinite(losses[since:done]).all()):
        raise Diverged(done, f"the loss is not finite within steps {since} to {done} of {steps}")
    if recipe.diverged_after is None or done <= recipe.trunk_steps(steps):
        return
    # The stretch must lie entirely after the warm-up.
    begin = done - max(_FEWEST_STEPS, round(recipe.diverged_after * steps))
    if begin < recipe.warmup_steps(steps, batch_size):
        return
    halves = losses[begin:done].double().tensor_split(2)
    first, second = (half.mean().item() for half in halves)
    if first - second >= _FALL * chance:
        return
    for half, mean in zip(halves, (first, second), strict=True):
        error = (half.diff().square().mean().item() / 2 / len(half)) ** 0.5
        learns = mean < chance - max(_BELOW * error, _ROUNDING * chance)
        if learns or mean - _SURE * error < (1 - _MARGIN) * chance:
            return
    raise Diverged(
        done,
        f"the loss is flat and no better than chance: mean {first:.3f}, then {second:.3f} in the halves of "
        f"steps {begin} to {done} of {steps}, where features without information have {chance:.3f}",
    )
