"""Learning rates that move with level or size: the cells they are tuned on, carried to and checked on.

A rate is tuned for each architecture and strategy on its cheapest cell, and holds at every level. With
``tuning.levels`` it is tuned at two levels, with ``tuning.sizes`` for two architectures of a family. The line
through both optima in logarithms gives the other rates (`budgets.planning.winner`). With
``tuning.check`` each tuned rate and its neighbours are tried at a larger level, as far as its share goes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from budgets.declaration.keys import DeclaredKeyError
from budgets.planning.feasibility import reason_against
from budgets.planning.grid import Grid, GridCell, TuningPoint
from budgets.planning.planned_trial import Combination
from budgets.planning.tuning_plan import Carried, CarriedRate, Check
from budgets.planning.winner import (
    Z90,
    Optimum,
    RateLine,
    Score,
    Tried,
    all_scored,
    find_optimum,
    find_winner,
    mean_noise,
    mean_score,
    tried_flops,
)
from budgets.quantity import format_flops

Values = dict[TuningPoint, dict[str, float] | None]


def tuned_cells(grid: Grid, levels: tuple[int, ...]) -> dict[TuningPoint, GridCell]:
    """Return the cell of each place that is tuned, combinations in declared order."""
    tuning = grid.declaration.tuning
    assert tuning is not None, "called only if something is tuned"
    if tuning.levels:
        at = {level: _cheapest(grid, levels, (level,)) for level in tuning.levels}
        return {
            (*combination, level): tuned_there[combination]
            for combination in _cheapest(grid, levels, levels)
            for level, tuned_there in at.items()
            if combination in tuned_there
        }
    cells = _cheapest(grid, levels, None)
    families = {
        combination[0]: _family(grid, combination) for combination in cells if combination[0] in tuning.sizes
    }
    if len(set(families.values())) > 1:
        named = ", ".join(f"{name} ({family})" for name, family in families.items())
        raise DeclaredKeyError(
            "tuning.sizes", f"tuning.sizes: {named} are of different families, so no line joins their rates"
        )
    return {
        (*combination, None): cell
        for combination, cell in cells.items()
        if combination[0] in tuning.sizes or _family(grid, combination) not in families.values()
    }


def trained_with(grid: Grid, on: GridCell, values: Mapping[str, float]) -> Tried | str:
    """Return a cell's trials with tuned values, one per tuned seed; the reason if it can't be trained."""
    tuning = grid.declaration.tuning
    assert tuning is not None, "called only if something is tuned"
    cell = on.cell
    changed = grid.tuned({(*cell.combination, None): values})
    candidate = changed.candidate(cell, on.declared_samples, tuning.seeds)
    reason = reason_against(candidate, changed)
    if reason is not None:
        return reason
    return Tried(values=dict(values), trials=tuple(changed.trial(candidate, seed) for seed in tuning.seeds))


def optimum_rate(points: Sequence[Tried], scores: Mapping[str, Score]) -> Optimum:
    """Return the best learning rate of those tried."""
    rising = sorted(points, key=lambda point: point.values["lr_peak"])
    return find_optimum(
        [point.values["lr_peak"] for point in rising],
        [mean_score(point, scores) for point in rising],
        [mean_noise(point, scores) for point in rising],
    )


def carry_rates(
    grid: Grid, levels: tuple[int, ...], best: Mapping[TuningPoint, Optimum], tuned: Values
) -> tuple[tuple[Carried, ...], Values]:
    """Carry rates on along levels or sizes, through the optima where training did not always diverge.

    Returns:
        The lines, and the values of all places. If one end has no optimum, the rate of the other holds
        everywhere.
    """
    tuning = grid.declaration.tuning
    assert tuning is not None, "called only if something is tuned"
    combinations = list(_cheapest(grid, levels, None))
    groups: dict[Combination, list[tuple[TuningPoint, float]]] = {}
    if tuning.levels:
        everywhere = sorted({*levels, *(level for block in grid.declaration.grid for level in block.levels)})
        for combination in combinations:
            groups[combination] = [((*combination, level), float(level)) for level in everywhere]
    else:
        families = {
            _family(grid, combination) for combination in combinations if combination[0] in tuning.sizes
        }
        for combination in combinations:
            if (family := _family(grid, combination)) in families:
                size = float(grid.setup(*combination, None).train_flops_per_sample)
                groups.setdefault((family, combination[1]), []).append(((*combination, None), size))
    lines, values = [], dict(tuned)
    for (_, strategy), members in groups.items():
        ends = [(place, at) for place, at in members if place in best]
        if len(ends) < 2:  # noqa: PLR2004 (a line through two points)
            kept = tuned[ends[0][0]] if ends else None
            values |= {place: kept for place, _ in members}
            continue
        (first, low), (second, high) = ends
        line = RateLine(flops=(low, high), optima=(best[first], best[second]))
        rates = []
        for (architecture, of, level), at in sorted(members, key=lambda member: member[1]):
            rate, least, most = line.at(at)
            values[architecture, of, level] = {"lr_peak": rate}
            rates.append(CarriedRate(
                architecture=architecture, level_flops=level, lr_peak=rate, low=least, high=most,
                tuned=(architecture, of, level) in best,
            ))  # fmt: skip
        slope, least, most = line.slope()
        lines.append(Carried(
            strategy=strategy, along="levels" if tuning.levels else "sizes", exponent=slope, low=least,
            high=most, rates=tuple(rates),
        ))  # fmt: skip
    if tuning.levels:  # cells outside fixed compute have no level
        lowest = {
            combination: next(
                (values[*combination, at] for at in tuning.levels if (*combination, at) in tuned), None
            )
            for combination in combinations
        }
        values |= {(*combination, None): rate for combination, rate in lowest.items()}
    return tuple(lines), values


def choose_neighbours(
    grid: Grid, levels: tuple[int, ...], tuned: Values, room: int, *, cells: Iterable[GridCell]
) -> tuple[list[list[Tried]], list[str]]:
    """Return each combination's tuned rate with its neighbours, at the larger level where most of them fit.

    The level is above those of ``cells``, which were tuned on, and the trials cost at most ``room`` training
    FLOPs. Rates that are still unknown are those of the grid.

    Returns:
        Three rates for each combination, the tuned one in the middle; and sentences about those left out.
    """
    largest = max((on.cell.level_flops or 0 for on in cells), default=0)
    checked_points: list[list[Tried]] = []
    every: list[list[Tried]] = []  # of the level with most combinations; of several, of the lowest
    above: set[Combination] = set()
    # From the top down: a lower level is taken only if more combinations fit there.
    for level in sorted((level for level in levels if level > largest), reverse=True):
        at_level = [_around(grid, on, tuned) for on in _cheapest(grid, levels, (level,)).values()]
        fits, left = [], room
        for points in at_level:
            if tried_flops(points) <= left:
                fits.append(points)
                left -= tried_flops(points)
        checked_points = max(checked_points, fits, key=len)  # of equal lengths, `max` takes the first
        every = max(at_level, every, key=len)
        above.update(map(combination_of, at_level))
    checked = set(map(combination_of, checked_points))
    dear = [points for points in every if combination_of(points) not in checked]
    others = [
        combination
        for combination in _cheapest(grid, levels, None)
        if combination not in {*checked, *map(combination_of, dear)}
    ]
    small = [combination for combination in others if combination not in above]
    sentences = [f"{_named(small)}: no cell at a level above those used for tuning"] if small else []
    if elsewhere := [combination for combination in others if combination in above]:
        sentences.append(f"{_named(elsewhere)}: no cell at the level at which most rates can be checked")
    if dear:
        assert grid.declaration.budget.study_flops is not None, "the room is a share of it"
        cost = sum(map(tried_flops, every))
        share = math.ceil(1000 * cost / grid.declaration.budget.study_flops) / 10
        sentences.append(
            f"{_named(map(combination_of, dear))}: tuning.check sets {format_flops(room)} aside, but all "
            f"combinations at {format_flops(every[0][0].trials[0].cell.level_flops or 0)} cost "
            f"{format_flops(cost)}: raise it to at least {share:g}%"
        )
    return checked_points, sentences


def _around(grid: Grid, on: GridCell, tuned: Values) -> list[Tried]:
    """Return a cell's trials with its rate and its neighbours, a step of the values tried apart."""
    assert grid.declaration.tuning is not None, "called only if something is tuned"
    assert on.setup.lr_peak is not None, "a cell without a learning rate is left out"
    lowest, next_one, *_ = grid.declaration.tuning.fields["lr_peak"]
    combination = on.cell.combination
    values = tuned.get((*combination, on.cell.level_flops), tuned.get((*combination, None))) or {}
    points = []
    for factor in (lowest / next_one, 1.0, next_one / lowest):
        point = trained_with(grid, on, {**values, "lr_peak": float(f"{on.setup.lr_peak * factor:.4g}")})
        assert isinstance(point, Tried), "a rate makes no cell infeasible"
        points.append(point)
    return points


def _named(combinations: Iterable[Combination]) -> str:
    return ", ".join(f"{architecture} with {strategy}" for architecture, strategy in combinations)


def judge_rate(points: Sequence[Tried], scores: Mapping[str, Score]) -> Check | None:
    """Judge a tuned rate, the second of three points, against its neighbours.

    Returns:
        The check; None while results are missing.
    """
    if not all_scored(points, scores):
        return None
    cell, middle = points[0].trials[0].cell, points[len(points) // 2]
    best, rate = find_winner(cell, points, scores, widened=()), middle.values["lr_peak"]
    if best is None:
        return Check(cell=cell, winner=None, lr_peak=rate, score=math.nan, moved=True)
    won, score = next(point for point in points if point.values == best.values), mean_score(middle, scores)
    noise = math.hypot(mean_noise(won, scores), mean_noise(middle, scores))
    moved = won is not middle and not best.score - score <= Z90 * noise
    known = score if math.isfinite(score) else math.nan
    return Check(cell=cell, winner=best, lr_peak=rate, score=known, moved=moved)


def combination_of(points: Sequence[Tried]) -> Combination:
    """Return the architecture and strategy for which some values were tried."""
    return points[0].trials[0].cell.combination


def _cheapest(
    grid: Grid, levels: tuple[int, ...], among: tuple[int, ...] | None
) -> dict[Combination, GridCell]:
    """Return the cheapest cell of each combination, in declared order, or that at one of some levels."""
    cells: dict[Combination, tuple[tuple[int, int], GridCell]] = {}
    for candidate in grid.candidates(levels):
        cell, flops = candidate.cell, candidate.setup.train_flops_per_sample
        if (among is None or cell.level_flops in among) and reason_against(candidate, grid) is None:
            level = cell.level_flops if cell.level_flops is not None else candidate.samples * flops
            combination, rank = cell.combination, (level, -cell.subset_size)
            if combination not in cells or rank < cells[combination][0]:
                cells[combination] = rank, candidate
    return {combination: candidate for combination, (_, candidate) in cells.items()}


def _family(grid: Grid, combination: Combination) -> str:
    return grid.setup(*combination, None).architecture.family
