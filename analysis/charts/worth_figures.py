"""Data of the figures of a strategy's worth in data or compute, and of accuracy under shift."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.crossing import BASELINE
from analysis.answers.robustness import line_predictions
from analysis.cells.table import records
from analysis.charts.figure_data import FigureData, Missing, architecture_order, mark_frame
from analysis.error_unit import PERCENT
from analysis.labels import axis_text, cell_text, interval_text, x_text
from budgets.quantity import format_number, plural

_PANELS = 3
_X_LABELS = {"compute": "training compute of one trial (FLOPs)", "data": "unique image-text pairs"}


def equivalence(table: pd.DataFrame, *, along: str) -> FigureData | Missing:
    """Return the figure of each strategy's worth in data or compute against plain CLIP, at each x."""
    title = f"What a strategy is worth in {along}"
    plain = axis_text("strategy", BASELINE)
    rows = table
    if len(table):
        rows = table[(table["along"] == along) & (table["axis"] == "strategy") & (table["other"] == plain)]
    if rows.empty:
        reason = f"no strategy and plain CLIP both have a curve along {along}"
        return Missing(title=title, reason=reason)
    # A ratio beyond the measured range of CLIP is a bound, which the table has.
    rows = rows[(rows["factor"] > 0) & np.isfinite(rows["factor"])]
    if rows.empty:
        return Missing(title=title, reason="every ratio lies beyond the measured range of plain CLIP")
    decided = (rows["verdict"] != "undecided").groupby(rows["held"]).agg(["size", "sum"])
    panel = str(decided.sort_values(["size", "sum"], ascending=False, kind="stable").index[0])
    mine = rows[rows["held"] == panel].sort_values(["option", "x"])
    ends = (float(mine["x"].min()), float(mine["x"].max()))
    line = [{"mark": "reference", "line": "one", "y": 1.0, "x": end} for end in ends]
    points = [_ratio(row) for row in records(mine)]
    sure = mine[mine["verdict"] != "undecided"]
    finding = f"No strategy is decidedly worth more or less {along} than plain CLIP."
    if len(sure):
        far = records(sure.loc[[np.log(sure["factor"]).abs().idxmax()]])[0]
        finding = (
            f"{far['option']} is worth {format_number(far['factor'], '.2g')} times the {along} of plain CLIP "
            f"{interval_text(far['factor_low'], far['factor_high'], '.2g')} at {x_text(along, far['x'])}."
        )
    return FigureData(
        name=f"equivalence-{along}",
        title=title,
        x_label=_X_LABELS[along],
        y_label=f"times the {along} of plain CLIP",
        y_scale="log",
        frame=mark_frame([*line, *points]),
        finding=finding,
        caption=f"The {along} that plain CLIP needs for the error that a strategy has at x, as a multiple of "
        f"x ({panel}); hollow: undecided which has the lower error at x.",
        by="strategy",
    )


def _ratio(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "mark": "undecided" if row["verdict"] == "undecided" else "point", "series": row["option"],
        "x": row["x"], "y": row["factor"], "low": np.clip(row["factor_low"], row["lowest"], row["highest"]),
        "high": np.clip(row["factor_high"], row["lowest"], row["highest"]),
        "text": f"{row['option']} at {x_text(row['along'], row['x'])}: "
        f"{format_number(row['factor'], '.2f')} times, {row['verdict']}",
    }  # fmt: skip


def shift(results: pd.DataFrame, *, metric: str) -> FigureData | Missing:
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
        on_set = cells[cells["shifted_set"] == name].sort_values("plain")
        fixed = {"panel": name, "mark": "reference", "line": name}
        rows += [fixed | {"x": 100 * row["plain"], "y": 100 * row["predicted"]} for row in records(on_set)]
        ends = (100 * on_set["plain"].min(), 100 * on_set["plain"].max())
        rows += [
            {"panel": name, "mark": "reference", "line": f"{name}: equal", "x": end, "y": end} for end in ends
        ]
        for row in records(on_set.sort_values(["strategy", "architecture"], kind="stable")):
            axis = "architecture" if row["strategy"] == BASELINE else "strategy"
            rows.append({
                "panel": name, "mark": "point", "series": axis_text(axis, row[axis]), "x": 100 * row["plain"],
                "y": 100 * row["shifted"],
                "text": f"{cell_text(row)}: "
                f"{PERCENT.text(row['shifted'])} on {name}, {PERCENT.text(row['plain'])} on {plain}, "
                f"{format_number(100 * (row['shifted'] - row['predicted']), '+.1f')} points from the line",
            })  # fmt: skip
    return FigureData(
        name="shift",
        title=title,
        x_scale="logit",
        y_scale="logit",
        x_label=f"zero-shot top-1 on {plain} (%)",
        y_label="zero-shot top-1 on the shifted set (%)",
        frame=mark_frame(rows),
        finding=_line_finding(cells[cells["shifted_set"] == names[0]]),
        caption=f"Zero-shot top-1 of {plural(len(cells), 'cell')} on shifted images against that on {plain}, "
        "plain CLIP by architecture, others by strategy; dashed: the line through plain CLIP, and equality.",
        by="strategy",
        order=architecture_order(results),
    )


def _line_finding(cells: pd.DataFrame) -> str:
    """Return how far cells of other strategies lie from the line of plain CLIP on average."""
    others = cells[cells["strategy"] != BASELINE]
    apart = 100 * (others["shifted"] - others["predicted"]).groupby(others["strategy"]).mean()
    if apart.empty:
        return ""
    name = str(apart.abs().idxmax())
    return (
        f"{axis_text('strategy', name)} lies farthest from the line of plain CLIP, by "
        f"{format_number(apart[name], '+.1f')} points on {cells['shifted_set'].iloc[0]} on average."
    )
