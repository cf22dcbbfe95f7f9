"""Budget levels from a study budget alone: the highest geometric ladder whose whole grid fits.

The top level is rounded to three digits for readability: the highest such number at which all trials of the
grid, plus charges and trials without a level, cost at most the study budget, and at which some cell stays
within ``limits.max_epochs``. Cells that a level leaves out (too few steps, too many epochs) count as if they
ran, so that losing cells never raises the ladder. Another grid gets another ladder, and thereby other trial
ids; declare the levels to keep them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from budgets.declaration.marked_file import DeclaredKeyError
from budgets.declaration.sections import Ladder
from budgets.planning.feasibility import lasting_reasons, most_samples
from budgets.planning.grid import Grid, Setup
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_flops

_DIGITS = 900  # three-digit numbers from 100 to 999 per power of ten
_PLACEHOLDER = (1,)  # any level will do: lasting reasons and seeds do not depend on it


def choose_levels(grid: Grid, beside: int) -> tuple[int, ...]:
    """Return the levels in training FLOPs, rising, of a grid that declares none.

    ``beside`` are the training FLOPs that the study pays in addition to its trials.

    Raises:
        DeclaredKeyError: There is no study budget, or charges and trials without a level already cost it all.
    """
    study_flops = grid.declaration.budget.study_flops
    if study_flops is None:
        raise DeclaredKeyError(
            "budget", "declare budget levels, or a study budget (budget.study) to choose them from"
        )
    # The cost of a ladder depends on the cells only through their setups: count the cells of each once,
    # so that a step of the bisection costs one sum over setups instead of a new grid.
    counts: Counter[int] = Counter()
    setups: dict[int, Setup] = {}
    seen = set()
    rest, longest = beside, 0
    for candidate in grid.candidates(_PLACEHOLDER):
        if next(lasting_reasons(candidate, grid), None) is not None:
            continue
        setup = candidate.setup
        setups[id(setup)] = setup
        # Mixtures that take the same pairs are one cell, see `budgets.planning.trim`.
        pairs = tuple(part.content for part in candidate.components)
        for seed in candidate.seeds:
            key = replace(candidate.cell, quality=""), pairs, candidate.samples, seed
            if key in seen:
                continue
            seen.add(key)
            if candidate.cell.level_flops is None:
                rest += setup.train_flops(candidate.samples // setup.batch_size)
            else:
                counts[id(setup)] += 1
                steps = most_samples(candidate, grid) // setup.batch_size
                longest = max(longest, setup.train_flops(steps + 1) - 1)
    # `rest` does not depend on the levels; the ladder gets what remains.
    if rest >= study_flops:
        what = "charges" if grid.declaration.tuning is None else "charges, set-asides for tuning and check,"
        raise DeclaredKeyError(
            "budget.study",
            f"{what} and trials without a level cost {format_flops(rest)}, but the study budget is "
            f"{format_flops(study_flops)}: nothing is left for levels; raise budget.study",
        )
    ladder = grid.declaration.budget.ladder

    def cost(top: int) -> int:
        levels = _levels(top, ladder)
        return sum(number * setups[key].curve_flops(levels) for key, number in counts.items())

    most = min(longest, study_flops) if counts else study_flops
    top = _highest(lambda top: cost(top) <= study_flops - rest, most)
    return _levels(top, ladder)


def unspent_note(grid: Grid, levels: tuple[int, ...], trials: Sequence[Trial], share: float) -> str:
    """Return a note on a share of the study budget that chosen levels leave unspent."""
    cells = {
        candidate.cell
        for candidate in grid.candidates(levels)
        if candidate.cell.level_flops is not None and next(lasting_reasons(candidate, grid), None) is None
    }
    lost = len(cells - {trial.cell for trial in trials})
    why = "higher levels would exceed limits.max_epochs"
    if lost:
        why = f"of the cells of the chosen levels, {lost:,} of {len(cells):,} are left out"
    return (
        f"{100 * share:.3g} % of the study budget stays unspent: {why}. To spend more, declare "
        "budget.levels, more pairs or a higher limits.max_epochs"
    )


def _levels(top: int, ladder: Ladder) -> tuple[int, ...]:
    ratio = Fraction(ladder.ratio).limit_denominator(10**6)
    return tuple(sorted({max(1, int(top / ratio**step)) for step in range(ladder.levels)}))


def _highest(fits: Callable[[int], bool], most: int) -> int:
    """Return the highest three-digit number (times a power of ten) up to ``most`` that fits, by bisection.

    Costs rise with the level, so bisection finds it.
    """
    # Bisection over indices: index i is the number (100 + i mod 900) · 10^(i div 900).
    low, high = 0, _DIGITS * len(str(most))
    while high - low > 1:
        middle = (low + high) // 2
        if _number(middle) <= most and fits(_number(middle)):
            low = middle
        else:
            high = middle
    return _number(low)


def _number(index: int) -> int:
    return (100 + index % _DIGITS) * int(10 ** (index // _DIGITS))
