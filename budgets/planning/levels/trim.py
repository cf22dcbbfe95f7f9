"""Trials to drop from a grid that exceeds the study budget: extra seeds first, then the top level.

Extra seeds are dropped from the most expensive cells first: at the top level the last seed of every cell,
then the one before it, down to one seed a cell, then at the level below. If that is not enough, the whole top
level is dropped instead, and seeds again only as far as needed. Nothing more is dropped than this order
requires.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from budgets.planning.plan import LeftOut
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_flops, plural


@dataclass(frozen=True, kw_only=True, slots=True)
class Trimmed:
    """Trials that fit a budget.

    Attributes:
        kept: The trials that fit, in the given order.
        dropped: The other trials.
        whole_levels: Levels that were dropped entirely.
    """

    kept: tuple[Trial, ...]
    dropped: tuple[Trial, ...]
    whole_levels: tuple[int, ...]

    def sentence(self) -> str:
        """Return one line that lists what is dropped."""
        extra = Counter(_cost_rank(trial) for trial in self.dropped if not self._of_dropped_level(trial))
        parts = [f"the whole level {format_flops(level)}" for level in self.whole_levels]
        parts += [
            f"{plural(number, 'extra seed')} at {format_flops(rank)}"
            for rank, number in sorted(extra.items(), reverse=True)
        ]
        saved = format_flops(sum(trial.paid_flops for trial in self.dropped))
        return f"{', '.join(parts)}: {plural(len(self.dropped), 'trial')}, {saved}"

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return one entry for each cell that lost trials."""
        seeds = defaultdict(list)
        for trial in self.dropped:
            seeds[trial.cell, trial.samples_seen].append(trial)
        return tuple(LeftOut(cell=trials[0].cell, reason=self._reason(trials)) for trials in seeds.values())

    def _reason(self, trials: Sequence[Trial]) -> str:
        cost = format_flops(trials[0].paid_flops)
        if self._of_dropped_level(trials[0]):
            return (
                f"the top level is dropped to fit the study budget: {len(trials)} × {cost} (budget.fit: drop)"
            )
        names = ", ".join(str(trial.seed) for trial in trials)
        return (
            f"extra seeds are dropped to fit the study budget: seed {names}, {cost} each (budget.fit: drop)"
        )

    def _of_dropped_level(self, trial: Trial) -> bool:
        return trial.cell.level_flops is not None and trial.cell.level_flops in self.whole_levels


def trim(trials: Sequence[Trial], room: int) -> Trimmed | None:
    """Drop trials until the rest costs at most ``room`` training FLOPs.

    Args:
        trials: Trials, each cell's seeds in declared order.
        room: Training FLOPs that they may cost together.

    Returns:
        The trials that fit; None if one seed of each cell of the lowest level costs too much.
    """
    levels = sorted({trial.cell.level_flops for trial in trials if trial.cell.level_flops is not None})
    # Drop 0, 1, 2 … levels from the top until the first seed of each remaining cell fits.
    fewest = {(trial.cell, trial.samples_seen): trial for trial in reversed(trials)}.values()
    by_level: Counter[int | None] = Counter()
    for trial in fewest:
        by_level[trial.cell.level_flops] += trial.paid_flops
    needed, number = sum(by_level.values()), 0
    while needed > room and number < len(levels) - 1:
        number += 1
        needed -= by_level[levels[-number]]
    if needed > room:
        return None
    whole = tuple(reversed(levels[len(levels) - number :]))
    top = frozenset(whole)
    gone = {trial.trial_id for trial in trials if trial.cell.level_flops in top}
    gone |= _extra_seeds_to_drop([trial for trial in trials if trial.trial_id not in gone], room)
    return Trimmed(
        kept=tuple(trial for trial in trials if trial.trial_id not in gone),
        dropped=tuple(trial for trial in trials if trial.trial_id in gone),
        whole_levels=whole,
    )


def _extra_seeds_to_drop(trials: Sequence[Trial], room: int) -> set[str]:
    """Return ids of the extra seeds to drop until the rest fits; one seed a cell must fit."""
    over = sum(trial.paid_flops for trial in trials) - room
    earlier: Counter[tuple[object, int]] = Counter()
    extra = []
    for position, trial in enumerate(trials):
        key = trial.cell, trial.samples_seen
        if earlier[key]:
            extra.append((_cost_rank(trial), earlier[key], position))
        earlier[key] += 1
    gone: set[str] = set()
    # By cost, then by how late the seed is declared: costliest cells and last seeds first.
    for _, _, position in sorted(extra, reverse=True):
        if over <= 0:
            break
        # Longer trials of its trunk, which cost more, are already gone.
        over -= trials[position].paid_flops
        gone.add(trials[position].trial_id)
    assert over <= 0, "one seed a cell fits"
    return gone


def _cost_rank(trial: Trial) -> int:
    """Cost by which trials are ordered: their level if they have one, else their own FLOPs."""
    return trial.cell.level_flops if trial.cell.level_flops is not None else trial.train_flops
