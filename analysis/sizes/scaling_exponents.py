"""N ∝ C^a and D ∝ C^b of each family by the three approaches of Hoffmann et al. 2022.

N and D are chosen so that compute is proportional to N·D, and thus b = 1 − a. D is samples seen. N is the
number of parameters if the training FLOPs of a sample are proportional to it (within 25 %); otherwise, for
example with patches of several sizes, N is these FLOPs divided by six.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices
from analysis.cells.bootstrap import CellDraws
from analysis.cells.intervals import COVERAGE, interval
from analysis.cells.table import records
from analysis.labels import axis_text, count_text
from analysis.laws.surface_forecast import FamilySurface, groups
from analysis.sizes.compute_optimal import Slope, by_envelope, by_minima, by_surface

COLUMNS = (
    "family", "held", "approach", "what", "exponent", "low", "high", "points", "status", "reason", "size",
)  # fmt: skip
APPROACHES = ("lower envelope", "IsoFLOP minima", "surface")

WHY_THEY_DIFFER = (
    "known reasons: a warm-up that is long for short runs, FLOPs of the last layer left out, learning rate "
    "and batch not tuned for each size (Porian et al. 2024), a learning-rate schedule longer than the run "
    "(Hoffmann et al. 2022), a fit that stopped early (Besiroglu et al. 2024), and repeated data"
)
_PROPORTIONAL = 1.25
_SIZES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """Growth of the best model size N of a family with compute: a slope of ln N over ln C by each approach.

    ``held`` names regime, strategy and quality, ``size`` the quantity that N measures; ``flops_per_size`` is
    training FLOPs per sample ÷ N.
    """

    family: str
    held: str
    size: str
    flops_per_size: float
    slopes: Mapping[str, Slope]


def growths(draws: CellDraws, surfaces: Sequence[FamilySurface]) -> tuple[Growth, ...]:
    """Return the growth in each regime, quality, strategy and family with at least three sizes."""
    found, laws = [], {one.key: one.fit for one in surfaces}
    for key, positions in groups(draws).items():
        regime, quality, strategy, family = key
        here = draws.take(positions)
        n, size = model_sizes(here.cells)
        if len(np.unique(n)) < _SIZES:
            continue
        # The envelope and the minima need one data size; the surface uses all cells.
        inside, data = _one_data_size(here, regime)
        cells = here.take(inside)
        slopes = (
            by_envelope(cells, n[inside]), by_minima(cells, n[inside]), by_surface(here, laws[key], n)
        )  # fmt: skip
        flops = here.column("train_flops_per_sample")
        found.append(
            Growth(
                family=family,
                held=f"{regime}, {axis_text('strategy', strategy)}, {axis_text('quality', quality)}",
                size=size,
                flops_per_size=float(np.exp(np.log(flops / n).mean())),
                slopes={
                    approach: slope if approach == "surface" else replace(slope, reason=slope.reason + data)
                    for approach, slope in zip(APPROACHES, slopes, strict=True)
                },
            )
        )
    return tuple(found)


def scaling_exponents(found: Sequence[Growth]) -> pd.DataFrame:
    """Return the exponents of each growth.

    Returns:
        Columns ``COLUMNS``: ``what`` is N or D; ``low`` and ``high`` are NaN if the interval is unknown;
        ``status`` is ``ok``, ``no interval``, ``unstable`` (too many draws without an exponent, or too few
        minima that the sizes tried bracket) or ``none``; ``size`` says what N is.
    """
    rows = []
    for one in found:
        for approach, slope in one.slopes.items():
            identity = {"family": one.family, "held": one.held, "approach": approach, "size": one.size}
            of_data = replace(slope, measured=1 - slope.measured, drawn=1 - slope.drawn)
            rows += [
                identity | {"what": "N"} | judged(slope), identity | {"what": "D"} | judged(of_data),
            ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def model_sizes(cells: pd.DataFrame) -> tuple[Floats, str]:
    """Return N of each cell, such that compute is proportional to N·D, and what N is."""
    flops, parameters = (
        cells[name].to_numpy(np.float64) for name in ("train_flops_per_sample", "parameters")
    )
    ratio = flops / parameters
    known = bool(np.isfinite(ratio).all() and (ratio > 0).all())
    # Compute is proportional to N·D only if FLOPs per sample are proportional to N.
    if known and ratio.max() / ratio.min() <= _PROPORTIONAL:
        return parameters, "parameters"
    return flops / 6, "training FLOPs a sample / 6"


def differences(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each family whose approaches give disjoint intervals for the exponent of N."""
    said = []
    for where, rows in _by_family(table):
        known = [row for row in rows if row["status"] == "ok"]
        apart = [
            f"{_text(one)} by {one['approach']} and {_text(other)} by {other['approach']}"
            for one, other in combinations(known, 2)
            if one["low"] > other["high"] or other["low"] > one["high"]
        ]
        if apart:
            said.append(
                f"How model size grows with compute ({where}): the exponents differ by more than their "
                f"{COVERAGE:.0%} intervals, {'; '.join(apart)}; {WHY_THEY_DIFFER}."
            )
    return said


def undecided(table: pd.DataFrame) -> list[str]:
    """Return the `differences`, and a sentence for each family without an exponent by any approach."""
    none = [
        f"How model size grows with compute ({where}): no approach gives an exponent; "
        f"{'; '.join(_reason(row) for row in rows)}."
        for where, rows in _by_family(table)
        if all(row["status"] in ("none", "unstable") for row in rows)
    ]
    return differences(table) + none


def _by_family(table: pd.DataFrame) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the rows of N of each family, with the family and its fixed parts in words."""
    found = table[table["what"] == "N"].groupby(["family", "held"], sort=False)
    return [(f"{family}, {held}", records(rows)) for (family, held), rows in found]


def _reason(row: Mapping[str, Any]) -> str:
    return str(row["reason"]) if row["approach"] == "surface" else f"{row['approach']}: {row['reason']}"


def _text(row: Mapping[str, Any]) -> str:
    return f"{row['exponent']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _one_data_size(draws: CellDraws, regime: str) -> tuple[Indices, str]:
    """Return the cells of the data size with the most cells; all cells in the one-epoch regime."""
    if regime == "one-epoch":
        return np.arange(len(draws.cells)), ""
    found = draws.groups(["subset_size"])
    (size,), positions = max(found, key=lambda one: (len(one[1]), float(str(one[0][0]))))
    return positions, f"; at {count_text(float(str(size)))} pairs"


def judged(slope: Slope) -> dict[str, Any]:
    """Return an exponent with its interval and status."""
    low = high = float("nan")
    if np.isnan(slope.measured):
        status = "none"
    elif not len(slope.drawn):
        status = "no interval"
    # An interval of COVERAGE needs at least that share of draws with an exponent.
    elif not slope.firm or np.isfinite(slope.drawn).mean() < COVERAGE:
        status = "unstable"
    else:
        status, (low, high) = "ok", interval(slope.drawn)
    return {
        "exponent": slope.measured, "low": low, "high": high, "points": slope.points, "status": status,
        "reason": slope.reason,
    }  # fmt: skip
