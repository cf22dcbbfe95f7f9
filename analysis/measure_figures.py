"""The figures of what else was measured: retrieval, linear probe and few-shot, as data."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.bootstrap import cell_draws
from analysis.compute_figures import curve_rows, laws_text, slice_along
from analysis.contrasts import held_text
from analysis.figure_data import FigureData, Missing, mark_frame, runs_text
from analysis.labels import capital, metric_text
from analysis.laws import laws
from analysis.table import metrics, tidy

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
    drawn = [_panel(results, one) for one in found[:_PANELS]]
    if not drawn:
        return Missing(title=title, reason=f"no finished trial was measured by it: {', '.join(endings)}")
    left = f" Not drawn: {', '.join(map(metric_text, found[_PANELS:]))}." if len(found) > _PANELS else ""
    return FigureData(
        name=name,
        title=title,
        kind="curves",
        x_label="training compute of one trial (FLOPs)",
        y_label="error (%)",
        frame=mark_frame(row for panel in drawn for row in panel.rows),
        caption=" ".join(panel.caption for panel in drawn) + left,
        alt=f"{title} against compute: {', '.join(map(metric_text, found[:_PANELS]))}.",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Panel:
    rows: list[dict[str, Any]]
    caption: str


def _panel(results: pd.DataFrame, metric: str) -> _Panel:
    draws = cell_draws(tidy(results, metric=metric), question=f"figure/{metric}")
    held, positions = slice_along(draws, "architecture")
    cut = draws.take(positions)
    fitted = laws(cut, along="compute")
    panel = metric_text(metric)
    rows = curve_rows(cut, fitted, np.arange(len(positions)), axis="architecture", x="train_flops")
    what = held_text({name: value for name, value in held.items() if name != "regime"})
    return _Panel(
        rows=[row | {"panel": panel} for row in rows],
        caption=(
            f"{capital(panel)} by architecture; held: {what}; {runs_text(draws, positions)}. "
            f"{laws_text(fitted)} {capital(draws.explanation)}."
        ),
    )
