"""The quality trade: the best fraction of a pool to keep, over compute and over the size of the pool.

Within one pool a purer subset is a smaller one. Each draw of the study has a best fraction to keep at each
budget. Its logarithm is regressed on the logarithm of the budget (or of the pool). The sign of the slope and
its probability are the answer: filter less, or more, as the budget grows.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices
from analysis.cells.bootstrap import CellDraws, stream
from analysis.cells.intervals import COVERAGE, column_intervals, interval
from analysis.labels import quality_fraction
from budgets.quantity import plural

TradeVerdict = Literal["filter less", "filter more", "undecided"]

_FEWEST = 2
_FLAT = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityTrade:
    """The best fractions along one axis.

    Attributes:
        along: ``budget`` or ``pool`` (pairs before filtering).
        held: Columns that all cells share, with their values.
        best: One row per x: ``x``, ``fraction`` (best kept fraction, as measured), ``low``, ``high``.
        slope: Measured slope of ln fraction over ln x.
        slope_low: Lower end of its interval; NaN without draws of runs.
        slope_high: Upper end of its interval.
        verdict: Advice: filter less or more as x grows, or undecided.
        reason: The verdict in one sentence.
    """

    along: str
    held: Mapping[str, Any]
    best: pd.DataFrame
    slope: float
    slope_low: float
    slope_high: float
    verdict: TradeVerdict
    reason: str


def quality_trades(draws: CellDraws) -> tuple[QualityTrade, ...]:
    """Return every slice with the same two qualities at two budgets, or of two pools."""
    fraction = np.array([quality_fraction(str(name)) for name in draws.cells["quality"]])
    # Named subsets and mixtures are not fractions of a pool.
    draws, fraction = draws.take(np.flatnonzero(fraction <= 1)), fraction[fraction <= 1]
    # Subsets of one pool have the same size / fraction up to rounding, so pools are told apart by 2^0.1.
    pool = draws.column("subset_size") / fraction
    named = draws.cells.assign(pool=np.round(np.log2(pool), 1), fraction=fraction, pairs=pool)
    here = replace(draws, cells=named)
    found = []
    for along, other in (("budget", "pool"), ("pool", "budget")):
        held = ["regime", "architecture", "strategy", other]
        for key, positions in here.groups(held):
            trade = _trade(here.take(positions), along, dict(zip(held, key, strict=True)))
            found += [] if trade is None else [trade]
    return tuple(found)


def _trade(draws: CellDraws, along: str, held: Mapping[str, Any]) -> QualityTrade | None:
    error, fraction = draws.with_measured(), draws.column("fraction")
    pairs = draws.column("pairs")
    points, compared = _comparable([(key[0], places) for key, places in draws.groups([along])], fraction)
    if len(points) < _FEWEST:
        return None
    x, best = [], []
    for value, inside in points:
        places = inside[np.isin(fraction[inside], compared)]
        x.append(float(str(value)) if along == "budget" else float(pairs[places].mean()))
        best.append(fraction[places[error[:, places].argmin(axis=1)]])
    chosen, log_x = np.stack(best, axis=1), np.log(x)
    centred = log_x - log_x.mean()
    slopes = np.log(chosen) @ centred / (centred @ centred)
    low = high = float("nan")
    lows = highs = np.full(len(x), np.nan)
    if draws.source == "runs":
        # The true best fraction lies anywhere between those tried.
        between = _between(np.log(chosen[1:]), np.log(compared))
        low, high = interval(between @ centred / (centred @ centred))
        lows, highs = column_intervals(chosen[1:])
    frame = pd.DataFrame({"x": x, "fraction": chosen[0], "low": lows, "high": highs})
    verdict, reason = _judge(slopes[1:], draws.source == "runs", len(x))
    return QualityTrade(
        along=along, held=held, best=frame, slope=float(slopes[0]), slope_low=low, slope_high=high,
        verdict=verdict, reason=reason,
    )  # fmt: skip


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
    counts = Counter(pair for each in tried for pair in combinations(sorted(each), 2))
    if not counts:
        return [], []
    kept = set(counts.most_common(1)[0][0])
    shared = [place for place, each in enumerate(tried) if kept <= each]
    return [points[place] for place in shared], sorted(set.intersection(*(tried[each] for each in shared)))


def _judge(slopes: Floats, measured: bool, points: int) -> tuple[TradeVerdict, str]:  # noqa: FBT001 (private)
    if not measured:
        return "undecided", "the noise between seeds was not measured"
    rising, falling = float((slopes > _FLAT).mean()), float((slopes < -_FLAT).mean())
    if max(rising, falling) < COVERAGE:
        return "undecided", f"the best fraction rises in {rising:.0%} of the draws and falls in {falling:.0%}"
    verdict: TradeVerdict = "filter less" if rising > falling else "filter more"
    return verdict, f"in {max(rising, falling):.0%} of the draws, over {plural(points, 'point')}"
