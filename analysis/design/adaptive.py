"""The next trials of an adaptive study, chosen from the results so far.

``decide`` is a pure function: the same results, running trials, free slots and seed give the same decision.
It draws the true errors of all cells (``belief``), answers what is asked, and values further runs
(``gains``):

1. First each curve is run once at its two smallest points and once more at the smallest, which shows its
   shape and the noise between seeds.
2. Then the options are one further run of a cell, or all that are left of it. Each is valued by the drop in
   the probability of naming a wrong best, over all open questions, plus the share of the forecast's
   variance that it removes. The options with the highest gain per FLOP fill the free slots, one curve after
   the other.
3. A question is answered if its leader is clear, or if the leader is within the indifference of the best with
   probability ``confidence`` and the next one lies closer than that. The design stops when every question is
   answered, when no option is worth its cost, or when the budget has no room for one that is.

A configuration is dropped where it is within the indifference of the best in fewer than ``HOPELESS`` of the
draws. These hold every law that its runs leave plausible, also the one that falls fastest. Nothing is
dropped for good: each decision draws anew.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.answers.frontier import CLEAR
from analysis.cells.bootstrap import stream
from analysis.cells.intervals import interval
from analysis.cells.table import Trials
from analysis.design.belief import Belief, believe
from analysis.design.gains import best_gains, forecast_gains, right, settle
from analysis.design.layout import Layout, layouts
from analysis.design.prices import Prices
from analysis.labels import percent, plural
from budgets.quantity import format_flops

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]

WORTH = 0.25
"""Least gain of a run: the drop in probability (or in the share of variance) if the whole grid were spent at
its rate."""
HOPELESS = 0.005
DRAWS = 1000
FIRST_ROUND = "first runs of each curve, for its shape and the noise between seeds"

_FIRST = ((0, 0), (0, 1), (1, 0))  # place among a curve's points, place among that cell's seeds


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """The questions of an adaptive study.

    Attributes:
        best: Computes at which the best is asked for; every level of the grid if empty; None if it is not
            asked.
        indifference: Difference in error that counts as a tie.
        forecast: Compute at which the error of the best is to be forecast; None without a forecast.
        width: Half of the 90 % interval that the forecast may have.
        confidence: Probability at which a question counts as answered.
    """

    best: Sequence[float] | None = ()
    indifference: float = 0.01
    forecast: float | None = None
    width: float = 0.02
    confidence: float = CLEAR


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer to one question so far.

    Attributes:
        regime: Regime of the compared configurations.
        flops: Compute that is asked about.
        leader: Configuration that is most probably the best.
        probability: Probability that it is the best.
        right: Probability that no other is lower by more than the indifference.
        error: Median of its true error.
        low: Lower end of its 90 % interval.
        high: Upper end of its 90 % interval.
        verdict: ``clear`` or ``tie``, as in ``analysis.answers.frontier``.
        tied: Configurations that are best with a probability of ``CLEAR`` together, the leader first.
        chances: Probability of each of these that it is the best.
        dropped: Configurations that can't reach the best any more.
        settled: Whether the question is answered.
        kind: ``best`` or ``forecast``.
    """

    regime: str
    flops: float
    leader: str
    probability: float
    right: float
    error: float
    low: float
    high: float
    verdict: Literal["clear", "tie"]
    tied: tuple[str, ...]
    chances: tuple[float, ...]
    dropped: tuple[str, ...]
    settled: bool
    kind: Literal["best", "forecast"] = "best"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """A trial to run next.

    Attributes:
        trial: Its id.
        cost_flops: Its cost to the study.
        gain: Expected gain of the option that it belongs to; NaN in the first round.
        reason: The choice in one sentence.
    """

    trial: str
    cost_flops: float
    gain: float
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The next trials and the answers so far.

    Attributes:
        picks: Trials to start, best first.
        answers: One for each question; none during the first round.
        stop: The reason why no trial follows; empty while there are picks or running trials to wait for.
    """

    picks: tuple[Pick, ...]
    answers: tuple[Answer, ...]
    stop: str


@dataclass(kw_only=True, slots=True)
class _Options:
    """Options of all families: rows of the grid to run together, the first of which is started first."""

    rows: list[Indices] = field(default_factory=list)
    gain: list[float] = field(default_factory=list)
    curve: list[tuple[str, int]] = field(default_factory=list)
    what: list[str] = field(default_factory=list)


def decide(  # noqa: PLR0913 (what is known, what may be run, and at what price)
    trials: Trials,
    grid: pd.DataFrame,
    *,
    ask: Ask,
    running: Collection[str] = (),
    ended: Collection[str] = (),
    slots: int = 1,
    room_flops: float | None = None,
    worth: float = WORTH,
    draws: int = DRAWS,
    seed: int = 0,
) -> Decision:
    """Return the next trials of a study.

    Args:
        trials: Results so far, from ``tidy``.
        grid: All trials that may be run, with the columns of a plan.
        ask: What is asked.
        running: Trials that run or wait to run.
        ended: Trials without a result that are not to be run again: failed or diverged.
        slots: Number of trials to choose at most; shorter trials of their trunks that they need come along.
        room_flops: FLOPs that may still be spent; None without a limit.
        worth: Least gain of a run, see ``WORTH``.
        draws: Number of draws of the true errors.
        seed: Seed of the draws.
    """
    known = grid["trial"].isin(set(trials.frame["trial"])).to_numpy(bool)
    waiting = grid["trial"].isin(set(running)).to_numpy(bool)
    taken = known | waiting | grid["trial"].isin(set(ended)).to_numpy(bool)
    prices = Prices.of(grid)
    now = prices.now(taken)
    families = list(layouts(grid, best=ask.best, forecast=ask.forecast))
    first = [row for layout in families for row in _first_round(layout, known | waiting, taken)]
    if first:
        first.sort(key=lambda row: (now[row], row))
        picks = _pick([np.array([row]) for row in first], [float("nan")] * len(first), first,
                      [FIRST_ROUND] * len(first), grid, prices, taken, slots, room_flops)  # fmt: skip
        return Decision(picks=tuple(picks), answers=(), stop=_stop(picks, waiting, "budget"))
    generator = stream(f"design/{int(known.sum())}/{int(waiting.sum())}", seed)
    answers: list[Answer] = []
    options = _Options()
    for layout in families:
        measured = layout.measured(trials, grid)
        belief = believe(measured, draws=draws, generator=generator, far=ask.forecast is not None)
        found, goals = _answers(layout, belief, measured.runs, ask)
        answers += found
        _expect(layout, belief, measured.runs, waiting, generator)
        _add_options(options, layout, belief, measured.runs, taken, goals, now, ask)
    if all(answer.settled for answer in answers):
        return Decision(picks=(), answers=tuple(answers), stop=_stop([], waiting, "answered"))
    costs = np.array([now[rows].sum() for rows in options.rows])
    gains = np.array(options.gain)
    rate = gains / np.maximum(costs, 1.0)
    order = [place for place in np.argsort(-rate, kind="stable") if rate[place] * prices.paid.sum() >= worth]
    said = [
        f"{options.what[place]}: {plural(len(options.rows[place]), 'run')} would lower the doubt by "
        f"{percent(gains[place])} points for {format_flops(costs[place], digits=3)}"
        for place in order
    ]
    picks = _pick(
        [options.rows[place] for place in order], [options.gain[place] for place in order],
        [options.curve[place] for place in order], said, grid, prices, taken, slots, room_flops,
    )  # fmt: skip
    why = "worth" if not order else "budget"
    return Decision(picks=tuple(picks), answers=tuple(answers), stop=_stop(picks, waiting, why))


def _first_round(layout: Layout, present: Mask, taken: Mask) -> list[int]:
    """Return the rows of the first round that are neither run nor waiting."""
    found = []
    here = present[layout.rows]
    for curve in range(len(layout.names)):
        of_curve = layout.curve == curve
        points = np.unique(layout.point[of_curve])
        for place, seed in _FIRST:
            if place >= len(points):
                continue
            cell = of_curve & (layout.point == points[place])
            free = layout.rows[cell & ~taken[layout.rows]]
            missing = seed + 1 - int((cell & here).sum())
            found += free[max(0, seed - int((cell & here).sum())) : seed + 1][: max(0, missing)].tolist()
    return list(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Goal:
    """A question that is open: the point at which each curve is read. A forecast has no indifference: NaN."""

    columns: Indices
    indifference: float


def _answers(layout: Layout, belief: Belief, runs: Floats, ask: Ask) -> tuple[list[Answer], list[_Goal]]:
    """Return the answers, and the questions that are open."""
    answers, goals = [], []
    asked = [
        (flops, columns, False) for flops, columns in zip(layout.asked, layout.columns, strict=True)
        if (columns >= 0).any()  # else the regime has no cell there
    ]  # fmt: skip
    if ask.forecast is not None and (layout.target >= 0).any():
        asked.append((ask.forecast, layout.target, True))
    for flops, columns, forecast in asked:
        values = layout.values(belief.draws, columns)
        best, within = right(values, ask.indifference)
        order = np.argsort(-best, kind="stable")
        leader = int(order[0])
        tied = order[: int(np.searchsorted(np.cumsum(best[order]), CLEAR)) + 1]
        seen = bool(runs[leader, columns[leader]])
        gap = np.delete(values, leader, axis=1).min(axis=1, initial=np.inf) - values[:, leader]
        near = float(np.median(gap)) <= ask.indifference
        clear = bool(best[leader] >= ask.confidence and (seen or forecast))
        told = values.min(axis=1) if forecast else values[:, leader]
        low, high = interval(told)
        settled = clear or bool(near and within[leader] >= ask.confidence and seen)
        if forecast:
            settled = (high - low) / 2 <= ask.width
        answers.append(Answer(
            regime=layout.regime, flops=flops, leader=layout.names[leader], probability=float(best[leader]),
            right=float(within[leader]), error=float(np.median(told)), low=low, high=high,
            verdict="clear" if clear else "tie", tied=tuple(layout.names[each] for each in tied),
            chances=tuple(best[tied].tolist()),
            dropped=tuple(
                name for name, share in zip(layout.names, within, strict=True) if share < HOPELESS
            ),
            settled=settled, kind="forecast" if forecast else "best",
        ))  # fmt: skip
        if not settled:
            indifference = np.nan if forecast else ask.indifference if near else 0.0
            goals.append(_Goal(columns=columns, indifference=indifference))
    return answers, goals


def _expect(
    layout: Layout, belief: Belief, runs: Floats, waiting: Mask, generator: np.random.Generator
) -> None:
    """Narrow the draws by what the running trials will tell, and count their runs."""
    for row in np.flatnonzero(waiting[layout.rows]):
        curve, point = int(layout.curve[row]), int(layout.point[row])
        settle(belief.draws, curve, point, float(belief.noise[curve, point]), generator)
        runs[curve, point] += 1


def _add_options(  # noqa: PLR0913, PLR0917 (a family, what is known of it, what is asked, and prices)
    options: _Options,
    layout: Layout,
    belief: Belief,
    runs: Floats,
    taken: Mask,
    goals: list[_Goal],
    cost: Floats,
    ask: Ask,
) -> None:
    """Value one further run of each cell, and all that are left of it."""
    free = np.flatnonzero(~taken[layout.rows])
    key = layout.curve[free] * layout.x.shape[1] + layout.point[free]
    cheapest = np.lexsort((free, cost[layout.rows[free]], key))
    free, key = free[cheapest], key[cheapest]
    if not len(free):
        return
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    rows, at = [], []
    for begin, end in zip(starts, [*starts[1:], len(key)], strict=True):
        for count in {1, end - begin}:
            rows.append(layout.rows[free[begin : begin + count]])
            at.append(free[begin])
    if not rows:
        return
    curve, point = layout.curve[at], layout.point[at]
    variance = belief.noise[curve, point] / np.array([len(each) for each in rows])
    gains = np.zeros(len(rows))
    for goal in goals:
        values = layout.values(belief.draws, goal.columns)  # as the running trials will have narrowed them
        if np.isnan(goal.indifference):
            gains += forecast_gains(values.min(axis=1), belief.draws, variance, curve, point)
            continue
        gains += best_gains(values, belief.draws, variance, curve, point, indifference=goal.indifference)
        # A leader is not named before it was run at the level that is asked for.
        leader = int(right(values, goal.indifference)[0].argmax())
        asked = (curve == leader) & (point == goal.columns[leader]) & (runs[curve, point] == 0)
        gains[asked] = np.maximum(gains[asked], 1 - ask.confidence)
    options.rows += rows
    options.gain += gains.tolist()
    options.curve += [(layout.regime, int(each)) for each in curve]
    options.what += [
        f"{layout.names[each]} at {format_flops(layout.x[each, place], digits=3)}"
        for each, place in zip(curve, point, strict=True)
    ]


def _pick(  # noqa: PLR0913, PLR0917 (options by rank, and what limits them)
    rows: Sequence[Indices], gains: Sequence[float], curves: Sequence[object], said: Sequence[str],
    grid: pd.DataFrame, prices: Prices, taken: Mask, slots: int, room_flops: float | None,
) -> list[Pick]:  # fmt: skip
    """Return trials of the options, one of each curve first, until the slots or the room are full."""
    names = grid["trial"].to_numpy(str)
    picks: list[Pick] = []
    chosen = taken.copy()
    room = np.inf if room_flops is None else room_flops
    left = list(range(len(rows)))
    while left and slots > 0:
        served: set[object] = set()
        again = []
        for place in left:
            if slots <= 0:
                break
            if curves[place] in served:
                again.append(place)
                continue
            row = next((int(each) for each in rows[place] if not chosen[each]), None)
            if row is None:
                continue
            needed = prices.brought(row, chosen)
            cost = float(prices.paid[needed].sum())
            if cost > room:
                continue
            chosen[needed] = True
            room -= cost
            slots -= 1
            served.add(curves[place])
            again.append(place)
            picks += [
                Pick(trial=str(names[each]), cost_flops=float(prices.paid[each]), gain=gains[place],
                     reason=said[place])
                for each in needed
            ]  # fmt: skip
        left = again
    return picks


def _stop(picks: Sequence[Pick], waiting: Mask, why: str) -> str:
    if picks or waiting.any():
        return ""
    return {
        "answered": "every question is answered",
        "worth": "no further trial would tell more than it costs",
        "budget": "the budget has no room for a trial that is worth its cost",
    }[why]
