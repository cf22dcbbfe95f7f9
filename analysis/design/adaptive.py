"""The next trials of an adaptive study, chosen from the results so far.

``decide`` is a pure function: the same results, running trials and free slots give the same decision.
It draws the true errors of all cells (``belief``), answers the questions and values further runs
(``questions``):

1. First each curve is run once at its two smallest points and once more at the smallest, which shows its
   shape and the noise between seeds. Where trunks are evaluated, a trunk goes to all points but the last, so
   that a late steep fall is seen, and is cooled down at the smallest, which shows what a cooldown gains.
2. Then the options are one further run of a cell, or all that are left of it; where trunks are evaluated, to
   lengthen or begin a trunk, or to cool one down. Each is valued by the drop in
   the probability of naming a wrong best, over all open questions, plus the share of the forecast's
   variance that it removes. The options with the highest gain per FLOP fill the free slots, one curve after
   the other.
3. A question is answered if its leader is clear, or if the leader is within the indifference of the best with
   probability ``confidence`` and the next one lies closer than that. The design stops when every question is
   answered, when no option is worth its cost, or when the budget has no room for one that is.

``rehearse`` estimates the cost of a study by rehearsing the design on made-up results. Curves of a grid
resemble each other, as those of real studies do: a rehearsal draws a start, a floor, a slope and a shift, and
each curve deviates from them, by about as much as those of the embedded study do. From its smallest compute
x₁ on, a curve is

    E + (S − E)·((x/x₁ + h)/(1 + h))^−α

Runs have noise that differs from curve to curve, and half of its variance is shared by the levels of a trunk.
States of trunks have a higher error, which a cooldown takes away.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices, Mask
from analysis.belief.cell_draws import stream
from analysis.belief.family import Family, families
from analysis.belief.verdict import shares
from analysis.cells.table import Trials, budgets, curve_numbers, of_trunks, tidy
from analysis.design.prices import Prices, trunks_of
from analysis.design.questions import Answer, Ask, Goal, answers_of, best_gains, forecast_gains, settle
from analysis.error_unit import PERCENT, ErrorUnit
from budgets.quantity import format_flops, plural

WORTH = 0.25
"""Least worth of an option: its gain per FLOP times the FLOPs of the whole grid."""
DRAWS = 1000
_NO_ROOM = "the budget has no room for a trial that is worth its cost"
FIRST_ROUND = "first runs of each curve, for its shape and the noise between seeds"

_FIRST = ((0, 0), (0, 1), (1, 0))  # place among a curve's points, place among that cell's seeds
_DRAWS = 250
_DECISIONS = 24
_SHARED = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """A trial to run next and its cost to the study.

    The gain is that expected of the option it belongs to; NaN in the first round.
    """

    trial: str
    cost_flops: float
    gain: float
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The next trials, best first, and the answers so far.

    There are no answers while trials of the first round are chosen. ``stop`` is the reason why no trial
    follows; empty while there are picks or running trials to wait for.
    """

    picks: tuple[Pick, ...]
    answers: tuple[Answer, ...]
    stop: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Option:
    """Rows of the grid to run together, started in their order.

    Attributes:
        rows: The rows.
        cost: Their FLOPs.
        gain: Their expected gain; NaN in the first round.
        curve: Key of the curve that they belong to; no curve is served twice before the others.
        what: The configuration and level that would be run, in words.
    """

    rows: Indices
    cost: float
    gain: float
    curve: object
    what: str

    @property
    def reason(self) -> str:
        """The choice in one sentence."""
        if np.isnan(self.gain):
            return self.what
        runs, cost = plural(len(self.rows), "run"), format_flops(self.cost, digits=3)
        return f"{self.what}: {runs} would lower the doubt by {PERCENT.gap(self.gain)} for {cost}"


def decide(  # noqa: PLR0913 (what is known, what may be run, and at what price)
    trials: Trials,
    grid: pd.DataFrame,
    *,
    ask: Ask,
    running: Collection[str] = (),
    ended: Collection[str] = (),
    slots: int = 1,
    room_flops: float | None = None,
    draws: int = DRAWS,
) -> Decision:
    """Return the next trials of a study, from its results so far and a grid with the columns of a plan.

    Trials that run or wait to run are ``running``; trials without a result that are not run again, failed or
    diverged, are ``ended``. At most ``slots`` trials are chosen, besides the shorter trials of their trunks
    that they need, and at most ``room_flops`` are spent.
    """
    known = grid["trial"].isin(set(trials.every["trial"])).to_numpy(bool)
    waiting = grid["trial"].isin(set(running)).to_numpy(bool)
    taken = known | waiting | grid["trial"].isin(set(ended)).to_numpy(bool)
    prices = Prices.of(grid)
    now = prices.now(taken)
    parts = [_Part.of(family, grid) for family in families(trials, grid, draws=draws).values()]
    rows = [row for part in parts for row in _first_round(part, known | waiting, taken)]
    first = [
        _Option(rows=np.array([row]), cost=now[row], gain=np.nan, curve=row, what=FIRST_ROUND)
        for row in sorted(rows, key=lambda row: (now[row], row))
    ]
    if picks := _pick(first, grid, prices, taken, slots, room_flops):
        return _decision(picks, (), waiting, _NO_ROOM)
    if not (known | waiting).any():
        return _decision((), (), waiting, _NO_ROOM)
    # Trials of the first round without room do not keep the others from answering what they can.
    # Named after the state, so that a driver that died and came back decides the same.
    generator = stream(f"design/{int(known.sum())}/{int(waiting.sum())}")
    answers: list[Answer] = []
    options: list[_Option] = []
    for part in parts:
        of_part, goals = answers_of(part.family, ask, ErrorUnit.of(trials.metric))
        answers += of_part
        # After the answers, which rest on results alone; before the options, else several slots would be
        # filled with runs that tell the same.
        runs = _expect(part, goals, waiting, generator)
        options += _options(part, runs, taken, goals, now, ask)
    if all(answer.settled for answer in answers):
        return _decision((), answers, waiting, "every question is answered")
    rate = np.array([option.gain / max(option.cost, 1.0) for option in options])
    order = np.argsort(-rate, kind="stable")
    worthy = [options[place] for place in order if rate[place] * prices.paid.sum() >= WORTH]
    picks = _pick(worthy, grid, prices, taken, slots, room_flops)
    return _decision(picks, answers, waiting, _NO_ROOM if worthy else "no further trial is worth its cost")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """A family, and the rows of the grid that belong to it with the curve and point of each."""

    family: Family
    rows: Indices
    curve: Indices
    point: Indices

    @property
    def kinds(self) -> tuple[str, str]:
        """What leads to a point, a cell's or a trunk's, in words."""
        return (", cooled at" if self.family.states else " at", ", its trunk to")

    @classmethod
    def of(cls, family: Family, grid: pd.DataFrame) -> "_Part":
        rows = np.flatnonzero((grid["regime"] == family.regime).to_numpy(bool))
        places = np.array([family.place_of[trial] for trial in grid["trial"].iloc[rows]], dtype=np.intp)
        return cls(family=family, rows=rows, curve=places[:, 0], point=places[:, 1])


def _first_round(part: _Part, present: Mask, taken: Mask) -> list[int]:
    """Return the rows of the first round that are neither run nor waiting."""
    rows = []
    begun = present[part.rows]
    cells, states = part.family.x.shape[1], part.family.states
    # `present` trials have a result or will have one; `taken` ones are those and the failed ones. A failed
    # seed is replaced by the next free one of its cell.
    for curve, points in enumerate(part.family.points):
        of_curve = part.curve == curve
        trunks = [(cells + place, 0) for place in range(max(2, points - 1))]
        for place, seed in [*trunks, (cells, 1), (0, 0)] if states else _FIRST:
            if place % cells >= points or (curve, place % cells) in part.family.lost:
                continue
            cell = of_curve & (part.point == place)
            free = part.rows[cell & ~taken[part.rows]]
            missing = seed + 1 - int((cell & begun).sum())
            rows += free[max(0, seed - int((cell & begun).sum())) : seed + 1][: max(0, missing)].tolist()
    return list(dict.fromkeys(rows))


def _expect(part: _Part, goals: list[Goal], waiting: Mask, generator: np.random.Generator) -> Floats:
    """Narrow the draws as the results of the running trials will; return the runs with theirs counted."""
    belief, runs = part.family.belief, part.family.measured.runs
    for row in np.flatnonzero(waiting[part.rows]):
        curve, point = int(part.curve[row]), int(part.point[row])
        if (curve, point) in part.family.lost:
            continue
        before = belief.draws[:, curve].copy()
        settle(belief.draws, curve, point, float(belief.noise[curve, point]), generator)
        for goal in goals:  # at a compute between cells the draws move as at the nearest cell
            near = int(goal.place[curve]) % part.family.x.shape[1]
            goal.errors[:, curve] += belief.draws[:, curve, near] - before[:, near]
        runs[curve, point] += 1
    return runs


def _options(  # noqa: PLR0913, PLR0917 (a family, what is known of it, what is asked, and prices)
    part: _Part, runs: Floats, taken: Mask, goals: list[Goal], cost: Floats, ask: Ask
) -> list[_Option]:
    """Return the options of a family: one further run of each point, and all that are left of it."""
    family, cells = part.family, part.family.x.shape[1]
    # Free rows, sorted by cell and then by cost: a cell's further run is its cheapest free row.
    cell = zip(part.curve.tolist(), (part.point % cells).tolist(), strict=True)
    lost = np.array([place in family.lost for place in cell])
    # A cell that lost runs is not ranked, whatever others say.
    free = np.flatnonzero(~taken[part.rows] & ~lost)
    key = part.curve[free] * 2 * cells + part.point[free]
    cheapest = np.lexsort((free, cost[part.rows[free]], key))
    free, key = free[cheapest], key[cheapest]
    if not len(free):
        return []
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    rows, at = [], []
    for begin, end in zip(starts, [*starts[1:], len(key)], strict=True):
        for count in {1, end - begin}:
            rows.append(part.rows[free[begin : begin + count]])
            at.append(free[begin])
    curve, point = part.curve[at], part.point[at]
    draws = family.belief.draws
    # The mean of n runs has 1/n of the variance of one.
    variance = family.belief.noise[curve, point] / np.array([len(some) for some in rows])
    gains = np.zeros(len(rows))
    for goal in goals:
        if np.isnan(goal.indifference):
            gains += forecast_gains(goal.errors.min(axis=1), draws, variance, curve, point)
            continue
        gains += best_gains(goal.errors, draws, variance, curve, point, indifference=goal.indifference)
        # A leader is named only once it has a run at the level of the question, or a state that counts.
        leader = int(shares(goal.errors).argmax())
        named = goal.place[leader] + cells * np.arange(1 + family.learned)
        if goal.place[leader] >= 0 and not runs[leader, named].any():
            confirms = (curve == leader) & np.isin(point, named)
            gains[confirms] = np.maximum(gains[confirms], 1 - ask.confidence)
    return [
        _Option(
            rows=some, cost=float(cost[some].sum()), gain=gain, curve=(family.regime, int(number)),
            what=f"{family.names[number]}{part.kinds[place // cells]} "
            f"{format_flops(family.x[number, place % cells], digits=3)}",
        )
        for some, gain, number, place in zip(rows, gains.tolist(), curve, point, strict=True)
    ]  # fmt: skip


def _pick(  # noqa: PLR0913, PLR0917 (options by rank, and what limits them)
    options: Sequence[_Option], grid: pd.DataFrame, prices: Prices, taken: Mask, slots: int,
    room_flops: float | None,
) -> list[Pick]:  # fmt: skip
    """Return trials of the options, one of each curve first, until the slots or the room are full."""
    names = grid["trial"].to_numpy(str)
    picks: list[Pick] = []
    chosen = taken.copy()
    room = np.inf if room_flops is None else room_flops
    # Rounds over the options by rank: in each round every curve gets at most one trial. Options that could
    # not be served in a round, or have rows left, enter the next one.
    left = options
    while left and slots > 0:
        served: set[object] = set()
        again = []
        for option in left:
            if slots <= 0:
                break
            if option.curve in served:
                again.append(option)
                continue
            row = next((int(index) for index in option.rows if not chosen[index]), None)
            if row is None:
                continue
            needed = prices.brought(row, chosen)
            cost = float(prices.paid[needed].sum())
            if cost > room:
                continue
            chosen[needed] = True
            room -= cost
            slots -= 1
            served.add(option.curve)
            again.append(option)
            picks += [
                Pick(
                    trial=str(names[index]), cost_flops=float(prices.paid[index]), gain=option.gain,
                    reason=option.reason,
                ) for index in needed
            ]  # fmt: skip
        left = again
    return picks


def _decision(picks: Sequence[Pick], answers: Sequence[Answer], waiting: Mask, why: str) -> Decision:
    """Return a decision, which stops if no trial was picked and none is waited for."""
    return Decision(picks=tuple(picks), answers=tuple(answers), stop="" if picks or waiting.any() else why)


def rehearse(
    grid: pd.DataFrame, *, metric: str, ask: Ask, repeats: int, room_flops: float | None = None
) -> Floats:
    """Return the FLOPs that a design spent in each of some rehearsals, with the room of `decide`."""
    return np.array(
        [_spent(_made_up(grid, metric, number), metric, ask, room_flops) for number in range(repeats)]
    )


def _spent(results: pd.DataFrame, metric: str, ask: Ask, room_flops: float | None) -> float:
    slots = max(2, len(results) // _DECISIONS)
    seen = np.zeros(len(results), dtype=bool)
    spent = 0.0
    while True:
        decision = decide(
            tidy(results[seen], metric=metric), results, ask=ask, slots=slots if seen.any() else len(results),
            room_flops=None if room_flops is None else room_flops - spent, draws=_DRAWS,
        )  # fmt: skip
        if not decision.picks:
            return spent
        seen |= results["trial"].isin({pick.trial for pick in decision.picks}).to_numpy(bool)
        spent += sum(pick.cost_flops for pick in decision.picks)


def _made_up(grid: pd.DataFrame, metric: str, number: int) -> pd.DataFrame:
    """Return the results of all trials of a grid."""
    generator = stream("rehearsal", number)
    x = grid["train_flops"].to_numpy(np.float64)
    curve = curve_numbers(grid.assign(budget=budgets(grid)))
    first = pd.Series(x).groupby(curve).transform("min").to_numpy(np.float64)

    def alike(low: float, high: float, spread: float) -> Floats:
        """Return a value for each curve: around one between bounds that all share."""
        drawn = generator.uniform(low, high) + spread * generator.standard_normal(int(curve.max()) + 1)
        return drawn[curve]

    start, floor = alike(0.7, 0.95, 0.03), alike(0.15, 0.45, 0.04)
    slope, shift = np.exp(alike(np.log(0.35), np.log(0.8), 0.12)), np.exp(alike(-2.0, 1.5, 0.25))
    noise = np.exp(alike(np.log(0.004), np.log(0.012), 0.3))
    error = floor + (start - floor) * ((x / first + shift) / (1 + shift)) ** -slope
    trunk = trunks_of(grid)
    common = generator.standard_normal(int(trunk.max()) + 1)[trunk]
    alone = generator.standard_normal(len(grid))
    error += np.where(of_trunks(grid), generator.uniform(0.02, 0.08), 0.0)
    error = np.clip(error + noise * (np.sqrt(_SHARED) * common + np.sqrt(1 - _SHARED) * alone), 0.001, 0.999)
    return grid.assign(**{metric: 1 - error}, status="finished", reason="", train_loss=error)
