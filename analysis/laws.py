"""Every curve of a study and its law, over compute and over data, with intervals over the draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.bootstrap import CellDraws
from analysis.contrasts import held_text
from analysis.intervals import Interval, interval, intervals
from analysis.labels import budget_text
from analysis.power_law import Draws, PowerLawFit, fit, fit_draws
from analysis.table import CELL

Floats = NDArray[np.float64]

_POINTS = 60
_LEAST = 1e-300

X_COLUMNS = {"compute": "train_flops", "data": "subset_size"}
"""The column of the cells that a law runs along."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Law:
    """One curve with its law.

    Attributes:
        along: ``compute`` (x is training FLOPs) or ``data`` (x is unique pairs).
        identity: The columns of the cell that the curve holds.
        positions: Its cells among all, by rising x.
        fit: The law.
        alpha: Intervals of the exponent; NaN without draws of runs.
        floor: Intervals of the floor; NaN without draws of runs.
        band: Columns ``x``, ``y``, ``low``, ``high`` within the measured x; empty when the law is not
            supported.
        drawn: The law refitted to each row of the cells' stack (``CellDraws.resampled``); None when it is not
            supported.
    """

    along: str
    identity: Mapping[str, Any]
    positions: NDArray[np.intp]
    fit: PowerLawFit
    alpha: Interval
    floor: Interval
    band: pd.DataFrame
    drawn: Draws | None


def laws(draws: CellDraws, *, along: str) -> list[Law]:
    """Fits every curve of at least two cells.

    Args:
        draws: The study's cells.
        along: ``compute``: curves of cells that differ in budget alone; ``data``: in subset size alone.
    """
    x_column = X_COLUMNS[along]
    left = "budget" if along == "compute" else "subset_size"
    regimes = draws.cells["regime"].to_numpy(object)
    found = []
    for one_epoch in (False, True):
        # In one epoch each pair is seen once: more compute is more pairs, along one and the same curve.
        free = {"budget", "subset_size"} if one_epoch and along == "compute" else {left}
        identity = [name for name in CELL if name not in free]
        kept = np.flatnonzero((regimes == "one-epoch") == one_epoch)
        for key, places in draws.take(kept).groups(identity):
            positions = kept[places]
            if len(positions) < 2:  # noqa: PLR2004 (one cell is no curve)
                continue
            x = draws.cells[x_column].to_numpy(np.float64)[positions]
            ordered = positions[np.argsort(x, kind="stable")]
            held = dict(zip(identity, key, strict=True))
            found.append(_law(draws.take(ordered), along, x_column, held, ordered))
    return found


def curve_text(law: Law, *, without: str = "") -> str:
    """What a curve holds, in words, with its budget where it has one."""
    held = {name: value for name, value in law.identity.items() if name not in ("regime", "budget", without)}
    if "budget" not in law.identity:
        return held_text(held)
    return f"{held_text(held)} at {budget_text(str(law.identity['regime']), law.identity['budget'])}"


def alike(laws: Sequence[Law], *, along: str, axis: str) -> list[list[Law]]:
    """Groups of curves along one axis of x that differ in one part of the configuration alone."""
    groups: dict[tuple[tuple[str, Any], ...], list[Law]] = {}
    for law in laws:
        if law.along == along:
            key = tuple((name, value) for name, value in law.identity.items() if name != axis)
            groups.setdefault(key, []).append(law)
    return list(groups.values())


def curve_draws(draws: CellDraws, law: Law, at: Floats) -> Floats:
    """A curve's error for each row of its cells' stack, shape (rows, len(at)).

    Where the law is supported it is refitted to each row; otherwise the cells are joined by straight lines
    in ln x, which say nothing outside of the measured x.

    Args:
        draws: The cells that the law was fitted to.
        law: One of their curves.
        at: Where to read it off.
    """
    if law.drawn is not None:
        return _evaluate(law.drawn, np.log(at / law.fit.unit))
    here = draws.take(law.positions)
    log_x = np.log(here.cells[X_COLUMNS[law.along]].to_numpy(np.float64))
    log_at, error = np.log(at), here.resampled()
    left = np.clip(np.searchsorted(log_x, log_at, side="right") - 1, 0, len(log_x) - 2)
    slope = np.diff(error, axis=1)[:, left] / np.maximum(np.diff(log_x), _LEAST)[left]
    lines = slope * (log_at - log_x[left]) + error[:, left]
    return np.where(log_at >= log_x[-1], error[:, -1:], np.where(log_at <= log_x[0], error[:, :1], lines))


def aligned(one: Floats, other: Floats, refits: int) -> tuple[Floats, Floats]:
    """Two stacks of other cells as one: where a run of one is left out, the other is as measured."""
    shared = 1 + refits
    first = [one, np.repeat(one[:1], len(other) - shared, axis=0)]
    second = [other[:shared], np.repeat(other[:1], len(one) - shared, axis=0), other[shared:]]
    return np.concatenate(first), np.concatenate(second)


def _evaluate(drawn: Draws, log_x: Floats) -> Floats:
    power = np.exp(-drawn.alpha[:, None] * log_x)
    return np.asarray(drawn.floor[:, None] + drawn.scale[:, None] * power, dtype=np.float64)


def _law(
    draws: CellDraws, along: str, x_column: str, identity: Mapping[str, Any], positions: NDArray[np.intp]
) -> Law:
    x = draws.cells[x_column].to_numpy(np.float64)
    runs = draws.cells["runs"].to_numpy(np.int64)
    error = draws.cells["error"].to_numpy(np.float64)
    law = fit(x, error, runs=runs, draws=draws.draws, source=draws.source)
    alpha, floor, band = Interval(), Interval(), pd.DataFrame({"x": [], "y": [], "low": [], "high": []})
    drawn = None
    if law.supported:
        drawn = fit_draws(x, draws.resampled(), runs=runs)
        at = np.geomspace(x.min(), x.max(), _POINTS)
        band = pd.DataFrame({"x": at, "y": law(at), "low": np.nan, "high": np.nan})
        # Counting noise alone would draw a band that looks like an interval and is not one.
        if draws.source == "runs":
            alpha, floor = (intervals(values, draws.refits) for values in (drawn.alpha, drawn.floor))
            lines = _evaluate(drawn, np.log(at / law.unit))[1 : 1 + draws.refits]
            ends = [interval(column) for column in lines.T]
            band["low"], band["high"] = [end[0] for end in ends], [end[1] for end in ends]
    return Law(
        along=along, identity=identity, positions=positions, fit=law, alpha=alpha, floor=floor, band=band,
        drawn=drawn,
    )  # fmt: skip
