"""The figures of what else was measured: retrieval, linear probe and few-shot, as data."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.cells.bootstrap import cell_draws
from analysis.cells.table import metrics, tidy
from analysis.charts.compute_figures import curve_rows, laws_text, slice_along
from analysis.charts.figure_data import FigureData, Missing, intervals_text, mark_frame, runs_text, said_once
from analysis.labels import held_text, metric_text
from analysis.laws.laws import Law, laws

_PANELS = 3


def over_compute_of(
    results: pd.DataFrame, *, name: str, title: str, endings: tuple[str, ...]
) -> FigureData | Missing:
    """Error by each of several metrics against compute, by architecture; one panel a metric.

    Args:
        results: In the results schema.
        name: Of the figure.
        title: Of the figure.
        endings: Which metrics: what stands behind the name of the evaluation set.
    """
    found = [] if results.empty else [one for one in metrics(results) if one.rpartition("/")[2] in endings]
    found = [one for one in found if results[one].notna().any()]
    if not found:
        return Missing(title=title, reason=f"no finished trial was measured by it: {', '.join(endings)}")
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
        held_words.append(held_text({key: value for key, value in held.items() if key != "regime"}))
        counts.append(runs_text(draws, positions))
        several.append(draws)
    return FigureData(
        name=name,
        title=title,
        kind="curves",
        x_label="training compute of one trial (FLOPs)",
        y_label="error (%)",
        frame=mark_frame(rows),
        caption=said_once(
            f"{', '.join(map(metric_text, found[:_PANELS]))} against compute, by architecture; held: "
            f"{'; '.join(dict.fromkeys(held_words))}",
            *counts,
            laws_text(fitted),
            f"Not drawn: {', '.join(map(metric_text, found[_PANELS:]))}" if found[_PANELS:] else "",
            intervals_text(several),
        ),
        alt=f"{title} against compute: {', '.join(map(metric_text, found[:_PANELS]))}.",
    )
