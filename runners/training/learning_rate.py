"""Learning-rate schedules."""

import math

from budgets.declaration.recipe import Recipe


def learning_rate(step: int, *, steps: int, batch_size: int, peak: float, recipe: Recipe) -> float:
    """Return the learning rate of a step: a linear rise to the peak, then the recipe's schedule.

    Args:
        step: The step, from 0.
        steps: Number of steps of the run.
        batch_size: Pairs in a batch.
        peak: Peak learning rate.
        recipe: Source of warm-up, schedule and cooldown.
    """
    # Step `rise - 1` reaches the peak; the first step is already above zero.
    rise = recipe.warmup_steps(steps, batch_size)
    if step < rise:
        return peak * (step + 1) / rise
    if recipe.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
    fall = recipe.cooldown_steps(steps)
    return peak * min(1.0, (steps - step) / fall) if fall else peak
