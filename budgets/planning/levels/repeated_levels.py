"""Copies: trials that take the same steps, on the same pairs, as others of the plan.

A level is spent in whole batches, so levels closer together than the cost of a batch can buy the same steps.
Two mixtures of pools can take the same pairs at some of their sizes: with and without weights if the pools
have equally many pairs. Such trials would have the same result bit for bit, and each would be paid in full.
"""

from collections.abc import Iterable

from budgets.planning.identity import trunk_id
from budgets.planning.plan import LeftOut
from budgets.planning.planned_trial import Trial
from budgets.quantity import plural


def without_copies(trials: Iterable[Trial]) -> tuple[list[Trial], list[LeftOut]]:
    """Divide trials, levels rising, into those to run and the cells of the copies."""
    first: dict[tuple[object, ...], Trial] = {}
    kept: list[Trial] = []
    copies: dict[object, LeftOut] = {}
    of_id: dict[str, Trial] = {}
    for trial in trials:
        cell = trial.cell
        same = of_id.setdefault(trial.trial_id, trial)
        if same is not trial:
            copies[cell] = LeftOut(cell=cell, reason=f"the same pairs as {same.cell.quality}")
            continue
        key = cell.combination, cell.subset_size, cell.quality, cell.regime, trial.seed, trial.samples_seen
        same = first.setdefault(key, trial)
        # The trunk's id has the batch, the rate and the recipe, which rules may give each level.
        if same is not trial and (own := trunk_id(trial)) != trunk_id(same):
            same = first.setdefault((*key, own), trial)
        if same is trial:
            kept.append(trial)
        else:
            level = same.cell.level
            if level == cell.level:  # they differ in a later digit
                level += f" ({same.cell.level_flops:,} FLOP)"
            reason = f"the same {plural(trial.steps, 'step')} as at {level}"
            copies[cell] = LeftOut(cell=cell, reason=reason)
    return kept, list(copies.values())
