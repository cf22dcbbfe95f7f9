"""The figures of what else was measured: retrieval, linear probe and few-shot, as data."""

import pandas as pd

from analysis.bootstrap import cell_draws
from analysis.compute_figures import over_compute, slice_along
from analysis.figure_data import FigureData, Missing
from analysis.labels import metric_text
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
    panels = [_panel(results, one) for one in found[:_PANELS]]
    drawn = [data for data in panels if data is not None]
    if not drawn:
        return Missing(title=title, reason=f"no finished trial was measured by it: {', '.join(endings)}")
    left = f" Not drawn: {', '.join(map(metric_text, found[_PANELS:]))}." if len(found) > _PANELS else ""
    captions = dict.fromkeys(data.caption for data in drawn)
    return FigureData(
        name=name,
        title=title,
        kind="curves",
        x_label=drawn[0].x_label,
        y_label="error (%)",
        frame=pd.concat([data.frame for data in drawn], ignore_index=True),
        caption=" ".join(captions) + left,
        alt=f"{title}. " + " ".join(data.alt for data in drawn),
    )


def _panel(results: pd.DataFrame, metric: str) -> FigureData | None:
    whole = cell_draws(tidy(results, metric=metric), question=f"figure/{metric}")
    _, positions = slice_along(whole, "architecture")
    draws = whole.take(positions)
    data = over_compute(draws, laws(draws, along="compute"), axis="architecture", metric=metric)
    if isinstance(data, Missing):
        return None
    # The best of a slice is not the best of all.
    kept = ~data.frame["mark"].isin(["best", "best, not clear"])
    return FigureData(
        name=data.name, title=data.title, kind=data.kind, x_label=data.x_label, y_label=data.y_label,
        frame=data.frame[kept].assign(panel=metric_text(metric)),
        caption=data.caption, alt=data.alt,
    )  # fmt: skip
