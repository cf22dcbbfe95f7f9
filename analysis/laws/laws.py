"""The curves of a study with their bands, read from the joint law of its family.

Along compute a band is that of the joint law (``analysis.belief.law``), without what single cells miss.
Along data it passes through the draws of the cells, see ``analysis.belief.curves.read``. A curve is drawn
if its cells fall by more than their noise: the slope of the errors over ln x lies below zero by ``FALLS``
standard errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.belief.cell_draws import CellDraws, cell_draws
from analysis.belief.curves import X_COLUMNS, Curve, curves, read
from analysis.belief.family import Family
from analysis.cells.intervals import NO_BAND, band
from analysis.cells.table import tidy

LawStatus = Literal["ok", "no decrease", "no intervals"]

FALLS = 1.96
_POINTS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Law(Curve):
    """One curve with its band.

    Attributes:
        band: Columns ``x``, ``y`` (median of the draws), ``low``, ``high`` within the measured x; empty
            unless ``status`` is ``ok``.
        status: ``ok``; ``no decrease`` if its cells don't fall by more than their noise; ``no intervals`` if
            nothing is known of the noise of a run.
    """

    band: pd.DataFrame
    status: LawStatus


def laws(draws: CellDraws, *, along: str) -> list[Law]:
    """Return every curve of at least two cells with its band, see `curves`."""
    variances = {regime: run_variance(family) for regime, family in draws.families.items()}
    return [
        _law(draws, curve, variances[str(curve.identity["regime"])]) for curve in curves(draws, along=along)
    ]


def run_variance(family: Family) -> Floats:
    """Return the variance of one run at each point of a family's curves, shape (curves, points).

    In a table of single runs it is the mean square by which these miss their law, if that is larger than what
    is known of their noise.
    """
    points = family.x.shape[1]
    known = family.belief.noise[:, :points]
    if family.source == "runs":
        return known
    line = np.median(family.read(np.arange(len(family.x)), family.x), axis=0)
    miss = (family.measured.mean[:, :points] - line)[family.measured.runs[:, :points] > 0]
    return np.asarray(np.maximum(known, (miss**2).mean()))


def _law(draws: CellDraws, curve: Curve, variance: Floats) -> Law:
    on_curve = draws.take(curve.positions)
    x, error, runs = (on_curve.column(name) for name in (X_COLUMNS[curve.along], "error", "runs"))
    place = (on_curve.cells["curve"].to_numpy(np.intp), on_curve.cells["point"].to_numpy(np.intp))
    status: LawStatus = "no intervals"
    if draws.known:
        status = "ok" if _falls(x, error, variance[place] / runs) else "no decrease"
    at = np.geomspace(x[0], x[-1], _POINTS)
    return Law(
        along=curve.along, identity=curve.identity, positions=curve.positions, status=status,
        band=band(at, read(draws, curve, at)) if status == "ok" else NO_BAND,
    )  # fmt: skip


def _falls(x: Floats, error: Floats, variance: Floats) -> bool:
    """Return whether the least-squares slope of errors over ln x lies below zero by more than its noise."""
    weight = np.log(x) - np.log(x).mean()
    return bool(weight @ error < -FALLS * np.sqrt(weight**2 @ variance))


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """The data of one metric that figures draw; no laws for figures without curves."""

    metric: str
    draws: CellDraws
    laws: Sequence[Law] = ()

    def along(self, along: str) -> list[Law]:
        """Return the laws along ``compute`` or ``data``."""
        return [law for law in self.laws if law.along == along]


def measure(results: pd.DataFrame, metric: str) -> Measure:
    """Read one metric of a results table with all its laws; trials without the metric are left out."""
    draws = cell_draws(tidy(results, metric=metric))
    return Measure(
        metric=metric, draws=draws, laws=tuple(law for along in X_COLUMNS for law in laws(draws, along=along))
    )
