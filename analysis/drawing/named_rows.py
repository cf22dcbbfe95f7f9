"""Figures with named rows: the cells of a plan, and the attempts in each slot."""

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from analysis.cells.table import records
from analysis.charts.figure_data import FigureData
from analysis.drawing.legend import legend
from analysis.drawing.style import PAGE_IN, fills

_ROW_IN = 0.17
_STATES = {
    "finished": ("#0072B2", "", "white"),
    "partly finished": ("#a9d3ee", "", "black"),
    "not run": ("#ffffff", "", "black"),
    "without a result": ("#f3c4a5", "xxxx", "black"),
    "left out": ("#e6e6e6", "////", "black"),
}
_LOST = "///////"
_EDGE = "#444444"


def grid(data: FigureData) -> Figure:
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
    seen = [name for name in _STATES if name in set(data.frame["series"])]
    legend(
        figure,
        [
            Patch(facecolor=_STATES[name][0], hatch=_STATES[name][1], edgecolor="#8a8a8a", label=name)
            for name in seen
        ],
    )
    return figure


def spans(data: FigureData) -> Figure:
    """Draw bars from ``low`` to x in each row y; attempts without a result are hatched."""
    rows = data.frame.drop_duplicates("y").sort_values("y")
    by_series = fills(list(dict.fromkeys(data.frame["series"])))
    figure = Figure(figsize=(PAGE_IN, 0.7 + 1.4 * _ROW_IN * len(rows)), layout="constrained")
    axes = figure.subplots()
    handles = []
    for name, look in by_series.items():
        mine = data.frame[data.frame["series"] == name]
        for lost, part in mine.groupby("line"):
            axes.barh(
                part["y"], part["x"] - part["low"], left=part["low"], height=0.8, color=look.colour,
                edgecolor=_EDGE, linewidth=0.15, hatch=_LOST if lost == "lost" else "",
            )  # fmt: skip
        handles.append(Patch(facecolor=look.colour, edgecolor=_EDGE, linewidth=0.3, label=name))
    if "lost" in set(data.frame["line"]):
        handles.append(
            Patch(facecolor="white", hatch=_LOST, edgecolor=_EDGE, linewidth=0.3, label="no result")
        )
    axes.set_yticks(rows["y"], list(rows["label"]))
    axes.set_ylim(float(rows["y"].max()) + 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(data.x_label)
    legend(figure, handles)
    return figure
