"""Data of the figures that check the joint law: residuals and forecasts of held-out levels."""

from typing import Any

import numpy as np

from analysis.belief.curves import X_COLUMNS
from analysis.cells.table import records
from analysis.charts.figure_data import FigureData, Missing, cell_marks, mark_frame, runs_text
from analysis.error_unit import ErrorUnit
from analysis.labels import budget_text, capital, metric_text
from analysis.laws.holdout import JOINT, LAST, Holdout
from analysis.laws.laws import Measure, root_mean_square
from budgets.quantity import plural

_MOST_BARS = 60
_BARS = "Bars: interval of the cell."
_NO_BARS = "Intervals are not drawn for so many cells."


def residuals(measure: Measure) -> FigureData | Missing:
    """Return the figure of measured error minus law over compute, for the curves that fall."""
    title = "Residuals of the law over compute"
    draws, unit, laws = measure.draws, measure.draws.error_unit, measure.along("compute")
    kept = [law for law in laws if law.status == "ok"]
    if not kept:
        return Missing(title=title, reason="no curve over compute falls by more than its noise")
    rows: list[dict[str, Any]] = []
    for law in kept:
        series = str(law.identity["architecture"])
        marks = cell_marks(draws, law.positions, x=X_COLUMNS["compute"], series=series)
        for mark, line in zip(marks, (unit.factor * law.line).tolist(), strict=True):
            above = {name: mark[name] - line for name in ("y", "low", "high")}
            text = f"{mark['text']}; {above['y']:+{unit.fine}}{unit.points} from its law"
            rows.append(mark | above | {"x": line, "text": text})
    rows.sort(key=lambda row: row["series"])
    barred = len(rows) <= _MOST_BARS
    if not barred:
        rows = [row | {"low": np.nan, "high": np.nan} for row in rows]
    ends = (min(row["x"] for row in rows), max(row["x"] for row in rows))
    zero = [{"mark": "reference", "line": "zero", "x": end, "y": 0.0} for end in ends]
    size = root_mean_square(np.array([row["y"] for row in rows])) / unit.factor
    positions = [position for law in kept for position in law.positions]
    return FigureData(
        name="residuals",
        title=title,
        x_scale="linear",
        x_label=unit.heading_of(f"{unit.word} by the law"),
        y_label=unit.gap_heading_of("measured − law"),
        frame=mark_frame([*zero, *rows]),
        caption=(
            f"{capital(metric_text(measure.metric))} minus the joint law of all trials: "
            f"{plural(len(kept), 'curve')} of {len(laws)}, {runs_text(draws, positions)}. Root mean square "
            f"{unit.gap(size, fine=True)}. {_BARS if barred else _NO_BARS} {capital(draws.explanation)}."
        ),
        alt=f"{title}: {plural(len(rows), 'cell')}, root mean square {unit.gap(size, fine=True)}.",
    )


def forecasts(found: Holdout, *, metric: str) -> FigureData | Missing:
    """Return the figure of forecast against measured error of the held-out cells."""
    title, unit = "Forecasts of held-out levels", ErrorUnit.of(metric)
    if found.reason:
        return Missing(title=title, reason=found.reason)
    points = records(found.points)
    rows = [_forecast(point, law, unit) for law in (LAST, JOINT) for point in points]
    values = [value for row in rows for value in (row["x"], row["y"])]
    same = [{"mark": "reference", "line": "same", "x": end, "y": end} for end in (min(values), max(values))]
    said = ", ".join(f"{row['law']} {unit.gap(row['error'], fine=True)}" for row in records(found.scores))
    return FigureData(
        name="forecasts",
        title=title,
        x_scale="linear",
        x_label=unit.heading_of("measured"),
        y_label=unit.heading_of("forecast"),
        frame=mark_frame([*same, *rows]),
        caption=(
            f"{capital(metric_text(metric))} of {plural(len(points), 'cell')} of the largest levels, each "
            "forecast from the levels below it, against the measured value; dashed: equality. Bars: 90 % "
            f"intervals. Mean absolute miss: {said}."
        ),
        alt=f"{title}: mean absolute miss: {said}.",
    )


def _forecast(point: dict[str, Any], law: str, unit: ErrorUnit) -> dict[str, Any]:
    forecast = point["forecast" if law == JOINT else "last"]
    ends = (point["low"], point["high"]) if law == JOINT else (np.nan, np.nan)
    return {
        "mark": "point", "series": law, "x": unit.factor * point["measured"], "y": unit.factor * forecast,
        "low": unit.factor * ends[0], "high": unit.factor * ends[1],
        "text": f"{point['configuration']}, {budget_text(point['regime'], point['level'])}, "
        f"{point['factor']:.3g} times beyond: {law} {unit.text(forecast)}, "
        f"measured {unit.text(point['measured'])}",
    }  # fmt: skip
