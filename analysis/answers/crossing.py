"""Options over compute or data: how far apart they are, where they cross, what one costs to match another.

Two curves that differ in one part of the configuration are read from the same joint draws. The crossing is
the last change of sign of their difference: an option overtakes another if nearly all draws have such a
change and end with it ahead. A draw without one counts as a crossing before the first or after the last x
that both measured, so that an interval that reaches an end is open there.

The worth of an option is the factor k at which it has at x the error of the other at k·x: k = 2 means that it
needs half of the compute or data. Where the other was not measured so far, k is only bounded.

The quality trade: does the best fraction of a pool to keep move with the budget, or with the pool?
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices
from analysis.belief.cell_draws import CellDraws, stream
from analysis.belief.curves import X_COLUMNS, Curve, curves, read, straight_lines
from analysis.belief.verdict import CLEAR, draws_text
from analysis.cells.intervals import interval
from analysis.cells.pareto import SAME_COST
from analysis.cells.table import CONFIGURATION
from analysis.labels import POOL, axis_text, budget_text, fixed_factors_text, quality_fraction, with_regime
from budgets.quantity import format_share, plural

CrossingVerdict = Literal["overtakes", "is overtaken", "none within the data", "undecided"]

PAIR = ("axis", "along", "held", "option", "other")
"""Columns that name two options."""
BASELINE = "clip"
"""Strategy that the others are compared with."""
_POINTS = 80
_MOST_PAIRS = 2000  # of two options, beyond which they are compared at one x each
_SAME = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """The crossing of two curves, at which an option falls below the other, or rises above it.

    Attributes:
        verdict: ``overtakes``: the option is ahead from there on; ``is overtaken``: the other is;
            ``none within the data``: one is ahead throughout; or ``undecided``.
        reason: The verdict in one sentence, without names.
        crossings: Number of crossings in the middle one of the draws that have any; the last is given.
        x: Median of the crossing; NaN unless there is one.
        x_low: Lower end of its interval, 0 if open; NaN unless there is one.
        x_high: Upper end of its interval, infinite if open.
    """

    verdict: CrossingVerdict
    reason: str
    crossings: int = 0
    x: float = np.nan
    x_low: float = np.nan
    x_high: float = np.nan


def cross(ahead_by: Floats, at: Floats) -> Crossing:
    """Judge where an option overtakes another.

    Args:
        ahead_by: Draws of the other's error minus the option's, shape (draws, points); no draws if no noise
            is known.
        at: Rising x, shape (points,).
    """
    if not len(ahead_by):
        return Crossing(verdict="undecided", reason="no noise was measured")
    ahead = ahead_by > 0
    changes = (ahead[:, 1:] != ahead[:, :-1]).sum(axis=1)
    up, down = (float(((changes > 0) & (ahead[:, -1] == ends)).mean()) for ends in (True, False))
    steady = max(float(side.all(axis=1).mean()) for side in (ahead, ahead_by < 0))
    crossings = int(np.median(changes[changes > 0])) if changes.any() else 0
    share, outcome = max((up, "overtakes"), (down, "is overtaken"))
    verdict: CrossingVerdict = "undecided"
    reason, x, ends = f"it {outcome} {draws_text(share)}", np.nan, (np.nan, np.nan)
    if share >= CLEAR:
        verdict = "overtakes" if up > down else "is overtaken"
        places = _last_change(ahead_by if up > down else -ahead_by, at)
        x, (low, high) = float(np.median(places)), interval(places)
        ends = (0.0 if low <= at[0] else low, np.inf if high >= at[-1] else high)
        if crossings > 1:
            reason += f"; they cross {crossings} times, and this is the last crossing"
    elif steady >= CLEAR:
        verdict = "none within the data"
        reason = f"one is ahead throughout {draws_text(steady)}"
    else:
        reason += f", and in {format_share(steady)} one is ahead throughout"
    return Crossing(verdict=verdict, reason=reason, crossings=crossings, x=x, x_low=ends[0], x_high=ends[1])


def _last_change(gap: Floats, at: Floats) -> Floats:
    """Return the last x at which the gap turns positive: 0 if it always is, infinite if it ends negative."""
    behind = gap <= 0
    # The crossing lies between the last point with a gap that is not positive and the next one, where the gap
    # is zero on the straight line in ln x between the two.
    last = len(at) - 1 - behind[:, ::-1].argmax(axis=1)
    rows, left = np.arange(len(gap)), np.minimum(last, len(at) - 2)
    step, log_x = gap[rows, left] - gap[rows, left + 1], np.log(at)
    share = np.clip(gap[rows, left] / np.where(step == 0, 1.0, step), 0.0, 1.0)
    crossing = np.exp(log_x[left] + share * (log_x[left + 1] - log_x[left]))
    return np.where(behind[:, -1], np.inf, np.where(behind.any(axis=1), crossing, 0.0))


def matching(error: Floats, falling: Floats, at: Floats, *, x: float) -> Floats:
    """Return the x at which the other has an error; 0 below its range and infinite above it.

    Args:
        error: Shape (draws,).
        falling: Curve of the other in each draw, non-increasing, shape (draws, points).
        at: Rising x, shape (points,).
        x: x of the error on its own curve; if the other is flat at that error, the nearest x is returned.
    """
    first = _reached(error, falling, at)
    # The same from the other end: the last x at which the other is still as high.
    last = 1.0 / _reached(-error, -falling[:, ::-1], 1.0 / at[::-1])
    matched = np.clip(x, first, np.maximum(first, last))
    matched[error > falling[:, 0]] = 0.0
    matched[error < falling[:, -1]] = np.inf
    return np.asarray(matched, dtype=np.float64)


def _reached(error: Floats, falling: Floats, at: Floats) -> Floats:
    """Return the first x at which a non-increasing curve is as low as an error, linearly in ln x."""
    rows, log_x = np.arange(len(error)), np.log(at)
    # The curve does not increase, so as many points lie above the error as before the first other one.
    right = np.clip((falling > error[:, None]).sum(axis=1), 0, len(at) - 1)
    left = np.maximum(right - 1, 0)
    high, low = falling[rows, left], falling[rows, right]
    share = np.where(high > low, (high - error) / np.where(high > low, high - low, 1.0), 1.0)
    return np.asarray(np.exp(log_x[left] + np.clip(share, 0.0, 1.0) * (log_x[right] - log_x[left])))


def comparisons(draws: CellDraws) -> pd.DataFrame:
    """Compare every two curves that differ in one part of the configuration, along compute and along data.

    Returns:
        One row per pair and x of the option, of more than ``_MOST_PAIRS`` pairs at its largest x alone:
        ``axis``, ``along``, ``held`` (text), ``option`` and ``other`` (texts; the other is plain CLIP if that
        is one of them, else the one that is behind at the end),
        ``x``; ``gap`` (error of the other minus that of the option at x) with ``gap_low`` and ``gap_high``,
        and ``probability``, the share of the draws in which it is above 0; all NaN where x lies beyond what
        the other measured; ``verdict`` (``ahead``, ``behind`` or ``undecided``); ``factor`` (the worth of the
        option) with ``factor_low`` and ``factor_high``, 0 or infinite if only bounded, and ``lowest`` and
        ``highest``, the factors within the range that the other measured; ``x_from`` and ``x_to``, the range
        of x that both measured; ``crossing`` (verdict of ``Crossing``) and its other fields, with
        ``crossing_x`` for x.
    """
    groups = []
    for along in X_COLUMNS:
        every = curves(draws, along=along)
        for axis in CONFIGURATION:
            groups += [(axis, group) for group in (*_alike(every, axis), *_of_a_pool(every, along, axis))]
    last = sum(len(group) * (len(group) - 1) // 2 for _, group in groups) > _MOST_PAIRS
    rows = []
    for axis, group in groups:
        lines = [_Side.of(draws, curve, axis) for curve in group]
        rows += [row for pair in combinations(lines, 2) for row in _rows(draws, *pair, axis, last=last)]
    return pd.DataFrame(rows)


def _alike(every: Sequence[Curve], axis: str) -> list[list[Curve]]:
    """Group the curves along one x that differ only in one part of the configuration."""
    groups: dict[tuple[tuple[str, Any], ...], list[Curve]] = {}
    for curve in every:
        if axis in curve.identity:
            key = tuple((name, value) for name, value in curve.identity.items() if name != axis)
            groups.setdefault(key, []).append(curve)
    return list(groups.values())


def _of_a_pool(every: Sequence[Curve], along: str, axis: str) -> Iterator[list[Curve]]:
    """Yield the curves along compute of each quality's largest subset, where these differ in size."""
    if axis != "quality" or along != "compute":
        return
    groups: dict[tuple[Any, ...], dict[str, Curve]] = {}
    for curve in every:
        held = curve.identity
        if "subset_size" in held:
            by_quality = groups.setdefault((held["regime"], held["architecture"], held["strategy"]), {})
            before = by_quality.get(held["quality"])
            if before is None or held["subset_size"] > before.identity["subset_size"]:
                by_quality[held["quality"]] = curve
    for largest in groups.values():
        if len({curve.identity["subset_size"] for curve in largest.values()}) > 1:
            yield [
                replace(curve, identity={**curve.identity, "subset_size": POOL}) for curve in largest.values()
            ]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Side:
    """A curve read densely over its own range.

    Attributes:
        curve: The curve.
        name: Its value along the axis, in words.
        x: x of its cells.
        at: Rising x that it is read at, which include those of its cells.
        errors: Draws of its true errors, shape (draws, points); as measured if no noise is known.
        falling: The lowest so far: an error that was reached counts as reached with more compute or data.
    """

    curve: Curve
    name: str
    x: Floats
    at: Floats
    errors: Floats
    falling: Floats

    @classmethod
    def of(cls, draws: CellDraws, curve: Curve, axis: str) -> "_Side":
        x = draws.column(X_COLUMNS[curve.along])[curve.positions]
        at = np.unique(np.concatenate([np.geomspace(x[0], x[-1], _POINTS), x]))
        if not draws.known:
            errors = straight_lines(x, draws.column("error")[None, curve.positions], at)
        else:
            errors = read(draws, curve, at)
            # What the cells miss the law by belongs to them; between two cells it changes evenly.
            miss = draws.draws[:, curve.positions] - errors[:, np.searchsorted(at, x)]
            errors += straight_lines(x, miss, at)
        return cls(
            curve=curve, name=axis_text(axis, curve.identity[axis]), x=x, at=at, errors=errors,
            falling=np.minimum.accumulate(errors, axis=1),
        )  # fmt: skip

    def read(self, at: Floats) -> Floats:
        """Return the draws at x within the range, or rounding beyond it, shape (draws, points)."""
        return straight_lines(self.at, self.errors, at)


def _rows(draws: CellDraws, one: _Side, two: _Side, axis: str, *, last: bool) -> Iterator[dict[str, Any]]:
    low, high = max(one.x[0], two.x[0]), min(one.x[-1], two.x[-1])
    option, other = one, two
    if axis == "strategy" and BASELINE in (one.curve.identity[axis], two.curve.identity[axis]):
        if one.curve.identity[axis] == BASELINE:
            option, other = two, one
    elif low < high and np.median(one.read(np.array([high]))) > np.median(two.read(np.array([high]))):
        option, other = two, one
    known = draws.known
    at = np.unique(np.concatenate([np.geomspace(low, high, _POINTS), one.x, two.x])) if low < high else one.x
    at = at[(at >= low) & (at <= high)]
    ahead_by = other.read(at) - option.read(at)
    crossing = asdict(cross(ahead_by if known and low < high else ahead_by[:0], at))
    if low >= high:
        crossing["reason"] = "they were not run over the same range"
    shared = {
        "axis": axis, "along": one.curve.along,
        "held": _held_text(one.curve, axis, named=draws.mixed),
        "option": option.name, "other": other.name, "x_from": float(low), "x_to": float(high),
        "crossing": crossing.pop("verdict"), "crossing_x": crossing.pop("x"),
    }  # fmt: skip
    nodes = np.searchsorted(option.at, option.x)
    gaps = other.read(option.x) - option.errors[:, nodes]
    for place in range(len(option.x) - 1 if last else 0, len(option.x)):
        x = float(option.x[place])
        gap, row = gaps[:, place], dict.fromkeys(("gap", "gap_low", "gap_high", "probability"), np.nan)
        bound = (float(other.x[0] / x), float(other.x[-1] / x))
        ratio = matching(option.falling[:, nodes[place]], other.falling, other.at, x=x) / x
        ends, verdict = (np.nan, np.nan), "undecided"
        within = low / SAME_COST <= x <= high * SAME_COST
        if within:
            row["gap"] = float(np.median(gap))
        if known:
            ends, verdict = interval(ratio), _verdict(*interval(ratio))
            ends = (0.0 if ends[0] <= bound[0] else ends[0], np.inf if ends[1] >= bound[1] else ends[1])
        if known and within:
            row["gap_low"], row["gap_high"] = interval(gap)
            row["probability"] = share = float((gap > 0).mean())
            verdict = "ahead" if share >= CLEAR else "behind" if share <= 1 - CLEAR else "undecided"
        yield shared | {"x": x} | row | {
            "verdict": verdict, "factor": float(np.median(ratio)), "factor_low": ends[0],
            "factor_high": ends[1], "lowest": bound[0], "highest": bound[1],
        } | crossing  # fmt: skip


def _held_text(curve: Curve, axis: str, *, named: bool) -> str:
    """Return the fixed parts of a curve in words: its budget too if that is fixed, its regime if named."""
    regime = str(curve.identity["regime"])
    text = fixed_factors_text({name: value for name, value in curve.identity.items() if name != axis})
    if "budget" in curve.identity:
        text += f" at {budget_text(regime, curve.identity['budget'])}"
    return with_regime(text, regime, named=named)


def _verdict(low: float, high: float) -> str:
    """Return the verdict on an interval of factors, whose ends are 0 or infinite beyond what was measured."""
    if 1 + _SAME < low < np.inf:
        return "ahead"
    return "behind" if 0 < high < 1 - _SAME else "undecided"


def quality_trades(draws: CellDraws) -> pd.DataFrame:
    """Return how the best kept fraction moves with the budget, or with the pool (pairs before filtering).

    Each draw has a best fraction at each budget (or pool), and a slope of its logarithm over that of the
    budget (or pool). The true best fraction lies anywhere between those tried.

    Returns:
        One row per slice with the same two qualities at two budgets, or of two pools: ``along`` (``budget``
        or ``pool``), ``regime``, ``architecture``, ``strategy``, ``budget`` or ``pool`` (its pairs, to 2^0.1)
        if that is fixed, ``x``, ``fractions`` (the most probable best at each x), ``slope`` with ``low`` and
        ``high``, ``verdict`` (``filter less``, ``filter more`` or ``undecided``) and ``reason``.
    """
    fraction = np.array([quality_fraction(str(name)) for name in draws.cells["quality"]])
    # Named subsets and mixtures are not fractions of a pool.
    draws, fraction = draws.take(np.flatnonzero(fraction <= 1)), fraction[fraction <= 1]
    # Subsets of one pool have the same size / fraction up to rounding, so pools are told apart by 2^0.1.
    pairs = draws.column("subset_size") / fraction
    named = draws.cells.assign(pool=2 ** np.round(np.log2(pairs), 1), fraction=fraction, pairs=pairs)
    rows = []
    for along, other in (("budget", "pool"), ("pool", "budget")):
        held = ["regime", "architecture", "strategy", other]
        for key, positions in (pooled := replace(draws, cells=named)).groups(held):
            row = _trade(pooled.take(positions), along)
            rows += [] if row is None else [{"along": along, **dict(zip(held, key, strict=True)), **row}]
    return pd.DataFrame(rows)


def _trade(draws: CellDraws, along: str) -> dict[str, Any] | None:
    fraction, pairs = draws.column("fraction"), draws.column("pairs")
    points, tried = _comparable([(key[0], places) for key, places in draws.groups([along])], fraction)
    if len(points) <= 1:
        return None
    known = draws.known
    error = draws.draws if known else draws.column("error")[None]
    x, best = [], []
    for value, inside in points:
        places = inside[np.isin(fraction[inside], tried)]
        x.append(float(str(value)) if along == "budget" else float(pairs[places].mean()))
        best.append(fraction[places[error[:, places].argmin(axis=1)]])
    chosen, centred = np.log(np.stack(best, axis=1)), np.log(x) - np.log(x).mean()
    weight = centred / (centred @ centred)
    slopes, likely = chosen @ weight, [Counter(one.tolist()).most_common(1)[0][0] for one in best]
    rising, falling = float((slopes > _SAME).mean()), float((slopes < -_SAME).mean())
    verdict = "undecided"
    reason = f"the best fraction rises {draws_text(rising)} and falls in {format_share(falling)}"
    if not known:
        reason = "no noise was measured"
    elif max(rising, falling) >= CLEAR:
        verdict = "filter less" if rising > falling else "filter more"
        reason = f"{draws_text(max(rising, falling))}, over {plural(len(x), 'point')}"
    between = _between(chosen, np.log(tried)) @ weight
    low, high = interval(between) if known else (np.nan, np.nan)
    return {
        "x": tuple(x), "fractions": tuple(likely), "slope": float(np.median(between)), "low": low,
        "high": high, "verdict": verdict, "reason": reason,
    }  # fmt: skip


def _between(chosen: Floats, tried: Floats) -> Floats:
    """Move each drawn best fraction, in logarithms, to anywhere nearer to it than to the others tried.

    The smallest and the largest lie in the middle of such an interval, too.
    """
    middle = (tried[1:] + tried[:-1]) / 2
    edges = np.concatenate([[2 * tried[0] - middle[0]], middle, [2 * tried[-1] - middle[-1]]])
    place = np.searchsorted(middle, chosen)
    share = stream("best fraction").random(chosen.shape)
    return np.asarray(edges[place] + share * (edges[place + 1] - edges[place]), dtype=np.float64)


def _comparable(
    points: Sequence[tuple[Hashable, Indices]], fraction: Floats
) -> tuple[list[tuple[Hashable, Indices]], list[float]]:
    """Return the points that share two fractions, as many as possible, and the fractions that all have.

    Among other fractions the best would differ between the points because the fractions tried do.
    """
    tried = [set(fraction[places].tolist()) for _, places in points]
    counts = Counter(pair for some in tried for pair in combinations(sorted(some), 2))
    if not counts:
        return [], []
    common = set(counts.most_common(1)[0][0])
    shared = [place for place, some in enumerate(tried) if common <= some]
    return [points[place] for place in shared], sorted(set.intersection(*(tried[place] for place in shared)))
