"""Drawing of a figure's data with matplotlib."""

from dataclasses import replace

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from analysis.cells.table import records
from analysis.charts.figure_data import FigureData
from analysis.drawing.marks import draw_marks, legend_handles
from analysis.drawing.panels import lay_out, legend, panels, styled
from analysis.drawing.places import dodged, ends_are_named, label_points, name_ends
from analysis.drawing.style import PAGE_IN, looks
from analysis.drawing.ticks import set_scales, set_ticks

_ROW_IN = 0.17
_STATES = {
    "finished": ("#555555", "", "white"),
    "partly finished": ("#bbbbbb", "", "black"),
    "not run": ("#ffffff", "", "black"),
    "without a result": ("#ffffff", "xxxx", "black"),
    "left out": ("#eeeeee", "////", "black"),
}


def draw(data: FigureData) -> Figure:
    """Draw the marks of a figure in the style of the project."""
    with styled():
        return {"curves": _curves, "grid": _grid}[data.kind](data)


def _curves(data: FigureData) -> Figure:
    figure, by_panel = panels(replace(data, frame=dodged(data)))
    by_series = looks(data)
    for axes, rows in by_panel:
        draw_marks(axes, rows, by_series)
        set_scales(axes, data)
    named = ends_are_named(data, by_series)
    legend(figure, legend_handles(data.frame, {} if named else by_series))
    # What lies beside the axes is placed by their height, then what lies below them by their width.
    lay_out(figure)
    if named:
        name_ends(*by_panel[0], by_series)
    for axes, rows in by_panel:
        set_ticks(axes.yaxis, data, rows)
    lay_out(figure)
    for axes, rows in by_panel:
        set_ticks(axes.xaxis, data, data.frame.loc[rows.index])  # not moved apart
    if data.frame.loc[data.frame["mark"].str.startswith("best"), "label"].any():
        lay_out(figure)
        for axes, rows in by_panel:
            label_points(axes, rows)
    return figure


def _grid(data: FigureData) -> Figure:
    """Draw cells by row and column, each with its finished trials (``low``) of all trials (``high``)."""
    rows = data.frame.drop_duplicates("y").sort_values("y")
    columns = data.frame.drop_duplicates("x").sort_values("x")
    figure = Figure(figsize=(PAGE_IN, 0.55 + _ROW_IN * len(rows)), layout="constrained")
    axes = figure.subplots()
    for cell in records(data.frame):
        colour, hatch, ink = _STATES[cell["series"]]
        axes.add_patch(
            Rectangle(
                (cell["x"] - 0.46, cell["y"] - 0.42), 0.92, 0.84,
                facecolor=colour, hatch=hatch, edgecolor="#8a8a8a", linewidth=0.4,
            )
        )  # fmt: skip
        if cell["series"] != "left out":
            axes.annotate(
                f"{cell['low']:.0f}/{cell['high']:.0f}", (cell["x"], cell["y"]),
                ha="center", va="center", fontsize=5.5, color=ink,
                bbox={"boxstyle": "square,pad=0.15", "facecolor": colour, "edgecolor": "none"},
            )  # fmt: skip
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(columns["x"], list(columns["line"]))
    axes.set_yticks(rows["y"], list(rows["label"]))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_xlabel(data.x_label)
    seen = set(data.frame["series"])
    states = [(name, colour, hatch) for name, (colour, hatch, _) in _STATES.items() if name in seen]
    legend(figure, [Patch(facecolor=c, hatch=h, edgecolor="#8a8a8a", label=name) for name, c, h in states])
    return figure
