"""Trials to leave out of a grid: copies of others, and those that exceed the study budget.

A copy takes the same steps on the same pairs as another trial, and would have the same result bit for bit. A
level is spent in whole batches, so levels closer together than the cost of a batch can buy the same steps.
Two mixtures of pools can take the same pairs at some of their sizes: with and without weights if the pools
have equally many pairs.

If the grid exceeds the budget, extra seeds are dropped from the most expensive cells first: at the top level
the last seed of every cell, then the one before it, down to one seed a cell, then at the level below. If that
is not enough, the whole top level is dropped instead, and seeds again only as far as needed. Nothing more is
dropped than this order requires.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from budgets.planning.plan import LeftOut
from budgets.planning.planned_trial import Trial, trunk_id
from budgets.quantity import format_flops, plural

Link = Callable[[Sequence[Trial]], tuple[Trial, ...]]
"""Trials → the same trials, each with the shorter one of its trunk that it continues from."""


def without_copies(trials: Iterable[Trial]) -> tuple[list[Trial], list[LeftOut]]:
    """Divide trials, levels rising, into those to run and the cells of the copies."""
    first: dict[tuple[object, ...], Trial] = {}
    distinct: list[Trial] = []
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
        if same is not trial and (trunk := trunk_id(trial)) != trunk_id(same):
            same = first.setdefault((*key, trunk), trial)
        if same is trial:
            distinct.append(trial)
        else:
            level = same.cell.level
            if level == cell.level:  # they differ in a later digit
                level += f" ({same.cell.level_flops:,} FLOP)"
            reason = f"the same {plural(trial.steps, 'step')} as at {level}"
            copies[cell] = LeftOut(cell=cell, reason=reason)
    return distinct, list(copies.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Trimmed:
    """Trials that fit a budget, in the given order, and those that were dropped.

    ``saved_flops`` leaves out those of steps that kept trials need as well; ``whole_levels`` were dropped
    entirely.
    """

    kept: tuple[Trial, ...]
    dropped: tuple[Trial, ...]
    saved_flops: int
    whole_levels: tuple[int, ...]

    def sentence(self) -> str:
        """Return in words what is dropped: ``all trials at 3 TFLOP (10 trials, 30 TFLOP)``."""
        extra = Counter(_cost_rank(trial) for trial in self.dropped if not self._of_dropped_level(trial))
        parts = [f"all trials at {format_flops(level)}" for level in self.whole_levels]
        parts += [
            f"{plural(number, 'extra seed')} at {format_flops(rank)}"
            for rank, number in sorted(extra.items(), reverse=True)
        ]
        saved = format_flops(self.saved_flops)
        return f"{', '.join(parts)} ({plural(len(self.dropped), 'trial')}, {saved})"

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return one entry for each cell that lost trials."""
        seeds = defaultdict(list)
        for trial in self.dropped:
            seeds[trial.cell, trial.samples_seen].append(trial)
        return tuple(LeftOut(cell=trials[0].cell, reason=self._reason(trials)) for trials in seeds.values())

    def _reason(self, trials: Sequence[Trial]) -> str:
        cost = format_flops(trials[0].paid_flops)
        reason = f"the top level is dropped to fit the study budget: {len(trials)} × {cost}"
        if not self._of_dropped_level(trials[0]):
            names = ", ".join(str(trial.seed) for trial in trials)
            reason = f"extra seeds are dropped to fit the study budget: seed {names}, {cost} each"
        return f"{reason} (budget.fit: drop)"

    def _of_dropped_level(self, trial: Trial) -> bool:
        return trial.cell.level_flops is not None and trial.cell.level_flops in self.whole_levels


def trim_trials(trials: Sequence[Trial], room: int, link: Link) -> Trimmed | None:
    """Drop trials, each cell's seeds in declared order, until the rest costs at most ``room`` training FLOPs.

    ``link`` links the trunks of trials: without a shorter trial the longer ones of its trunk cost more.

    Returns:
        The trials that fit; None if one seed of each cell of the lowest level costs too much.
    """
    levels = sorted({trial.cell.level_flops for trial in trials if trial.cell.level_flops is not None})
    # Drop 0, 1, 2 … levels from the top until the first seed of each remaining cell fits.
    fewest = {(trial.cell, trial.samples_seen): trial for trial in reversed(trials)}.values()
    for number in range(max(1, len(levels))):
        whole = tuple(reversed(levels[len(levels) - number :]))
        if paid_flops_of(link(_without_levels(fewest, whole))) <= room:
            break
    else:
        return None
    fitting = _without_extra_seeds(link(_without_levels(trials, whole)), room, link)
    ids = {trial.trial_id for trial in fitting}
    return Trimmed(
        kept=fitting,
        dropped=tuple(trial for trial in trials if trial.trial_id not in ids),
        saved_flops=paid_flops_of(trials) - paid_flops_of(fitting),
        whole_levels=whole,
    )


def _without_levels(trials: Iterable[Trial], levels: Collection[int]) -> list[Trial]:
    return [trial for trial in trials if trial.cell.level_flops not in levels]


def _without_extra_seeds(trials: Sequence[Trial], room: int, link: Link) -> tuple[Trial, ...]:
    """Return the trials after as many extra seeds are dropped as needed; one seed a cell must fit."""
    over = paid_flops_of(trials) - room
    earlier: Counter[tuple[object, int]] = Counter()
    extra = []
    # Dropping a trial changes the cost of its trunk alone.
    trunks: dict[object, list[Trial]] = defaultdict(list)
    for position, trial in enumerate(trials):
        key = trial.cell, trial.samples_seen
        if earlier[key]:
            extra.append((_cost_rank(trial), earlier[key], position))
        earlier[key] += 1
        trunks[_trunk(trial)].append(trial)
    gone: set[str] = set()
    # By cost, then by how late the seed is declared: costliest cells and last seeds first.
    for _, _, position in sorted(extra, reverse=True):
        if over <= 0:
            break
        trial = trials[position]
        trunk = _trunk(trial)
        before = trunks[trunk]
        trunks[trunk] = rest = [other for other in before if other.trial_id != trial.trial_id]
        over -= paid_flops_of(link(before)) - paid_flops_of(link(rest))
        gone.add(trial.trial_id)
    assert over <= 0, "one seed a cell fits"
    return link([trial for trial in trials if trial.trial_id not in gone])


def _trunk(trial: Trial) -> str:
    return trunk_id(trial) if trial.milestone_step else trial.trial_id


def paid_flops_of(trials: Iterable[Trial]) -> int:
    """Return the training FLOPs that trials cost the study together."""
    return sum(trial.paid_flops for trial in trials)


def _cost_rank(trial: Trial) -> int:
    """Cost by which trials are ordered: their level if they have one, else their own FLOPs."""
    return trial.cell.level_flops if trial.cell.level_flops is not None else trial.train_flops
