"""A trial's curve: mean losses of equal stretches of its steps, the same while it runs and afterwards."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from budgets.planning.plan import Trial
from runners.training.optimizer import learning_rate

_POINTS = 200


def mean_losses(losses: Tensor, *, steps: int, first: int = 0) -> list[float]:
    """Average the losses of each whole stretch.

    Args:
        losses: Loss of each step so far, of shape [steps done].
        steps: Steps that the curve is of, by which it is parted.
        first: Stretches to leave out.

    Returns:
        A mean for each further stretch; the last stretch may be shorter.
    """
    length = _length(steps)
    starts = range(first * length, len(losses), length)
    whole = [start for start in starts if min(start + length, steps) <= len(losses)]
    return [losses[start : start + length].cpu().mean().item() for start in whole]


def curve_rows(trial: Trial, means: Sequence[float], *, steps: int) -> list[dict[str, Any]]:
    """Return rows of `runners.results.CURVE_COLUMNS`.

    Args:
        trial: The trial.
        means: What `mean_losses` gave, all from the first on.
        steps: Steps that the curve is of.
    """
    rows = []
    for place, loss in enumerate(means, start=1):
        done = min(place * _length(steps), steps)
        samples = done * trial.batch_size
        rate = learning_rate(
            done - 1,
            steps=trial.steps,
            batch_size=trial.batch_size,
            peak=trial.lr_peak,
            recipe=trial.recipe,
        )
        rows.append(
            {
                "trial": trial.trial_id,
                "step": done,
                "samples_seen": samples,
                "train_flops": float(trial.train_flops_after(samples)),
                "loss": loss,
                "lr": rate,
            }
        )
    return rows


def _length(steps: int) -> int:
    """Steps of a stretch."""
    return -(-steps // _POINTS)
