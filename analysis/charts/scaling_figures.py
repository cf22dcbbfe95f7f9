"""Data of the scaling panels: the best model size and its samples against compute, by three approaches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.cells.intervals import column_intervals
from analysis.cells.table import records
from analysis.charts.figure_data import FigureData, Missing, mark_frame, said_once
from analysis.labels import count_text
from analysis.sizes.compute_optimal import Slope
from analysis.sizes.scaling_exponents import APPROACHES, Growth, judged
from budgets.quantity import format_flops, plural

_LARGEST = 700.0  # of an exponent
_BEYOND = 10.0
"""Factor of compute by which the lines are drawn beyond the data, without a target."""
_WORDS = {"N": ("model size", "model-size"), "D": ("samples", "samples")}


def scaling_panels(
    found: Sequence[Growth], *, target_flops: float | None = None
) -> tuple[FigureData | Missing, ...]:
    """Return the figures of model size and of samples, see `scaling`, or the reason against both."""
    both = tuple(scaling(found, what=what, target_flops=target_flops) for what in _WORDS)
    return both if isinstance(both[0], FigureData) else both[:1]


def scaling(found: Sequence[Growth], *, what: str, target_flops: float | None = None) -> FigureData | Missing:
    """Return the figure of the best model size (N) or its samples (D) against compute, a panel per approach.

    If there are several families, the one with the most exponents is drawn. The lines are drawn up to
    ``target_flops``, by default ten times the largest compute.
    """
    word, short = _WORDS[what]
    title = f"Best {word} against compute, by three approaches"
    if not found:
        return Missing(title=title, reason="no family has three model sizes")
    one = max(found, key=lambda growth: sum(len(slope.levels) > 0 for slope in growth.slopes.values()))
    drawn = {approach: slope for approach, slope in one.slopes.items() if len(slope.levels)}
    absent = [
        f"{approach}: {one.slopes[approach].reason}" for approach in APPROACHES if approach not in drawn
    ]
    if not drawn:
        return Missing(
            title=title, reason=f"{one.family}: no approach gives an exponent; {'; '.join(absent)}"
        )
    rows = [
        row for approach, slope in drawn.items() for row in _panel(one, approach, slope, what, target_flops)
    ]
    said = [row["panel"] for row in rows if row["mark"] == "law"]
    marks = {row["mark"] for row in rows}
    formulas = "; ".join(dict.fromkeys(said))
    left = len(found) - 1
    to = f"{_BEYOND:g} times the largest compute" if target_flops is None else format_flops(target_flops)
    size = "" if what == "D" else f"N is {one.size}"
    return FigureData(
        name=f"scaling-{short}",
        title=title,
        x_label="training compute of one trial (FLOPs)",
        y_label="samples seen" if what == "D" else one.size,
        y_scale="log",
        frame=mark_frame(rows),
        caption=said_once(
            f"the {word} with the lowest error at each compute, of {one.family} ({one.held}), by the "
            "approaches of Hoffmann et al. 2022, §3: the lower envelope of the curves, the minima of the "
            "IsoFLOP profiles, and the surface, which is fitted to errors and so has no points here",
            f"Solid: {formulas}; bands and brackets are 90 % intervals",
            f"Dashed: extrapolated to {to}" if "extrapolation" in marks else "",
            "Hollow: the draws do not agree on the minimum" if "undecided" in marks else "",
            size,
            f"Not drawn: {'; '.join(absent)}" if absent else "",
            f"Not drawn, in the table: {plural(left, 'further family')}" if left == 1 else "",
            f"Not drawn, in the table: {left} further families" if left > 1 else "",
        ),
        alt=f"{title}: {formulas}.",
    )


def _panel(
    one: Growth, approach: str, slope: Slope, what: str, target_flops: float | None
) -> list[dict[str, Any]]:
    found = judged(slope)
    exponent, ends = float(found["exponent"]), (float(found["low"]), float(found["high"]))
    if what == "D":
        exponent, ends = 1 - exponent, (1 - ends[1], 1 - ends[0])
    bracket = "" if np.isnan(ends[0]) else f" [{ends[0]:.2f}, {ends[1]:.2f}]"
    fixed = {"panel": f"{approach}, {what} ∝ C^{exponent:.2f}{bracket}", "series": one.family}
    low, high = slope.within
    rows: list[dict[str, Any]] = []
    beyond = high + np.log(_BEYOND) if target_flops is None else np.log(float(target_flops))
    parts = [("law", low, high)]
    if beyond > high and slope.firm:
        parts.append(("extrapolation", high, beyond))
    for mark, start, end in parts:
        log_c = np.linspace(start, end, 40)
        lines = _converted(slope.log_n(log_c), log_c, one, what)
        below, above = column_intervals(lines[1:] if slope.firm else lines[:0])
        for place, x in enumerate(np.exp(log_c).tolist()):
            rows.append(fixed | {
                "mark": mark, "x": x, "y": float(lines[0, place]), "low": float(below[place]),
                "high": float(above[place]),
            })  # fmt: skip
    return rows + [fixed | _point(row, one, what) for row in records(_distinct(slope.behind))]


def _distinct(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points; without intervals, neighbouring computes with one best size become their mean."""
    if points["low"].notna().any():
        return points
    runs = (points["log_n"].diff().abs() > 1e-9).cumsum()  # noqa: PLR2004 (the same size)
    return points.groupby(runs, as_index=False).mean()


def _point(row: dict[str, Any], one: Growth, what: str) -> dict[str, Any]:
    log_c = np.array([row["log_c"]])
    y, low, high = (
        float(_converted(np.array([row[name]]), log_c, one, what)[0]) for name in ("log_n", "low", "high")
    )
    value = f"{count_text(y)} samples" if what == "D" else f"{count_text(y)} ({one.size})"
    compute = float(np.exp(row["log_c"]))
    return {
        "mark": "point" if row["stable"] else "undecided", "x": compute, "y": y,
        "low": min(low, high), "high": max(low, high), "text": f"{format_flops(compute)}: {value}",
    }  # fmt: skip


def _converted(log_n: Floats, log_c: Floats, one: Growth, what: str) -> Floats:
    """Return N, or D = C ÷ (training FLOPs per sample of a model of size N)."""
    found = log_c - np.log(one.flops_per_size) - log_n if what == "D" else log_n
    return np.exp(np.clip(found, -_LARGEST, _LARGEST))
