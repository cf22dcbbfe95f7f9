"""When a run has diverged: its loss is no number, or stays above chance for long."""

import torch
from torch import Tensor

from budgets.recipe import Recipe

_MARGIN = 0.02
_FEWEST_STEPS = 25


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
    """Ends a run that can't be saved.

    Above chance means: the mean loss over a stretch after the warm-up, ``diverged_after`` of the run long
    and 25 steps at least, lies 2 % above the loss of features that tell nothing apart. A run that learns
    slowly stays at chance and is left alone: none of the 156 trials of ``results/small`` is above chance by
    more than 1.5 % over any tenth of its run.

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
    if mean > (1 + _MARGIN) * chance:
        raise Diverged(
            done,
            f"the loss is {mean:.2f} on average within steps {begin} to {done} of {steps}, "
            f"chance is {chance:.2f}",
        )
