"""Data of the figures of other metrics: retrieval, linear probe and few-shot."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.cells.bootstrap import cell_draws
from analysis.cells.table import metrics, tidy
from analysis.charts.compute_figures import curve_rows, laws_text, slice_along
from analysis.charts.figure_data import (
    FigureData,
    Missing,
    error_label,
    intervals_text,
    mark_frame,
    runs_text,
    said_once,
)  # fmt: skip
from analysis.labels import held_text, metric_text
from analysis.laws.laws import Law, laws

_PANELS = 3


def over_compute_of(
    results: pd.DataFrame, *, name: str, title: str, endings: tuple[str, ...]
) -> FigureData | Missing:
    """Return the figure of error by several metrics against compute, one panel per metric.

    Args:
        results: Results in the results schema.
        name: Name of the figure.
        title: Title of the figure.
        endings: Metrics, without the name of the evaluation set.
    """
    found = [] if results.empty else [one for one in metrics(results) if one.rpartition("/")[2] in endings]
    found = [one for one in found if results[one].notna().any()]
    if not found:
        return Missing(title=title, reason=f"no finished trial has any of the metrics {', '.join(endings)}")
    rows: list[dict[str, Any]] = []
    fitted: list[Law] = []
    held_words, counts, several = [], [], []
    for metric in found[:_PANELS]:
        draws = cell_draws(tidy(results, metric=metric), question=f"figure/{metric}")
        held, positions = slice_along(draws, "architecture")
        cut = draws.take(positions)
        mine = laws(cut, along="compute")
        every = np.arange(len(positions))
        marks = curve_rows(cut, mine, every, axis="architecture", x="train_flops")
        rows += [mark | {"panel": metric_text(metric)} for mark in marks]
        fitted += mine
        held_words.append(held_text(held))
        counts.append(runs_text(draws, positions))
        several.append(draws)
    return FigureData(
        name=name,
        title=title,
        x_label="training compute of one trial (FLOPs)",
        y_label=error_label(*found[:_PANELS]),
        frame=mark_frame(rows),
        caption=said_once(
            f"{', '.join(map(metric_text, found[:_PANELS]))} against compute, by architecture. Fixed: "
            f"{'; '.join(dict.fromkeys(held_words))}",
            *counts,
            laws_text(fitted, several[0].error_unit),
            f"Not drawn: {', '.join(map(metric_text, found[_PANELS:]))}" if found[_PANELS:] else "",
            intervals_text(several),
        ),
        alt=f"{title} against compute: {', '.join(map(metric_text, found[:_PANELS]))}.",
    )
