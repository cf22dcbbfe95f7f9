"""The laws of a study's curves: one form per family, with the discrepancy of the laws in every draw.

A law is an approximation: it misses its points by more than their noise. The excess is pooled over a family
as an additive variance, its discrepancy (Kennedy and O'Hagan 2001)

    σ² = max(0, s² − noise²),   s² = Σ r² / (n − k)

over the n cells and k parameters of the family's laws; noise² is the mean variance of the cells' means. Each
draw takes a σ² that n − k degrees of freedom allow, moves each cell by a normal deviate of that variance
before the law is refitted, and places the curve beside its law by another such deviate. Beyond the cells the
variance grows with the square of ln x, at the rate at which the family's form missed held-out levels. In a
study with one seed per cell no noise is subtracted, so σ² includes the noise between seeds.

Curves that differ in strategy alone may miss their laws alike, since a strategy often moves its baseline
along x. The correlation of these misses

    c = Σ r·r' / (σ² Σ (n − k)),   within 0 and 1

over the pairs of such curves at their shared levels r, r' is part of the draws: what misses both sides of a
comparison alike does not widen it. The noise of different curves is independent and needs no correction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.cells.bootstrap import REFITS, CellDraws, cell_draws, stream
from analysis.cells.curves import X_COLUMNS, Curve, alike, bends, by_length, curves, straight_lines
from analysis.cells.intervals import Interval, column_intervals, intervals
from analysis.cells.table import tidy
from analysis.laws.excess_variance import Excess, by_moments
from analysis.laws.form_choice import FormChoice, choose_form
from analysis.laws.forms import Curves, Form
from analysis.laws.law_fit import LawFit, fit_laws, noise_sd
from analysis.laws.least_squares import fit

_POINTS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A curve according to its law, in each row of a stack: as measured, the draws, without each run in turn.

    Attributes:
        law: Laws refitted to each row.
        beside: Distance of the curve from its law in standard deviations of the discrepancy, shape (rows,);
            zero except in the draws.
        sd: Standard deviation of the discrepancy, shape (rows,).
        growth: Growth of its variance per square of ln x beyond the measured x, shape (rows,).
        reach: Smallest and largest measured x.
    """

    law: Curves
    beside: Floats
    sd: Floats
    growth: Floats
    reach: tuple[float, float]

    def __call__(self, at: Floats) -> Floats:
        """Return the curve at x, shape (points,), as errors of shape (rows, points)."""
        # ln x beyond either end of the measured range; zero inside it.
        low, high = np.log(self.reach)
        beyond = np.maximum(0.0, np.maximum(np.log(at) - high, low - np.log(at)))
        sd = np.sqrt(self.sd[:, None] ** 2 + self.growth[:, None] * beyond**2)
        return np.asarray(np.maximum(self.law(at) + self.beside[:, None] * sd, 0.0), dtype=np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Law(Curve):
    """One curve with its law.

    Attributes:
        fit: The fitted law.
        choice: Choice of its form.
        discrepancy: Discrepancy of its family.
        alpha: Intervals of the exponent; NaN when unknown.
        floor: Intervals of the floor; NaN when unknown.
        band: Columns ``x``, ``y``, ``low``, ``high`` within the measured x; empty when the law is not
            supported.
        drawn: The curve in every draw; None when the law is not supported.
        refits: Number of rows of ``drawn`` that are draws.
        informed: True if the draws carry the noise between seeds or the discrepancy; only then are there
            intervals.
    """

    fit: LawFit
    choice: FormChoice
    discrepancy: Excess
    alpha: Interval
    floor: Interval
    band: pd.DataFrame
    drawn: Drawn | None
    refits: int
    informed: bool


def laws(draws: CellDraws, *, along: str) -> list[Law]:
    """Fit every curve of at least two cells, see `curves`, each family in the form that forecasts it best."""
    families: dict[str, list[Curve]] = {}
    for curve in curves(draws, along=along):
        families.setdefault(str(curve.identity["regime"]), []).append(curve)
    return [law for regime, family in families.items() for law in _family(draws, family, f"{along}/{regime}")]


def pair(draws: CellDraws, one: Law, other: Law, at: Floats) -> tuple[Floats, Floats, int, bool]:
    """Evaluate two curves in the same way: both by their laws, or both by lines between their cells.

    Returns:
        Errors of each, shape (rows, points), in matching rows: as measured, the draws, without each run in
        turn; then the number of draws, and whether there are intervals.
    """
    if one.drawn is not None and other.drawn is not None:
        first, second = one.drawn(at), other.drawn(at)
        refits, informed = one.refits, one.informed and other.informed
    else:
        first, second = (_lines(draws, law, at) for law in (one, other))
        refits, informed = draws.refits, draws.source == "runs"
    return *_aligned(first, second, refits), refits, informed


def _aligned(one: Floats, other: Floats, refits: int) -> tuple[Floats, Floats]:
    """Match the rows of two stacks: where a run of one curve is left out, the other is as measured."""
    shared = 1 + refits
    first = [one, np.repeat(one[:1], len(other) - shared, axis=0)]
    second = [other[:shared], np.repeat(other[:1], len(one) - shared, axis=0), other[shared:]]
    return np.concatenate(first), np.concatenate(second)


def _lines(draws: CellDraws, law: Law, at: Floats) -> Floats:
    """Return the best so far along a curve: an error reached with less compute or data stays reached.

    Between cells the curve is unknown: the draws lie below the straight lines by 0 to 2 times the larger of
    the two estimates of ``curves.bends``.
    """
    x = draws.column(X_COLUMNS[law.along])[law.positions]
    best = np.minimum.accumulate(draws.take(law.positions).stacked(), axis=1)
    before, after = np.nan_to_num(bends(x, best[0], at))
    # Of the two estimates the larger in size, NaN counting as zero.
    bend = np.where(np.abs(before) > np.abs(after), before, after)
    lines, shown = straight_lines(x, best, at), slice(1, 1 + draws.refits)
    generator = stream(f"lines/{sorted(law.identity.items(), key=str)}")
    lines[shown] -= generator.uniform(0.0, 2.0, (draws.refits, 1)) * bend
    return np.maximum(lines, 0.0)


def _family(draws: CellDraws, family: Sequence[Curve], name: str) -> list[Law]:
    choice = choose_form(draws, family)
    fits = _fits(draws, family, choice)
    discrepancy = _discrepancy(draws, family, fits)
    rows = draws.refits or (REFITS if discrepancy.freedom else 0)
    sds = discrepancy.drawn(rows, stream(f"discrepancy/{name}"))
    growth = choice.growth(discrepancy.variance + discrepancy.noise, rows, stream(f"growth/{name}"))
    moves = Moves(sds=sds, growth=growth, common=_common(draws, family, fits, discrepancy))
    return [
        _law(draws, curve, found, choice=choice, discrepancy=discrepancy, moves=moves)
        for curve, found in zip(family, fits, strict=True)
    ]


def _fits(draws: CellDraws, family: Sequence[Curve], choice: FormChoice) -> list[LawFit]:
    found: dict[int, LawFit] = {}
    for curves_of_length in by_length(family):
        positions = np.stack([curve.positions for curve in curves_of_length])
        x, y, runs = (draws.column(name)[positions] for name in (X_COLUMNS[family[0].along], "error", "runs"))
        fits = fit_laws(
            choice.form, x, y, runs=runs.astype(np.int64), draws=draws.draws[:, positions],
            source=draws.source, freedom=draws.freedom, chance=draws.chance,
            error_unit=draws.error_unit,
        )  # fmt: skip
        found |= {id(curve): fitted for curve, fitted in zip(curves_of_length, fits, strict=True)}
    return [found[id(curve)] for curve in family]


def _discrepancy(draws: CellDraws, family: Sequence[Curve], fits: Sequence[LawFit]) -> Excess:
    kept = [
        (curve, found) for curve, found in zip(family, fits, strict=True) if found.supported and found.freedom
    ]
    # Σ r² over the cells of all laws that have degrees of freedom left.
    squares = sum(found.miss**2 * len(curve.positions) for curve, found in kept)
    # Without seeds only the counting noise is known, a lower bound that cannot be subtracted as the noise.
    seeds = [noise_sd(draws.draws[:, curve.positions]) for curve, _ in kept if draws.source == "runs"]
    noise = float(np.mean(np.concatenate(seeds) ** 2)) if seeds else 0.0
    # The noise that the levels of a trunk share moves its law as a whole and is not part of the misses.
    noise *= 1.0 - draws.shared
    return by_moments(squares, freedom=sum(found.freedom for _, found in kept), noise=noise)


def _common(draws: CellDraws, family: Sequence[Curve], fits: Sequence[LawFit], discrepancy: Excess) -> float:
    """Return c, the correlation of the misses of curves that differ in strategy alone."""
    if not discrepancy.variance:
        return 0.0
    products, freedom = 0.0, 0
    found = {id(curve): law for curve, law in zip(family, fits, strict=True) if law.supported}
    for group in alike(family, along=family[0].along, axis="strategy"):
        for both in combinations([curve for curve in group if id(curve) in found], 2):
            mine, theirs = (found[id(curve)] for curve in both)
            first, second = (_misses(draws, curve, found[id(curve)]) for curve in both)
            products += sum(first[level] * second[level] for level in first.keys() & second.keys())
            freedom += min(mine.freedom, theirs.freedom)
    return float(np.clip(products / (discrepancy.variance * freedom), 0.0, 1.0)) if freedom else 0.0


def _misses(draws: CellDraws, curve: Curve, law: LawFit) -> dict[str, float]:
    """Return level → how far the cell lies above the curve's law."""
    cells = draws.cells.iloc[curve.positions]
    misses = cells["error"].to_numpy(np.float64) - law(cells[X_COLUMNS[curve.along]].to_numpy(np.float64))
    return dict(zip(_levels(draws, curve), misses.tolist(), strict=True))


def _levels(draws: CellDraws, curve: Curve) -> list[str]:
    """Return the names of a curve's levels, the same for all curves of a study."""
    column = "budget" if curve.along == "compute" else "subset_size"
    return [f"{value:.6g}" for value in draws.column(column)[curve.positions]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Moves:
    """Moves of a family's curves by its discrepancy, in each draw.

    Attributes:
        sds: Standard deviation of each draw.
        growth: Growth of its variance per square of ln x beyond the measured x, of each draw.
        common: c, the correlation of the moves of curves that differ in strategy alone.
    """

    sds: Floats
    growth: Floats
    common: float

    def of(self, draws: CellDraws, curve: Curve) -> Floats:
        """Return standard normal deviates of each level and of the curve as a whole, (draws, levels + 1)."""
        places = [*_levels(draws, curve), "curve"]
        own = stream(f"discrepancy/{sorted(curve.identity.items(), key=str)}")
        moves = own.standard_normal((len(self.sds), len(places)))
        if not self.common:
            return moves
        others = sorted((name, value) for name, value in curve.identity.items() if name != "strategy")
        shared = [
            stream(f"common/{curve.along}/{others}/{place}").standard_normal(len(self.sds))
            for place in places
        ]
        together = np.sqrt(self.common) * np.stack(shared, axis=1) + np.sqrt(1 - self.common) * moves
        return np.asarray(together, dtype=np.float64)


def _law(  # noqa: PLR0913 (a curve, its law, and its family's)
    draws: CellDraws, curve: Curve, found: LawFit, *, choice: FormChoice, discrepancy: Excess, moves: Moves
) -> Law:
    alpha, floor, drawn = Interval(), Interval(), None
    band = pd.DataFrame({"x": [], "y": [], "low": [], "high": []})
    informed = draws.source == "runs" or discrepancy.freedom > 0
    if found.supported:
        drawn = _drawn(draws, curve, found.form, moves)
        at = np.geomspace(*drawn.reach, _POINTS)
        band = pd.DataFrame({"x": at, "y": found(at), "low": np.nan, "high": np.nan})
        # A band of counting noise alone would look like an interval without being one.
        if informed:
            alpha, floor = (
                intervals(values, len(moves.sds)) for values in (drawn.law.alpha, drawn.law.floor)
            )
            band["low"], band["high"] = column_intervals(drawn(at)[1 : 1 + len(moves.sds)])
    return Law(
        along=curve.along, identity=curve.identity, positions=curve.positions, fit=found, choice=choice,
        discrepancy=discrepancy, alpha=alpha, floor=floor, band=band, drawn=drawn,
        refits=len(moves.sds), informed=informed,
    )  # fmt: skip


def _drawn(draws: CellDraws, curve: Curve, form: Form, moves: Moves) -> Drawn:
    """Refit a curve's law to its errors, which the discrepancy moves in the draws."""
    names = (X_COLUMNS[curve.along], "runs")
    x, runs = (draws.column(name)[curve.positions] for name in names)
    rows = draws.take(curve.positions).stacked()
    sds = moves.sds
    if not draws.refits and len(sds):  # no noise was measured, so the draws are of the discrepancy alone
        rows = np.concatenate([rows[:1], np.repeat(rows[:1], len(sds), axis=0), rows[1:]])
    deviates, shown = moves.of(draws, curve), slice(1, 1 + len(sds))
    # The measured row and the rows without a run stay on their laws; only the draws are moved.
    beside, sd, grown = np.zeros((3, len(rows)))
    beside[shown], sd[shown], grown[shown] = deviates[:, -1], sds, moves.growth
    rows[shown] += sds[:, None] * deviates[:, :-1]
    return Drawn(
        law=fit(form, x, rows, weights=runs, chance=draws.chance), beside=beside, sd=sd, growth=grown,
        reach=(float(x.min()), float(x.max())),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """The data of one metric that figures draw; no laws for figures without curves."""

    metric: str
    draws: CellDraws
    laws: Sequence[Law] = ()

    def along(self, along: str) -> list[Law]:
        """Return the laws along ``compute`` or ``data``."""
        return [law for law in self.laws if law.along == along]


def measure(results: pd.DataFrame, metric: str, *, question: str) -> Measure:
    """Read one metric of a results table and fit every law; trials without the metric are excluded."""
    draws = cell_draws(tidy(results, metric=metric), question=question)
    fitted = tuple(law for along in X_COLUMNS for law in laws(draws, along=along))
    return Measure(metric=metric, draws=draws, laws=fitted)
