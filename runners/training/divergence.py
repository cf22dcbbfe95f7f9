"""When a run has diverged: its loss is no number, or no better than chance for long."""

import torch
from torch import Tensor

from budgets.recipe import Recipe

_OF_CHANCE = 0.998
_FEWEST_STEPS = 100


class Diverged(Exception):  # noqa: N818 - an outcome of a run, not an error of the program
    """The run has failed to learn.

    Attributes:
        steps: Steps done, those that were lost included.
    """

    def __init__(self, steps: int, reason: str) -> None:
        super().__init__(reason)
        self.steps = steps


def check_divergence(  # noqa: PLR0913 - what is known of a run
    losses: Tensor, *, since: int, done: int, batch_size: int, chance: float, recipe: Recipe
) -> None:
    """End a run that can't be saved.

    No better than chance means: over a stretch after the warm-up, ``diverged_after`` of the run long and 100
    steps at least, the mean loss is 99.8 % or more of the loss of features that tell nothing apart. A CLIP
    that diverges mostly ends there: all features become one, and the loss is the logarithm of the batch. A
    slow start is below: strong augmentation has 99.1 % over its first 100 steps, and of the 156 trials of
    ``results/small`` none has more than 96.4 % over any fifth of its run.

    Args:
        losses: Loss of each step, (steps,).
        since: First step that was not checked before.
        done: Steps done.
        batch_size: Pairs in a batch.
        chance: The loss of features that tell nothing apart.
        recipe: Gives the warm-up and the share of the run.

    Raises:
        Diverged: It has diverged.
    """
    steps = len(losses)
    if not bool(torch.isfinite(losses[since:done]).all()):
        raise Diverged(done, f"the loss is not finite within steps {since} to {done} of {steps}")
    if recipe.diverged_after is None:
        return
    begin = done - max(_FEWEST_STEPS, round(recipe.diverged_after * steps))
    if begin < recipe.warmup_steps(steps, batch_size):
        return
    mean = losses[begin:done].mean().item()
    if mean >= _OF_CHANCE * chance:
        raise Diverged(
            done,
            f"the loss is no better than chance: {mean:.3f} on average of steps {begin} to {done} of "
            f"{steps}, where features that tell nothing apart have {chance:.3f}",
        )
