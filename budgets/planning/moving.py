"""Learning rates that move with level or size: the cells they are tuned on, carried to and checked on.

A rate is tuned for each architecture and strategy on its cheapest cell, and holds at every level. With
``tuning.levels`` it is tuned at two levels, with ``tuning.sizes`` for one or two architectures of a family.
The line through two optima in logarithms gives the other rates (`budgets.planning.winner`). With
``tuning.check`` each tuned rate and its neighbours are tried at a larger level, as far as its share goes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from budgets.declaration.marked_file import DeclaredKeyError
from budgets.planning.feasibility import reason_against
from budgets.planning.grid import Grid, GridCell, TuningPoint
from budgets.planning.planned_trial import Combination
from budgets.planning.tuning_plan import Carried, CarriedRate, Check
from budgets.planning.winner import (
    Z90,
    Optimum,
    RateLine,
    Score,
    SweepPoint,
    all_scored,
    find_optimum,
    find_winner,
    mean_noise,
    mean_score,
    tried_flops,
)
from budgets.quantity import format_flops

Values = dict[TuningPoint, dict[str, float] | None]
CellsByCost = Mapping[Combination, Sequence[GridCell]]
"""The cells that each pair could be tuned on, one of each cost, rising; pairs in declared order."""


def tuned_rungs(grid: Grid, levels: tuple[int, ...]) -> CellsByCost:
    """Return the cells of each pair that the tuning decides; of equally cheap ones, that with most pairs."""
    rungs: dict[Combination, dict[tuple[int, int], GridCell]] = {}
    for candidate in grid.candidates(levels):
        cell, flops = candidate.cell, candidate.setup.train_flops_per_sample
        if grid.declaration.tunes(*cell.combination) and reason_against(candidate, grid) is None:
            level = cell.level_flops
            cost = (candidate.samples * flops, 0) if level is None else (level, level)
            at = rungs.setdefault(cell.combination, {})
            if cost not in at or cell.subset_size > at[cost].cell.subset_size:
                at[cost] = candidate
    return {pair: [at[cost] for cost in sorted(at)] for pair, at in rungs.items()}


def tuned_cells(grid: Grid, rungs: CellsByCost) -> dict[TuningPoint, GridCell]:
    """Return the cell of each place that is tuned, combinations in declared order.

    Raises:
        ValueError: ``tuning.sizes`` names two of a family and tunes other fields, or more of it.
    """
    tuning = grid.declaration.tuning
    assert tuning is not None, "called only if something is tuned"
    if tuning.levels:
        at = {level: _at_level(rungs, level) for level in tuning.levels}
        return {(*pair, level): at[level][pair] for pair in rungs for level in at if pair in at[level]}
    groups, most = families(grid, rungs), 1 if set(tuning.fields) - {"lr_peak"} else 2
    for (family, _), pairs in groups.items():
        if len(sizes := [name for name, _ in pairs if name in tuning.sizes]) > most:
            named = f"{', '.join(sizes)} are of one family ({family})"
            allowed = "name one or two of it" if most > 1 else "name one of it, or tune lr_peak alone"
            raise DeclaredKeyError("tuning.sizes", f"tuning.sizes: {named}: {allowed}")
    apart = rungs.keys() - {pair for pairs in groups.values() for pair in pairs}
    return {(*pair, None): on[0] for pair, on in rungs.items() if pair[0] in tuning.sizes or pair in apart}


def families(grid: Grid, rungs: CellsByCost) -> dict[Combination, list[Combination]]:
    """Return the pairs that ``tuning.sizes`` decides, by family and strategy."""
    assert grid.declaration.tuning is not None, "called only if something is tuned"
    sizes, groups = {*grid.declaration.tuning.sizes}, dict[Combination, list[Combination]]()
    for pair in rungs:
        groups.setdefault((grid.setup(*pair, None).architecture.family, pair[1]), []).append(pair)
    return {key: pairs for key, pairs in groups.items() if sizes & {name for name, _ in pairs}}


def trained_with(grid: Grid, on: GridCell, values: Mapping[str, float]) -> SweepPoint | str:
    """Return a cell's trials with tuned values, one per tuned seed; the reason if it can't be trained."""
    tuning = grid.declaration.tuning
    assert tuning is not None, "called only if something is tuned"
    changed = grid.tuned({(*on.cell.combination, None): values})
    candidate = changed.candidate(on.cell, on.declared_samples, tuning.seeds)
    if (reason := reason_against(candidate, changed)) is not None:
        return reason
    return SweepPoint(
        values=dict(values), trials=tuple(changed.trial(candidate, seed) for seed in tuning.seeds)
    )


def _optimum_rate(points: Sequence[SweepPoint], scores: Mapping[str, Score]) -> Optimum:
    """Return the best learning rate of those tried."""
    rising = sorted(points, key=lambda point: point.values["lr_peak"])
    return find_optimum(
        [point.values["lr_peak"] for point in rising],
        [mean_score(point, scores) for point in rising],
        [mean_noise(point, scores) for point in rising],
    )


def carry_rates(  # noqa: PLR0913 - the plan and the results that a line follows from
    grid: Grid,
    levels: tuple[int, ...],
    rungs: CellsByCost,
    tuned: Values,
    *,
    best: Mapping[TuningPoint, Sequence[SweepPoint]],
    scores: Mapping[str, Score],
) -> tuple[tuple[Carried, ...], dict[TuningPoint, tuple[str, ...]], Values]:
    """Carry values on along levels or sizes, from the places that have a winner.

    ``best`` has what was tried there; ``tuned`` also has None where training diverged at every value, and
    lacks the places where no result beats chance.

    Returns:
        The lines, the architectures that take a place's values, and the values of all decided places. If
        only one end has a winner, or there is one size of a family, its values hold everywhere.
    """
    tuning = grid.declaration.tuning
    assert tuning is not None, "called only if something is tuned"
    groups: dict[Combination, list[tuple[TuningPoint, float]]]
    if tuning.levels:
        everywhere = sorted({*levels, *(level for block in grid.declaration.grid for level in block.levels)})
        groups = {pair: [((*pair, level), float(level)) for level in everywhere] for pair in rungs}
    else:
        groups = {
            key: [((*pair, None), float(grid.setup(*pair, None).train_flops_per_sample)) for pair in pairs]
            for key, pairs in families(grid, rungs).items()
        }
    lines, values, cells = [], dict(tuned), tuned_cells(grid, rungs)
    serves: dict[TuningPoint, tuple[str, ...]] = {}
    for (_, strategy), members in groups.items():
        ends = [(place, at) for place, at in members if place in best]
        if len(ends) < 2:  # noqa: PLR2004 (a line through two points)
            tried = [place for place, _ in members if place in cells]
            if ends or (tried and all(place in tuned for place in tried)):
                winner = tuned[ends[0][0]] if ends else None
                values |= {place: winner for place, _ in members}
            if ends and not tuning.levels:
                serves[ends[0][0]] = tuple(place[0] for place, _ in members if place != ends[0][0])
            continue
        (first, low), (second, high) = ends
        optima = _optimum_rate(best[first], scores), _optimum_rate(best[second], scores)
        line = RateLine(flops=(low, high), optima=optima)
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
    for level in reversed(tuning.levels):  # cells outside fixed compute have no level: the lowest decides
        values |= {(*pair, None): values[*pair, level] for pair in rungs if (*pair, level) in tuned}
    return tuple(lines), serves, values


def choose_neighbours(
    grid: Grid, rungs: CellsByCost, tuned: Values, room: int, *, cells: Mapping[TuningPoint, GridCell]
) -> tuple[list[list[SweepPoint]], list[str]]:
    """Return each combination's tuned rate with its neighbours, at the larger level where most of them fit.

    The level is above those of a pair's ``cells``, which were tuned on, and the trials cost at most ``room``
    training FLOPs. ``rungs`` are the cells of the pairs to check; rates that are still unknown are those of
    the grid.

    Returns:
        Three rates for each combination, the tuned one in the middle; and sentences about those left out.
    """
    tuned_at = {place[:2]: on.cell.level_flops or 0 for place, on in cells.items()}  # the last is the highest
    lowest = min(tuned_at.values(), default=0)
    levels = {on.cell.level_flops or 0 for ladder in rungs.values() for on in ladder}
    checked_points: list[list[SweepPoint]] = []
    every: list[list[SweepPoint]] = []  # of the level with most combinations; of several, of the lowest
    # From the top down: a lower level is taken only if more combinations fit there.
    for level in sorted((level for level in levels if level > lowest), reverse=True):
        at = {pair: on for pair, on in _at_level(rungs, level).items() if level > tuned_at.get(pair, lowest)}
        at_level = [_around(grid, on, tuned) for on in at.values()]
        fits, left = [], room
        for points in at_level:
            if tried_flops(points) <= left:
                fits.append(points)
                left -= tried_flops(points)
        checked_points = max(checked_points, fits, key=len)  # of equal lengths, `max` takes the first
        every = max(at_level, every, key=len)
    checked = set(map(combination_of, checked_points))
    dear = [points for points in every if combination_of(points) not in checked]
    others = [pair for pair in rungs if pair not in {*checked, *map(combination_of, dear)}]
    where = "at the level at which most rates can be checked, " if every else ""
    sentences = [f"{_named(others)}: no cell {where}above those used for tuning"] if others else []
    if dear:
        cost = sum(map(tried_flops, every))
        sentences.append(
            f"{_named(map(combination_of, dear))}: tuning.check sets {format_flops(room)} aside, but all "
            f"combinations at {format_flops(every[0][0].trials[0].cell.level_flops or 0)} cost "
            f"{format_flops(cost)}: raise it to at least {share_of_study(grid, cost)}"
        )
    return checked_points, sentences


def _around(grid: Grid, on: GridCell, tuned: Values) -> list[SweepPoint]:
    """Return a cell's trials with its rate and its neighbours, a step of the values tried apart."""
    assert grid.declaration.tuning is not None, "called only if something is tuned"
    assert on.setup.lr_peak is not None, "a cell without a learning rate is left out"
    lowest, next_one, *_ = grid.declaration.tuning.fields["lr_peak"]
    combination = on.cell.combination
    values = tuned.get((*combination, on.cell.level_flops), tuned.get((*combination, None))) or {}
    points = []
    for factor in (lowest / next_one, 1.0, next_one / lowest):
        point = trained_with(grid, on, {**values, "lr_peak": float(f"{on.setup.lr_peak * factor:.4g}")})
        assert isinstance(point, SweepPoint), "a rate makes no cell infeasible"
        points.append(point)
    return points


def _named(combinations: Iterable[Combination]) -> str:
    return ", ".join(f"{architecture} with {strategy}" for architecture, strategy in combinations)


def judge_rate(points: Sequence[SweepPoint], scores: Mapping[str, Score]) -> Check | None:
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


def share_of_study(grid: Grid, train_flops: int) -> str:
    """Return compute as a share of the study budget, rounded up."""
    assert grid.declaration.budget.study_flops is not None, "checked with the declaration"
    return f"{math.ceil(1000 * train_flops / grid.declaration.budget.study_flops) / 10:g}%"


def combination_of(points: Sequence[SweepPoint]) -> Combination:
    """Return the architecture and strategy for which some values were tried."""
    return points[0].trials[0].cell.combination


def _at_level(rungs: CellsByCost, level: int) -> dict[Combination, GridCell]:
    """Return each pair's cell at a level, if it has one."""
    return {pair: cell for pair, on in rungs.items() for cell in on if cell.cell.level_flops == level}
