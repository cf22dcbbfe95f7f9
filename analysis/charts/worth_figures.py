"""Data of the figures of a strategy's worth in data or compute, and of accuracy under shift."""

from math import inf
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.crossing import BASELINE
from analysis.answers.robustness import line_predictions
from analysis.belief.cell_draws import CellDraws
from analysis.cells.table import records
from analysis.charts.figure_data import FigureData, Missing, mark_frame, said_once
from analysis.error_unit import PERCENT
from analysis.labels import axis_text, budget_text, configuration_text, count_text
from budgets.quantity import format_flops, plural

_PANELS = 3
_X_LABELS = {"compute": "training compute of one trial (FLOPs)", "data": "unique image-text pairs"}


def equivalence(draws: CellDraws, table: pd.DataFrame, *, along: str) -> FigureData | Missing:
    """Return the figure of each strategy's worth in data or compute against plain CLIP, at each x."""
    title = f"What a strategy is worth in {along}"
    plain = axis_text("strategy", BASELINE)
    here = table
    if len(table):
        here = table[(table["along"] == along) & (table["axis"] == "strategy") & (table["other"] == plain)]
    if here.empty:
        reason = f"no strategy and plain CLIP both have a curve along {along}"
        return Missing(title=title, reason=reason)
    # Between panels of equal length, those with more decided points come first.
    decided = (here["verdict"] != "undecided").groupby(here["held"]).agg(["size", "sum"])
    panels = decided.sort_values(["size", "sum"], ascending=False, kind="stable").index[:_PANELS]
    rows: list[dict[str, Any]] = []
    for panel in panels:
        mine = here[here["held"] == panel]
        fixed = {"panel": str(panel)}
        ends = (float(mine["x"].min()), float(mine["x"].max()))
        rows += [fixed | {"mark": "reference", "line": "one", "y": 1.0, "x": end} for end in ends]
        ratios = map(_ratio, records(mine.sort_values(["option", "x"])))
        rows += [fixed | mark for marks in ratios for mark in marks]
    left = here["held"].nunique() - len(panels)
    return FigureData(
        name=f"equivalence-{along}",
        title=title,
        x_label=_X_LABELS[along],
        y_label=f"times the {along} of plain CLIP",
        y_scale="log",
        frame=mark_frame(rows),
        caption=said_once(
            "each strategy at x has the error that plain CLIP has at this multiple of x; above 1 the "
            "strategy is worth more",
            "Hollow: undecided which has the lower error at x",
            "Arrows: the ratio is there or beyond, at the end of the measured range of CLIP",
            f"Not drawn, in the table: {plural(left, 'further panel')}" if left else "",
            draws.explanation,
        ),
        alt=f"{title}: " + "; ".join(row["text"] for row in rows if row.get("text")) + ".",
    )


def _ratio(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the point of a ratio, and its arrow if it is a bound."""
    lowest, highest = row["lowest"], row["highest"]
    ratio = float(np.clip(row["factor"], lowest, highest))
    sign, arrow = {0.0: ("at most ", "↓"), inf: ("at least ", "↑")}.get(float(row["factor"]), ("", ""))
    at = format_flops(row["x"]) if row["along"] == "compute" else f"{count_text(row['x'])} pairs"
    here = {"series": row["option"], "x": row["x"], "y": ratio}
    point = here | {
        "mark": "undecided" if row["verdict"] == "undecided" else "point",
        "low": np.clip(row["factor_low"], lowest, highest),
        "high": np.clip(row["factor_high"], lowest, highest),
        "text": f"{row['option']} at {at}: {sign}{ratio:.2f} times, {row['verdict']}",
    }
    return [point, here | {"mark": "bound", "label": arrow}] if arrow else [point]


def shift(results: pd.DataFrame, *, metric: str, draws: CellDraws) -> FigureData | Missing:
    """Return the figure of accuracy on shifted against plain images, with the line of plain CLIP."""
    title = "Accuracy under shift against plain accuracy"
    cells = line_predictions(results, metric=metric)
    if cells.empty:
        reason = "fewer than four plain CLIP cells also have zero-shot top-1 on a shifted set"
        return Missing(title=title, reason=reason)
    plain = metric.rpartition("/")[0]
    names = list(dict.fromkeys(cells["shifted_set"]))
    rows: list[dict[str, Any]] = []
    for name in names[:_PANELS]:
        here = cells[cells["shifted_set"] == name].sort_values("plain")
        fixed = {"panel": name, "mark": "reference", "line": name}
        rows += [fixed | {"x": 100 * row["plain"], "y": 100 * row["predicted"]} for row in records(here)]
        ends = (100 * here["plain"].min(), 100 * here["plain"].max())
        rows += [
            {"panel": name, "mark": "reference", "line": f"{name}: equal", "x": end, "y": end} for end in ends
        ]
        for row in records(here.sort_values(["strategy", "architecture"], kind="stable")):
            axis = "architecture" if row["strategy"] == BASELINE else "strategy"
            rows.append({
                "panel": name, "mark": "point", "series": axis_text(axis, row[axis]), "x": 100 * row["plain"],
                "y": 100 * row["shifted"],
                "text": f"{configuration_text(row)}, {budget_text(row['regime'], row['budget'])}: "
                f"{PERCENT.text(row['shifted'])} on {name}, {PERCENT.text(row['plain'])} on {plain}, "
                f"{100 * (row['shifted'] - row['predicted']):+.1f} points from the line",
            })  # fmt: skip
    left = len(names) - _PANELS
    return FigureData(
        name="shift",
        title=title,
        x_scale="logit",
        y_scale="logit",
        x_label=f"zero-shot top-1 on {plain} (%)",
        y_label="zero-shot top-1 on the shifted set (%)",
        frame=mark_frame(rows),
        caption=said_once(
            f"zero-shot top-1 of every cell on shifted images against that on {plain}; "
            f"{plural(int((cells['shifted_set'] == names[0]).sum()), 'cell')}, means of their runs",
            "By architecture: plain CLIP; by strategy: all architectures",
            "Both axes are logit scales; dashed: the line through the plain CLIP cells, and y = x",
            "The table has the intervals of the distances from it" if draws.source == "runs" else "",
            f"Not drawn, in the table: {plural(left, 'further set')}" if left > 0 else "",
            draws.explanation,
        ),
        alt=f"{title}: {', '.join(names[:_PANELS])}, {plural(len(cells), 'cell')}.",
    )
