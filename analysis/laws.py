"""Every curve of a study and its law, over compute and over data, with intervals over the draws."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.bootstrap import CellDraws, interval
from analysis.power_law import PowerLawFit, fit, fit_draws
from analysis.table import CELL

Floats = NDArray[np.float64]

_REFITS = 500
"""Draws that a band is made of: the 5th and 95th percentiles of more move by less than a line is thick."""
_POINTS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Law:
    """One curve with its law.

    Attributes:
        along: ``compute`` (x is training FLOPs) or ``data`` (x is unique pairs).
        identity: The columns of the cell that the curve holds.
        positions: Its cells among all, by rising x.
        fit: The law.
        alpha: Interval of the exponent; NaN without draws of runs.
        floor: Interval of the floor; NaN without draws of runs.
        band: Columns ``x``, ``y``, ``low``, ``high`` within the measured x; empty when the law is not
            supported.
    """

    along: str
    identity: Mapping[str, Any]
    positions: NDArray[np.intp]
    fit: PowerLawFit
    alpha: tuple[float, float]
    floor: tuple[float, float]
    band: pd.DataFrame


def laws(draws: CellDraws, *, along: str) -> list[Law]:
    """Fits every curve of at least two cells.

    Args:
        draws: The study's cells.
        along: ``compute``: curves of cells that differ in budget alone; ``data``: in subset size alone.
    """
    left = "budget" if along == "compute" else "subset_size"
    x_column = "train_flops" if along == "compute" else "subset_size"
    identity = [name for name in CELL if name != left]
    found = []
    for key, positions in draws.groups(identity):
        if len(positions) < 2:  # noqa: PLR2004 (one cell is no curve)
            continue
        x = draws.cells[x_column].to_numpy(np.float64)[positions]
        ordered = positions[np.argsort(x, kind="stable")]
        found.append(
            _law(draws.take(ordered), along, x_column, dict(zip(identity, key, strict=True)), ordered)
        )
    return found


def _law(
    draws: CellDraws, along: str, x_column: str, identity: Mapping[str, Any], positions: NDArray[np.intp]
) -> Law:
    x = draws.cells[x_column].to_numpy(np.float64)
    runs = draws.cells["runs"].to_numpy(np.int64)
    noise = draws.draws.std(axis=0) if len(draws.draws) else None
    law = fit(x, draws.cells["error"].to_numpy(np.float64), runs=runs, noise=noise)
    nan = (float("nan"), float("nan"))
    alpha, floor, band = nan, nan, pd.DataFrame({"x": [], "y": [], "low": [], "high": []})
    if law.supported:
        at = np.geomspace(x.min(), x.max(), _POINTS)
        band = pd.DataFrame({"x": at, "y": law(at), "low": np.nan, "high": np.nan})
        # Counting noise alone would draw a band that looks like an interval and is not one.
        if draws.source == "runs":
            drawn = fit_draws(x, draws.draws[:_REFITS], runs=runs)
            alpha, floor = interval(drawn.alpha), interval(drawn.floor)
            v = np.exp(-drawn.alpha[:, None] * np.log(at / law.unit))
            ends = [interval(column) for column in (drawn.floor[:, None] + drawn.scale[:, None] * v).T]
            band["low"], band["high"] = [end[0] for end in ends], [end[1] for end in ends]
    return Law(
        along=along, identity=identity, positions=positions, fit=law, alpha=alpha, floor=floor, band=band
    )
