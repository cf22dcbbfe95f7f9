"""Detection of diverged runs: the loss is not finite, or stays at chance level for long."""

import torch
from torch import Tensor

from budgets.declaration.recipe import Recipe

_OF_CHANCE = 0.998
_FEWEST_STEPS = 100


class Diverged(Exception):  # noqa: N818 - an outcome of a run, not an error of the program
    """The run has failed to learn.

    Attributes:
        steps: Steps done, including those that were lost.
    """

    def __init__(self, steps: int, reason: str) -> None:
        super().__init__(reason)
        self.steps = steps


def check_divergence(  # noqa: PLR0913 - the state of a run
    losses: Tensor, *, since: int, done: int, batch_size: int, chance: float, recipe: Recipe
) -> None:
    """Raise `Diverged` for a run that cannot recover.

    Chance level: over a stretch after the warm-up, as long as the share ``diverged_after`` of the run and at
    least 100 steps, the mean loss is at least 99.8 % of the loss of features without information. CLIP runs
    that diverge usually end there: all features become equal, and the loss is the logarithm of the batch
    size. A slow start stays below: strong augmentation has 99.1 % over its first 100 steps, and none of the
    156 trials of ``results/small-full`` has more than 96.4 % over any fifth of its run.

    Args:
        losses: Loss of each step, (steps,).
        since: First step that was not checked before.
        done: Steps done.
        batch_size: Pairs in a batch.
        chance: Loss of features without information.
        recipe: Source of the warm-up and of ``diverged_after``.

    Raises:
        Diverged: The run has diverged.
    """
    steps = len(losses)
    if not bool(torch.isfinite(losses[since:done]).all()):
        raise Diverged(done, f"the loss is not finite within steps {since} to {done} of {steps}")
    if recipe.diverged_after is None:
        return
    # The stretch must lie entirely after the warm-up.
    begin = done - max(_FEWEST_STEPS, round(recipe.diverged_after * steps))
    if begin < recipe.warmup_steps(steps, batch_size):
        return
    mean = losses[begin:done].mean().item()
    if mean >= _OF_CHANCE * chance:
        raise Diverged(
            done,
            f"the loss is no better than chance: mean {mean:.3f} over steps {begin} to {done} of {steps}, "
            f"where features without information have {chance:.3f}",
        )
