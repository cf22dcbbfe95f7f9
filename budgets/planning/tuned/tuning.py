"""Tuning: the values tried for each architecture and strategy, within a share of the budget.

Each pair of architecture and strategy is tuned on its cheapest cell; among equally cheap ones, on that with
most pairs. Every combination of the declared values is tried. If the winner lies at the edge of a field's
values, the range is widened by one step, once. The choice follows from results alone, so a study that was
stopped continues with the same trials.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from budgets.declaration import Declaration
from budgets.keys import DeclaredKeyError
from budgets.planning.feasibility import reason_against
from budgets.planning.grid import Grid, GridCell, Pair
from budgets.planning.plan import TuningPlan
from budgets.planning.tuned.winner import Score, Tried, best_first, is_done, step_beyond, winner, words
from budgets.quantity import format_flops

Fields = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Results of a tuning's trials so far.

    Attributes:
        metric: The selecting metric, ``<evaluation set>/<metric>``.
        of: Trial id → score.
    """

    metric: str
    of: Mapping[str, Score]


def tuning_reserve(declaration: Declaration) -> int:
    """Return the training FLOPs that are set aside for tuning; 0 without tuning.

    Raises:
        ValueError: There is no study budget to take a share of.
    """
    if declaration.tuning is None:
        return 0
    if declaration.study_flops is None:
        raise DeclaredKeyError(
            "tuning.share",
            "tuning.share is a share of the study budget, which is missing: declare budget.study",
        )
    return int(declaration.tuning.share * declaration.study_flops)


def plan_tuning(
    grid: Grid, levels: tuple[int, ...], scores: Scores
) -> tuple[TuningPlan, dict[Pair, dict[str, float] | None]]:
    """Plan the tuning as far as the results so far decide it.

    Args:
        grid: The grid as declared.
        levels: Budget levels.
        scores: Results so far.

    Returns:
        The plan, and the winning values of each decided pair; None if all values diverged.

    Raises:
        ValueError: The declared values cost more than tuning's share, or one of them cannot be trained.
    """
    tuning = grid.declaration.tuning
    assert tuning is not None, "asked where something is tuned"
    reserve = tuning_reserve(grid.declaration)
    cells = _cheapest(grid, levels)
    first = {pair: _tried(grid, on, tuning.fields) for pair, on in cells.items()}
    left = reserve - sum(map(_cost, first.values()))
    if left < 0:
        raise DeclaredKeyError("tuning.share", _too_dear(grid.declaration, reserve, first))
    tried: dict[Pair, list[Tried]] = {}
    tuned: dict[Pair, dict[str, float] | None] = {}
    winners = []
    # Values beyond the edges are chosen only when all results are known, so that the order of results
    # does not decide which pair gets what is left of the share.
    complete = all(is_done(points, scores.of) for points in first.values())
    for pair, points in first.items():
        tried[pair] = points
        if not complete:
            continue
        wide = _widened(tuning.fields, best_first(points, scores.of)[0].values)
        further = [] if wide == tuning.fields else _beyond(_tried(grid, cells[pair], wide), points)
        # Not enough of tuning's share is left: the winner stays at the edge, which is reported.
        if _cost(further) > left:
            further = []
        left -= _cost(further)
        tried[pair] = [*points, *further]
        if is_done(further, scores.of):
            widened = tuple(name for name in wide if further and wide[name] != tuning.fields[name])
            found = winner(cells[pair].cell, tried[pair], scores.of, widened=widened)
            tuned[pair] = None if found is None else dict(found.values)
            winners += [] if found is None else [found]
    every = [point for points in tried.values() for point in points]
    plan = TuningPlan(
        trials=tuple(trial for point in every for trial in point.trials),
        values={trial.trial_id: point.values for point in every for trial in point.trials},
        reserve_flops=reserve,
        most_flops=min(reserve, sum(_most(points, tuning.fields) for points in first.values())),
        metric=scores.metric,
        winners=tuple(winners),
        waiting=tuple(pair for pair in tried if pair not in tuned),
    )
    return plan, tuned


def _cheapest(grid: Grid, levels: tuple[int, ...]) -> dict[Pair, GridCell]:
    """Return the cell that each pair is tuned on, pairs in declared order."""
    cells: dict[Pair, tuple[tuple[int, int], GridCell]] = {}
    for candidate in grid.candidates(levels):
        if reason_against(candidate, grid) is None:
            cell, flops = candidate.cell, candidate.setup.train_flops_per_sample
            level = cell.level_flops if cell.level_flops is not None else candidate.samples * flops
            pair, rank = (cell.architecture, cell.strategy), (level, -cell.subset_size)
            if pair not in cells or rank < cells[pair][0]:
                cells[pair] = rank, candidate
    return {pair: candidate for pair, (_, candidate) in cells.items()}


def _tried(grid: Grid, on: GridCell, fields: Fields) -> list[Tried]:
    """Return each combination of values with its trials, in the fields' order."""
    tuning = grid.declaration.tuning
    assert tuning is not None, "asked where something is tuned"
    pair = on.cell.architecture, on.cell.strategy
    tried = []
    for values in _combinations(fields):
        changed = grid.tuned({pair: values})
        candidate = changed.candidate(on.cell, on.declared_samples, tuning.seeds)
        reason = reason_against(candidate, changed)
        if reason is not None:
            raise DeclaredKeyError("tuning.fields", f"tuning {words(values)} for {on.cell}: {reason}")
        trials = tuple(changed.trial(candidate, seed) for seed in tuning.seeds)
        tried.append(Tried(values=values, trials=trials))
    return tried


def _combinations(fields: Fields) -> Iterator[dict[str, float]]:
    for values in product(*fields.values()):
        yield dict(zip(fields, values, strict=True))


def _widened(fields: Fields, best: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
    """Return each field's values, widened by one step on the side where the best value is at the edge."""
    wide = {}
    for name, values in fields.items():
        beyond = step_beyond(name, values, best[name])
        wide[name] = values if beyond is None else tuple(sorted((*values, beyond)))
    return wide


def _beyond(wide: Sequence[Tried], points: Sequence[Tried]) -> list[Tried]:
    known = [point.values for point in points]
    return [point for point in wide if point.values not in known]


def _cost(points: Sequence[Tried]) -> int:
    return sum(trial.train_flops for point in points for trial in point.trials)


def _most(points: Sequence[Tried], fields: Fields) -> int:
    """Cost of a pair if every field is widened by one value."""
    wide = math.prod(len(values) + 1 for values in fields.values())
    return math.ceil(_cost(points) * wide / len(points))


def _too_dear(declaration: Declaration, reserve: int, first: Mapping[Pair, Sequence[Tried]]) -> str:
    assert declaration.tuning is not None and declaration.study_flops, "as checked before"  # noqa: PT018
    cost = sum(map(_cost, first.values()))
    trials = sum(len(point.trials) for points in first.values() for point in points)
    share = math.ceil(1000 * cost / declaration.study_flops) / 10
    return (
        f"tuning costs {format_flops(cost)} ({trials} trials over {len(first)} pairs of architecture and "
        f"strategy, each at its smallest level), but its share of the study budget is "
        f"{format_flops(reserve)}: raise tuning.share to at least {share:g}%, or try fewer values"
    )
