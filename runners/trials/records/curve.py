"""A trial's curve: mean losses of equal intervals of its steps, the same during the run and after it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from budgets.planning.planned_trial import Trial
from runners.results import step_row
from runners.training.learning_rate import learning_rate

if TYPE_CHECKING:
    from torch import Tensor

_POINTS = 200


def mean_losses(losses: "Tensor", *, steps: int, first: int = 0) -> list[float]:
    """Average the losses of each complete interval.

    Args:
        losses: Loss of each step so far, shape (steps done,).
        steps: Total steps of the curve, which decide the interval length.
        first: Number of intervals to skip.

    Returns:
        A mean for each further interval; the last interval may be shorter.
    """
    length = _length(steps)
    starts = range(first * length, len(losses), length)
    whole = [start for start in starts if min(start + length, steps) <= len(losses)]
    return [losses[start : start + length].cpu().mean().item() for start in whole]


def curve_rows(trial: Trial, means: Sequence[float], *, steps: int) -> list[dict[str, Any]]:
    """Return rows of `runners.results.CURVE_COLUMNS`.

    Args:
        trial: The trial.
        means: Means from `mean_losses`, from the first interval on.
        steps: Total steps of the curve.
    """
    rows = []
    for place, loss in enumerate(means, start=1):
        done = min(place * _length(steps), steps)
        rate = learning_rate(
            done - 1, steps=trial.steps, batch_size=trial.batch_size, peak=trial.lr_peak, recipe=trial.recipe
        )
        rows.append({**step_row(trial, done), "loss": loss, "lr": rate})
    return rows


def _length(steps: int) -> int:
    """Steps per interval."""
    return -(-steps // _POINTS)
