"""Every curve of a study and its law: one form a family of curves, with what the laws miss in the draws.

A law is not the truth: it misses its points by more than their noise. How much is pooled over a family, as an
additive variance, its discrepancy

    σ² = max(0, s² − noise²),   s² = Σ r² / (n − k)

over the n cells and k parameters of the family's laws, noise² the mean variance of the cells' means (Kennedy
and O'Hagan 2001 call the difference of model and truth so). In each draw σ² is as large as n − k degrees of
freedom allow, each cell is moved by the discrepancy before the law is refitted, and the curve that is read
off lies beside its law by another draw of it; beyond the cells the variance grows as the family's form missed
held-out levels, by as much in each draw as their number allows. Where a study has one seed a cell nothing is
subtracted: σ² holds the noise between seeds as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells.bootstrap import REFITS, CellDraws, stream
from analysis.cells.curves import X_COLUMNS, Curve, by_length, curves
from analysis.cells.interpolation import bends, straight_lines
from analysis.cells.intervals import Interval, column_intervals, intervals
from analysis.laws.excess_variance import Excess, by_moments
from analysis.laws.form_choice import FormChoice, choose_form
from analysis.laws.forms import Curves, Form, fit
from analysis.laws.law_fit import LawFit, fit_laws, noise_sd

Floats = NDArray[np.float64]

_POINTS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A curve by its law, in each row of a stack: as measured, the draws, without each run in turn.

    Attributes:
        law: Refitted to each row.
        beside: By how many standard deviations the curve lies beside its law, shape (rows,): zeros but in the
            draws.
        sd: Standard deviation of the discrepancy in each row.
        growth: Of its variance, by ln of the distance from the measured x, in each row.
        reach: Smallest and largest measured x.
    """

    law: Curves
    beside: Floats
    sd: Floats
    growth: Floats
    reach: tuple[float, float]

    def __call__(self, at: Floats) -> Floats:
        """Return the curve at x, shape (points,), as errors of shape (rows, points)."""
        low, high = np.log(self.reach)
        beyond = np.maximum(0.0, np.maximum(np.log(at) - high, low - np.log(at)))
        sd = np.sqrt(self.sd[:, None] ** 2 + self.growth[:, None] * beyond)
        return np.asarray(np.maximum(self.law(at) + self.beside[:, None] * sd, 0.0), dtype=np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Law:
    """One curve with its law.

    Attributes:
        along: ``compute`` (x is training FLOPs) or ``data`` (x is unique pairs).
        identity: The columns of the cell that the curve holds.
        positions: Its cells among all, by rising x.
        fit: The law.
        choice: Why it has this form.
        discrepancy: Of its family.
        alpha: Intervals of the exponent; NaN where nothing tells them.
        floor: Intervals of the floor; NaN likewise.
        band: Columns ``x``, ``y``, ``low``, ``high`` within the measured x; empty when the law is not
            supported.
        drawn: The curve by its law; None when it is not supported.
        refits: How many of its rows are draws.
        informed: Whether the draws carry noise between seeds or what laws miss: intervals may be given.
    """

    along: str
    identity: Mapping[str, Any]
    positions: NDArray[np.intp]
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
    """Fit every curve of at least two cells, each family in the form that forecasts it best.

    Args:
        draws: The study's cells.
        along: ``compute``: curves of cells that differ in budget alone; ``data``: in subset size alone.
    """
    families: dict[str, list[Curve]] = {}
    for curve in curves(draws, along=along):
        families.setdefault(str(curve.identity["regime"]), []).append(curve)
    return [law for regime, family in families.items() for law in _family(draws, family, f"{along}/{regime}")]


def pair(draws: CellDraws, one: Law, other: Law, at: Floats) -> tuple[Floats, Floats, int, bool]:
    """Read two curves off like with like: both by their laws, or both by straight lines between their cells.

    Returns:
        Errors of each, shape (rows, points), in rows that mean the same for both: as measured, the draws,
        each run left out in turn; how many rows are draws; and whether intervals may be given.
    """
    if one.drawn is not None and other.drawn is not None:
        first, second = one.drawn(at), other.drawn(at)
        refits, informed = one.refits, one.informed and other.informed
    else:
        first, second = (_lines(draws, law, at) for law in (one, other))
        refits, informed = draws.refits, draws.source == "runs"
    return *_aligned(first, second, refits), refits, informed


def _aligned(one: Floats, other: Floats, refits: int) -> tuple[Floats, Floats]:
    """Two stacks of other cells as one: where a run of one is left out, the other is as measured."""
    shared = 1 + refits
    first = [one, np.repeat(one[:1], len(other) - shared, axis=0)]
    second = [other[:shared], np.repeat(other[:1], len(one) - shared, axis=0), other[shared:]]
    return np.concatenate(first), np.concatenate(second)


def _lines(draws: CellDraws, law: Law, at: Floats) -> Floats:
    """The best so far along a curve: what less compute or data reach, more of them reach as well.

    Between its cells it is not known: the draws lie beside the straight lines by 0 to 2 times the larger of
    what the curves through a neighbouring third cell do, see ``interpolation.bends``.
    """
    x = draws.cells[X_COLUMNS[law.along]].to_numpy(np.float64)[law.positions]
    best = np.minimum.accumulate(draws.resampled(law.positions), axis=1)
    before, after = np.nan_to_num(bends(x, best[0], at))
    bend = np.where(np.abs(before) > np.abs(after), before, after)
    lines, shown = straight_lines(x, best, at), slice(1, 1 + draws.refits)
    generator = stream(f"lines/{sorted(law.identity.items(), key=str)}", 0)
    lines[shown] -= generator.uniform(0.0, 2.0, (draws.refits, 1)) * bend
    return np.asarray(np.maximum(lines, 0.0), dtype=np.float64)


def _family(draws: CellDraws, family: Sequence[Curve], name: str) -> list[Law]:
    choice = choose_form(draws, family)
    fits = _fits(draws, family, choice)
    discrepancy = _discrepancy(draws, family, fits)
    rows = draws.refits or (REFITS if discrepancy.freedom else 0)
    sds = discrepancy.drawn(rows, stream(f"discrepancy/{name}", 0))
    growth = choice.growth(discrepancy.variance + discrepancy.noise, rows, stream(f"growth/{name}", 0))
    return [
        _law(draws, curve, found, choice=choice, discrepancy=discrepancy, sds=sds, growth=growth)
        for curve, found in zip(family, fits, strict=True)
    ]


def _fits(draws: CellDraws, family: Sequence[Curve], choice: FormChoice) -> list[LawFit]:
    found: dict[int, LawFit] = {}
    for curves_of_length in by_length(family):
        positions = np.stack([curve.positions for curve in curves_of_length])
        x, y, runs = (
            draws.cells[name].to_numpy(np.float64)[positions]
            for name in (X_COLUMNS[family[0].along], "error", "runs")
        )
        fits = fit_laws(
            choice.form, x, y, runs=runs.astype(np.int64), draws=draws.draws[:, positions],
            source=draws.source, freedom=draws.freedom if draws.source == "runs" else 0, chance=draws.chance,
        )  # fmt: skip
        found |= {id(curve): fitted for curve, fitted in zip(curves_of_length, fits, strict=True)}
    return [found[id(curve)] for curve in family]


def _discrepancy(draws: CellDraws, family: Sequence[Curve], fits: Sequence[LawFit]) -> Excess:
    kept = [
        (curve, found) for curve, found in zip(family, fits, strict=True) if found.supported and found.freedom
    ]
    squares = sum(found.miss**2 * len(curve.positions) for curve, found in kept)
    # Without seeds the counting noise is a lower bound, too little to tell noise from what the laws miss.
    seeds = [noise_sd(draws.draws[:, curve.positions]) for curve, _ in kept if draws.source == "runs"]
    noise = float(np.mean(np.concatenate(seeds) ** 2)) if seeds else 0.0
    return by_moments(squares, freedom=sum(found.freedom for _, found in kept), noise=noise)


def _law(  # noqa: PLR0913 (a curve, its law, and its family's)
    draws: CellDraws,
    curve: Curve,
    found: LawFit,
    *,
    choice: FormChoice,
    discrepancy: Excess,
    sds: Floats,
    growth: Floats,
) -> Law:
    alpha, floor, drawn = Interval(), Interval(), None
    band = pd.DataFrame({"x": [], "y": [], "low": [], "high": []})
    informed = draws.source == "runs" or discrepancy.freedom > 0
    if found.supported:
        drawn = _drawn(draws, curve, found.form, sds, growth)
        at = np.geomspace(*drawn.reach, _POINTS)
        band = pd.DataFrame({"x": at, "y": found(at), "low": np.nan, "high": np.nan})
        # Counting noise alone would draw a band that looks like an interval and is not one.
        if informed:
            alpha, floor = (intervals(values, len(sds)) for values in (drawn.law.alpha, drawn.law.floor))
            band["low"], band["high"] = column_intervals(drawn(at)[1 : 1 + len(sds)])
    return Law(
        along=curve.along, identity=curve.identity, positions=curve.positions, fit=found, choice=choice,
        discrepancy=discrepancy, alpha=alpha, floor=floor, band=band, drawn=drawn,
        refits=len(sds), informed=informed,
    )  # fmt: skip


def _drawn(draws: CellDraws, curve: Curve, form: Form, sds: Floats, growth: Floats) -> Drawn:
    """Refit a curve's law to its errors, moved in the draws by the discrepancy."""
    names = (X_COLUMNS[curve.along], "runs")
    x, runs = (draws.cells[name].to_numpy(np.float64)[curve.positions] for name in names)
    rows = draws.resampled(curve.positions)
    if not draws.refits and len(sds):  # no noise was measured: the draws are the discrepancy alone
        rows = np.concatenate([rows[:1], np.repeat(rows[:1], len(sds), axis=0), rows[1:]])
    generator = stream(f"discrepancy/{sorted(curve.identity.items(), key=str)}", 0)
    moves, shown = generator.standard_normal((len(sds), len(x) + 1)), slice(1, 1 + len(sds))
    beside, sd, grown = np.zeros((3, len(rows)))
    beside[shown], sd[shown], grown[shown] = moves[:, -1], sds, growth
    rows[shown] += sds[:, None] * moves[:, :-1]
    return Drawn(
        law=fit(form, x, rows, weights=runs, chance=draws.chance), beside=beside, sd=sd, growth=grown,
        reach=(float(x.min()), float(x.max())),
    )  # fmt: skip
