"""Tuning: the values tried for each architecture and strategy, within shares of the budget.

Each architecture is tuned with each strategy on their cheapest cell; among equally cheap ones, on that with
most pairs. Learning rates that move are tuned at two levels or sizes (`budgets.planning.moving`). Every
combination of the declared values is tried. If no result beats chance, all are tried on the next dearer cell,
as long as the share has room; without it nothing is chosen. If the winner lies at the edge of a field's
values, the range is widened by one step, once. The choice follows from results alone, so a study that was
stopped continues with the same trials.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from statistics import NormalDist

from budgets.declaration.declaration import Declaration
from budgets.declaration.marked_file import DeclaredKeyError
from budgets.planning.grid import Grid, GridCell, TuningPoint
from budgets.planning.moving import (
    CellsByCost,
    carry_rates,
    choose_neighbours,
    judge_rate,
    share_of_study,
    trained_with,
    tuned_cells,
    tuned_rungs,
)
from budgets.planning.planned_trial import Combination
from budgets.planning.tuning_plan import Carried, TuningPlan, Winner, cost_by_pair, values_words
from budgets.planning.winner import (
    Score,
    SweepPoint,
    all_scored,
    best_first,
    find_winner,
    mean_score,
    step_beyond,
    tried_flops,
)
from budgets.quantity import format_flops, format_range, format_share, plural

_LUCK = 0.05  # probability that the best of some guesses counts as better than chance
_GUESSES = re.compile(r"(?:top|_r)(\d+)$")  # at the end of a metric that allows several
Fields = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Results of a tuning's trials so far, by trial id, in ``metric`` (``<evaluation set>/<metric>``).

    ``choices``: classes, or images of a retrieval set, that a guess has to choose from; 0 if unknown.
    """

    metric: str
    of: Mapping[str, Score]
    choices: int = 0

    def at_chance(self, points: Sequence[SweepPoint]) -> str:
        """Return in words that no result of some combinations beats chance; empty if one does.

        A model that learned nothing may guess all images of a class alike, so a guess has the noise of
        ``choices`` draws, not of all images. The best of several guesses is higher than one.
        """
        known = [score for point in points if (score := mean_score(point, self.of)) > -math.inf]
        if not self.choices or not known:
            return ""
        allowed = _GUESSES.search(self.metric)
        chance = min(1.0, (int(allowed[1]) if allowed else 1) / self.choices)
        deviation = math.sqrt(chance * (1 - chance) / self.choices / len(points[0].trials))
        if max(known) > chance + NormalDist().inv_cdf(1 - _LUCK / len(points)) * deviation:
            return ""
        span = format_range(format_share(min(known), 1), format_share(max(known), 1))
        results = f"all {plural(len(known), 'result')} at {_level(points)}"
        return f"{results} are at chance ({span}; chance {format_share(chance, 1)})"


def tuning_reserves(declaration: Declaration) -> tuple[int, int]:
    """Return the training FLOPs that are set aside for tuning and for its check; 0 without them."""
    tuning, study_flops = declaration.tuning, declaration.budget.study_flops
    if tuning is None:
        return 0, 0
    assert study_flops is not None, "checked with the declaration"
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
    course = _Course(grid, tuned_rungs(grid, levels), scores, reserve)
    course.climb()
    course.decide()
    tried, won, waiting = course.tried, course.won, course.waiting
    tuned = {place: None if winner is None else dict(winner.values) for place, winner in won.items()}
    lines: tuple[Carried, ...] = ()
    serves: dict[TuningPoint, tuple[str, ...]] = {}
    if not waiting:
        best = {place: tried[place] for place, winner in won.items() if winner}
        lines, serves, tuned = carry_rates(grid, levels, course.rungs, tuned, best=best, scores=scores.of)
    after, decided = grid.tuned(tuned), {place[:2] for place in tuned}
    checked: list[list[SweepPoint]] = []
    left_out: list[str] = []
    if tuning.check:
        near_rungs = tuned_rungs(after, levels)
        rungs = {pair: on for pair, on in near_rungs.items() if waiting or pair in decided}
        checked, left_out = choose_neighbours(after, rungs, tuned, of_check, cells=course.cells)
    values = [*course.passed, *(point for points in tried.values() for point in points)]
    near = [point for points in checked for point in points]
    plan = TuningPlan(
        trials=tuple(trial for point in values for trial in point.trials),
        values={trial.trial_id: point.values for point in (*values, *near) for trial in point.trials},
        reserve_flops=reserve,
        metric=scores.metric,
        winners=tuple(replace(won, serves=serves.get(at, ())) for at, won in won.items() if won),
        waiting=waiting,
        at_chance=(*course.at_chance, *course.undecided(after)),
        carried=lines,
        neighbours=tuple(trial for point in near for trial in point.trials),
        check_flops=of_check,
        checks=tuple(verdict for points in checked if (verdict := judge_rate(points, scores.of)) is not None),
        left_out=tuple(left_out),
        unfinished=bool(waiting) or not all_scored(near, scores.of),
    )
    return plan, tuned


class _Course:
    """The course of a tuning: the cells and values that the results so far ask for.

    Values are tried on a dearer cell, or beyond an edge, only when all results before are known: the order of
    results must not decide which place gets what is left of the share.
    """

    def __init__(self, grid: Grid, rungs: CellsByCost, scores: Scores, reserve: int) -> None:
        assert grid.declaration.tuning is not None, "called only if something is tuned"
        self.rungs, self.cells = rungs, tuned_cells(grid, rungs)
        self._grid, self._tuning, self._scores, self._reserve = grid, grid.declaration.tuning, scores, reserve
        self.tried = {place: self._all_values(on, self._tuning.fields) for place, on in self.cells.items()}
        self._left = reserve - sum(map(tried_flops, self.tried.values()))
        if self._left < 0:
            raise DeclaredKeyError("tuning.share", _too_dear(grid, reserve, self.tried))
        self.passed: list[SweepPoint] = []
        self.at_chance: list[str] = []
        self.won: dict[TuningPoint, Winner | None] = {}
        self._stuck: dict[TuningPoint, str] = {}

    @property
    def waiting(self) -> tuple[Combination, ...]:
        """Pairs that wait for results; a line or a family waits for all of them."""
        open_ = {place[:2] for place in self.cells.keys() - self.won.keys() - self._stuck.keys()}
        together = open_ and (self._tuning.levels or self._tuning.sizes)
        return tuple(pair for pair in self.rungs if together or pair in open_)

    @property
    def _complete(self) -> bool:
        return all(all_scored(points, self._scores.of) for points in self.tried.values())

    def climb(self) -> None:
        """Try values on dearer cells where no result beats chance, as long as the share has room."""
        moved = True
        while moved and self._complete:
            moved, self._stuck = False, {}
            for place, points in self.tried.items():
                if not (verdict := self._scores.at_chance(points)):
                    continue
                name = f"tuning of {place[0]} with {place[1]}: {verdict}"
                dearer = None if self._tuning.levels else self._dearer(place)
                if dearer is None or (cost := tried_flops(dearer[1])) > self._left:
                    why = "there is no higher level to try the values at"
                    if dearer is not None:
                        share = share_of_study(self._grid, self._reserve - self._left + cost)
                        why = f"to try the values at {_level(dearer[1])}, raise tuning.share to {share}"
                    self._stuck[place] = f"{name}; {why}"
                    continue
                self.at_chance.append(f"{name}; the values were tried at {_level(dearer[1])} instead")
                self.passed += points
                self.cells[place], self.tried[place] = dearer
                self._left -= cost
                moved = True

    def decide(self) -> None:
        """Find the winners, with values beyond the edges where the best lies at one."""
        if not self._complete:
            self._stuck = {}
            return
        of, fields = self._scores.of, self._tuning.fields
        for place in [place for place in self.tried if place not in self._stuck]:
            points, on = self.tried[place], self.cells[place]
            best = best_first(points, of)[0].values
            steps = ((name, step_beyond(name, values, best[name])) for name, values in fields.items())
            beyond = {name: step for name, step in steps if step is not None}
            wide = {**fields, **{name: tuple(sorted((*fields[name], step))) for name, step in beyond.items()}}
            known = [point.values for point in points]
            further = [point for point in self._all_values(on, wide) if point.values not in known]
            # If too little of tuning's share is left, the winner stays at the edge, which is reported.
            if tried_flops(further) > self._left:
                further = []
            self._left -= tried_flops(further)
            self.tried[place] = [*points, *further]
            if all_scored(further, of):
                widened = tuple(beyond) if further else ()
                self.won[place] = find_winner(on.cell, self.tried[place], of, widened=widened)

    def undecided(self, grid: Grid) -> Iterator[str]:
        """Yield sentences on the places where nothing was chosen, with what the tuned grid uses there."""
        beat = [won.cell.level_flops for won in self.won.values() if won and won.cell.level_flops]
        others = f"others beat chance at {format_flops(min(beat))}; " if beat else ""
        for place, reason in self._stuck.items():
            yield f"{reason}; {others}undecided, the grid uses lr_peak {grid.setup(*place).lr_peak:g}"

    def _all_values(self, on: GridCell, fields: Fields) -> list[SweepPoint]:
        """Return each combination of values with its trials, in the fields' order."""
        tried = []
        for combination in product(*fields.values()):
            values = dict(zip(fields, combination, strict=True))
            point = trained_with(self._grid, on, values)
            if isinstance(point, str):
                raise DeclaredKeyError(
                    "tuning.fields", f"tuning {values_words(values)} for {on.cell}: {point}"
                )
            tried.append(point)
        return tried

    def _dearer(self, place: TuningPoint) -> tuple[GridCell, list[SweepPoint]] | None:
        """Return the pair's next dearer cell with the values to try on it; None without one."""
        ladder = self.rungs[place[:2]]
        for dearer in ladder[ladder.index(self.cells[place]) + 1 :]:
            with suppress(DeclaredKeyError):  # such as a batch that is larger than its subset
                return dearer, self._all_values(dearer, self._tuning.fields)
        return None


def _level(points: Sequence[SweepPoint]) -> str:
    """Return the level of a cell in words, or what a trial on it costs if it has none."""
    trial = points[0].trials[0]
    return format_flops(trial.cell.level_flops or trial.train_flops)


def _too_dear(grid: Grid, reserve: int, first: Mapping[TuningPoint, Sequence[SweepPoint]]) -> str:
    trials = [trial for points in first.values() for point in points for trial in point.trials]
    cost = sum(trial.train_flops for trial in trials)
    pairs = plural(len({place[:2] for place in first}), "pair")
    return (
        f"tuning costs {format_flops(cost)} ({plural(len(trials), 'trial')} over {pairs} of architecture and "
        f"strategy), but its share of the study budget is {format_flops(reserve)}: raise tuning.share to "
        f"at least {share_of_study(grid, cost)}, try fewer values, tune fewer pairs (tuning.architectures, "
        "tuning.strategies), or let one architecture decide for its family (tuning.sizes). "
        f"Cost by pair: {cost_by_pair(trials)}"
    )
