"""Data of the figures that check the laws: residuals and held-out forecasts."""

from typing import Any

import numpy as np

from analysis.cells.bootstrap import CellDraws
from analysis.cells.curves import X_COLUMNS
from analysis.cells.table import records
from analysis.charts.figure_data import FigureData, Missing, cell_marks, mark_frame, runs_text
from analysis.labels import capital, configuration_text, listed, metric_text
from analysis.laws.form_choice import LAST, root_mean_square
from analysis.laws.holdout import Holdout
from analysis.laws.laws import Measure
from budgets.quantity import plural

_MOST_BARS = 60
_BARS = "Bars: interval of the cell."
_NO_BARS = "Intervals are not drawn for so many cells."
_LAWS = 4


def residuals(measure: Measure) -> FigureData | Missing:
    """Return the figure of measured error minus law, for supported laws over compute with spare levels."""
    title = "Residuals of the laws over compute"
    draws, unit, laws = measure.draws, measure.draws.error_unit, measure.along("compute")
    kept = [law for law in laws if law.fit.supported and law.fit.freedom]
    if not kept:
        reason = "no law over compute is both supported and has more levels than parameters"
        return Missing(title=title, reason=reason)
    rows: list[dict[str, Any]] = []
    x = draws.column(X_COLUMNS["compute"])
    for law in kept:
        series = str(law.identity["architecture"])
        marks = cell_marks(draws, law.positions, x=X_COLUMNS["compute"], series=series)
        for mark, line in zip(marks, (unit.factor * law.fit(x[law.positions])).tolist(), strict=True):
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
            f"{capital(metric_text(measure.metric))} minus the law of its curve "
            f"({listed([*dict.fromkeys(law.fit.form.name for law in kept)])}): "
            f"{plural(len(kept), 'supported law')} with levels to spare, of {plural(len(laws), 'curve')}, "
            f"{runs_text(draws, positions)}. Root mean square {unit.gap(size, fine=True)}. "
            f"{_BARS if barred else _NO_BARS} {capital(draws.explanation)}."
        ),
        alt=f"{title}: {plural(len(rows), 'cell')}, root mean square {unit.gap(size, fine=True)}.",
    )


def forecasts(draws: CellDraws, found: Holdout, *, metric: str) -> FigureData | Missing:
    """Return the figure of forecast against measured error of the held-out cells, by law."""
    title, unit = "Held-out forecasts", draws.error_unit
    if found.reason:
        return Missing(title=title, reason=found.reason)
    compared = [row["law"] for row in records(found.scores) if row["compared"]]
    # The chosen laws, the last level as a baseline, and the others with the smallest misses; drawn in the
    # opposite order, so that the chosen ones lie on top.
    chosen = {choice.form.name for choice in found.choices.values()}
    shown = sorted(compared, key=lambda law: (law not in chosen, law != LAST))[:_LAWS]
    shown.sort(key=lambda law: law in chosen)
    rows: list[dict[str, Any]] = []
    for law in shown:
        rows += [_forecast(draws, point) for point in records(found.points[found.points["law"] == law])]
    values = [value for row in rows for value in (row["x"], row["y"])]
    same = [{"mark": "reference", "line": "same", "x": end, "y": end} for end in (min(values), max(values))]
    held = found.points.loc[found.points["law"].isin(compared), "position"].nunique()
    scores = {row["law"]: unit.gap(row["error"], fine=True) for row in records(found.scores)}
    said = ", ".join(f"{law} {scores[law]}" for law in compared)
    common = int(found.scores.loc[found.scores["compared"], "points"].min())
    left = "" if len(shown) == len(compared) else f" Drawn: {', '.join(shown)}."
    return FigureData(
        name="forecasts",
        title=title,
        x_scale="linear",
        x_label=unit.heading_of("measured"),
        y_label=unit.heading_of("forecast"),
        frame=mark_frame([*same, *rows]),
        caption=(
            f"{capital(metric_text(metric))} of {plural(held, 'cell')} at the largest budgets, as forecast "
            "by laws that were fitted without them, against the measured value; dashed: equality. Root mean "
            f"square miss on the {common} cells that all laws forecast: {said}.{left} "
            f"Chosen: {'; '.join(f'{one.form.name}, {one.reason}' for one in found.choices.values())}."
        ),
        alt=f"{title}: miss by law: {said}.",
    )


def _forecast(draws: CellDraws, point: dict[str, Any]) -> dict[str, Any]:
    cell: Any = draws.cells.iloc[int(point["position"])]
    unit = draws.error_unit
    # A surface may be held out a cell at a compute that other cells of its family reach.
    beyond = f", {point['factor']:.3g} times beyond" if point["factor"] > 1 else ", within the fitted compute"
    return {
        "mark": "point", "series": point["law"],
        "x": unit.factor * point["measured"], "y": unit.factor * point["forecast"],
        "text": f"{configuration_text(cell)}{beyond}: {point['law']} forecast "
        f"{unit.text(point['forecast'])}, measured {unit.text(point['measured'])}",
    }  # fmt: skip
