"""Data of the figure that checks the joint law: forecasts of held-out levels."""

from typing import Any

import numpy as np

from analysis.cells.table import records
from analysis.charts.figure_data import FigureData, Missing, mark_frame
from analysis.error_unit import ErrorUnit
from analysis.labels import budget_text, capital, metric_text
from analysis.laws.holdout import JOINT, LAST, Holdout
from budgets.quantity import plural


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
        finding=f"Mean absolute miss of the forecasts: {said}.",
        caption=f"{capital(metric_text(metric))} of {plural(len(points), 'cell')} of the largest levels, "
        "each forecast from the levels below it, against the measured value; dashed: equality.",
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
