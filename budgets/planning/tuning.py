"""Tuning: the values tried for each architecture and strategy, within shares of the budget.

Each architecture is tuned with each strategy on their cheapest cell; among equally cheap ones, on that with
most pairs. Learning rates that move are tuned at two levels or sizes (`budgets.planning.moving`). Every
combination of the declared values is tried. If the winner lies at the edge of a field's values, the range is
widened by one step, once. The choice follows from results alone, so a study that was stopped continues
with the same trials.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from budgets.declaration.declaration import Declaration
from budgets.declaration.keys import DeclaredKeyError
from budgets.planning.grid import Grid, GridCell, TuningPoint
from budgets.planning.moving import (
    carry_rates,
    choose_neighbours,
    judge_rate,
    optimum_rate,
    trained_with,
    tuned_cells,
)
from budgets.planning.tuning_plan import Carried, TuningPlan, Winner, values_words
from budgets.planning.winner import (
    Score,
    Tried,
    all_scored,
    best_first,
    find_winner,
    step_beyond,
    tried_flops,
)
from budgets.quantity import format_flops, plural

Fields = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Results of a tuning's trials so far, by trial id, in ``metric`` (``<evaluation set>/<metric>``)."""

    metric: str
    of: Mapping[str, Score]


def tuning_reserves(declaration: Declaration) -> tuple[int, int]:
    """Return the training FLOPs that are set aside for tuning and for its check; 0 without them.

    Raises:
        ValueError: There is no study budget to take a share of.
    """
    if declaration.tuning is None:
        return 0, 0
    if declaration.budget.study_flops is None:
        raise DeclaredKeyError(
            "tuning.share",
            "tuning.share is a share of the study budget, which is missing: declare budget.study",
        )
    tuning, study_flops = declaration.tuning, declaration.budget.study_flops
    return int(tuning.share * study_flops), int(tuning.check * study_flops)


def plan_tuning(
    grid: Grid, levels: tuple[int, ...], scores: Scores
) -> tuple[TuningPlan, dict[TuningPoint, dict[str, float] | None]]:
    """Plan the tuning as far as the results so far decide it.

    Returns:
        The plan, and the values of each decided place; None if all values diverged.

    Raises:
        ValueError: The declared values cost more than tuning's share, or one of them cannot be trained.
    """
    tuning = grid.declaration.tuning
    assert tuning is not None, "called only if something is tuned"
    reserve, of_check = tuning_reserves(grid.declaration)
    cells = tuned_cells(grid, levels)
    first = {place: _tried(grid, on, tuning.fields) for place, on in cells.items()}
    left = reserve - sum(map(tried_flops, first.values()))
    if left < 0:
        raise DeclaredKeyError("tuning.share", _too_dear(grid.declaration, reserve, first))
    tried: dict[TuningPoint, list[Tried]] = {}
    won: dict[TuningPoint, Winner | None] = {}
    # Values beyond the edges are chosen only when all results are known, so that the order of results
    # does not decide which place gets what is left of the share.
    complete = all(all_scored(points, scores.of) for points in first.values())
    for place, points in first.items():
        tried[place] = points
        if not complete:
            continue
        wide = _widened(tuning.fields, best_first(points, scores.of)[0].values)
        known = [point.values for point in points]
        further = [point for point in _tried(grid, cells[place], wide) if point.values not in known]
        # If too little of tuning's share is left, the winner stays at the edge, which is reported.
        if tried_flops(further) > left:
            further = []
        left -= tried_flops(further)
        tried[place] = [*points, *further]
        if all_scored(further, scores.of):
            widened = tuple(name for name in wide if further and wide[name] != tuning.fields[name])
            won[place] = find_winner(cells[place].cell, tried[place], scores.of, widened=widened)
    tuned = {place: None if winner is None else dict(winner.values) for place, winner in won.items()}
    moving = bool(tuning.levels or tuning.sizes)
    lines: tuple[Carried, ...] = ()
    if moving and len(won) == len(cells):
        optima = {place: optimum_rate(tried[place], scores.of) for place, winner in won.items() if winner}
        lines, tuned = carry_rates(grid, levels, optima, tuned)
    checked: list[list[Tried]] = []
    left_out: list[str] = []
    if tuning.check:
        checked, left_out = choose_neighbours(
            grid.tuned(tuned), levels, tuned, of_check, cells=cells.values()
        )
    values = [point for points in tried.values() for point in points]
    near = [point for points in checked for point in points]
    combinations = dict.fromkeys((architecture, strategy) for architecture, strategy, _ in cells)
    open_ = {place[:2] for place in cells if place not in won}
    if open_ and moving:
        # A line needs both of its ends.
        combinations = dict.fromkeys(candidate.cell.combination for candidate in grid.candidates(levels))
        open_ = set(combinations)
    plan = TuningPlan(
        trials=tuple(trial for point in values for trial in point.trials),
        values={trial.trial_id: point.values for point in (*values, *near) for trial in point.trials},
        reserve_flops=reserve,
        most_flops=min(reserve, sum(_most(points, tuning.fields) for points in first.values())),
        metric=scores.metric,
        winners=tuple(winner for winner in won.values() if winner is not None),
        waiting=tuple(combination for combination in combinations if combination in open_),
        carried=lines,
        neighbours=tuple(trial for point in near for trial in point.trials),
        check_flops=of_check,
        checks=tuple(verdict for points in checked if (verdict := judge_rate(points, scores.of)) is not None),
        left_out=tuple(left_out),
        unfinished=bool(open_) or not all_scored(near, scores.of),
    )
    return plan, tuned


def _tried(grid: Grid, on: GridCell, fields: Fields) -> list[Tried]:
    """Return each combination of values with its trials, in the fields' order."""
    tried = []
    for combination in product(*fields.values()):
        values = dict(zip(fields, combination, strict=True))
        point = trained_with(grid, on, values)
        if isinstance(point, str):
            raise DeclaredKeyError("tuning.fields", f"tuning {values_words(values)} for {on.cell}: {point}")
        tried.append(point)
    return tried


def _widened(fields: Fields, best: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
    """Return each field's values, widened by one step on the side where the best value is at the edge."""
    wide = {}
    for name, values in fields.items():
        beyond = step_beyond(name, values, best[name])
        wide[name] = values if beyond is None else tuple(sorted((*values, beyond)))
    return wide


def _most(points: Sequence[Tried], fields: Fields) -> int:
    """Return the training FLOPs of a combination if every field is widened by one value.

    All combinations cost the same on average: cost x product of (values + 1) / product of values.
    """
    wide = math.prod(len(values) + 1 for values in fields.values())
    return math.ceil(tried_flops(points) * wide / len(points))


def _too_dear(declaration: Declaration, reserve: int, first: Mapping[TuningPoint, Sequence[Tried]]) -> str:
    assert declaration.tuning is not None and declaration.budget.study_flops, "as checked before"  # noqa: PT018
    cost = sum(map(tried_flops, first.values()))
    trials = sum(len(point.trials) for points in first.values() for point in points)
    share = math.ceil(1000 * cost / declaration.budget.study_flops) / 10
    where = "" if declaration.tuning.levels else ", each at its smallest level"
    pairs = plural(len({place[:2] for place in first}), "pair")
    return (
        f"tuning costs {format_flops(cost)} ({plural(trials, 'trial')} over {pairs} of architecture and "
        f"strategy{where}), but its share of the study budget is {format_flops(reserve)}: raise "
        f"tuning.share to at least {share:g}%, or try fewer values"
    )
