"""Figures of bars and of named rows: bars with intervals, the cells of a plan."""

from math import isfinite

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from analysis.cells.table import records
from analysis.charts.figure_data import GROUP_WIDTH, FigureData
from analysis.drawing.marks import STAR, STAR_FACES, legend_handles, name_series
from analysis.drawing.panels import broken, legend, panels
from analysis.drawing.style import INK, PAGE_IN, looks

_LUMINANCE, _DARK = (0.2126, 0.7152, 0.0722), 0.45
_NUMBER_IN, _ABOVE_IN, _ROW_IN = 0.13, 0.07, 0.17
_MARGIN = 0.7
"""Margin of a panel, in widths of a group of bars."""
_STATES = {
    "finished": ("#555555", "", "white"),
    "partly finished": ("#bbbbbb", "", "black"),
    "not run": ("#ffffff", "", "black"),
    "without a result": ("#ffffff", "xxxx", "black"),
    "left out": ("#eeeeee", "////", "black"),
}


def columns(data: FigureData) -> Figure:
    """Draw vertical bars from zero with intervals, stars above, and numbers if these fit."""
    figure, by_panel = panels(data)
    by_series = looks(data)
    width = GROUP_WIDTH / len(by_series)
    for axes, rows in by_panel:
        bars = rows[rows["mark"] == "column"]
        middle = bars.groupby("label", sort=False)["x"].mean()
        numbered = width * figure.get_figwidth() / len(by_panel) / (len(middle) + _MARGIN) >= _NUMBER_IN
        for number, (series, look) in enumerate(by_series.items()):
            mine, before = bars[bars["series"] == series], set(axes.get_children())
            axes.bar(
                mine["x"],
                mine["y"],
                width=width,
                color=look.colour,
                edgecolor="white",
                linewidth=0.4,
                zorder=2,
            )
            dark = np.dot(to_rgb(look.colour), _LUMINANCE) < _DARK
            ink, form = "white" if dark else INK, ".1f" if "%" in data.y_label else ".4g"
            for x, y in zip(mine["x"], mine["y"], strict=True) if numbered else ():
                axes.annotate(
                    f"{y:{form}}", (x, 0), (0, 3), textcoords="offset points", rotation=90, ha="center",
                    va="bottom", fontsize=5.5, color=ink, zorder=3,
                )  # fmt: skip
            name_series(axes, before, number)
        for colour, linewidth in (("white", 2.0), (INK, 0.8)):  # seen on any bar
            axes.vlines(bars["x"], bars["low"], bars["high"], color=colour, linewidth=linewidth, zorder=4)
        # A star lies above the interval, where it hides nothing.
        above = axes.transData + ScaledTranslation(0, _ABOVE_IN, figure.dpi_scale_trans)
        for star in records(rows[rows["mark"] != "column"]):
            top = star["high"] if isfinite(star["high"]) else star["y"]
            face = {"markerfacecolor": STAR_FACES[star["mark"]], "clip_on": False, "zorder": 5}
            axes.plot([star["x"]], [top], transform=above, **STAR | face)
        axes.set_xticks(middle, [broken(str(label)) for label in middle.index])
        axes.tick_params(axis="x", length=0)
        axes.margins(x=0.03, y=0.1)
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(6))
    by_panel[0][0].set_ylim(bottom=0)  # all panels share the axis; all bars are drawn by now
    legend(figure, legend_handles(data.frame, by_series))
    return figure


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
    seen = set(data.frame["series"])
    states = [(name, colour, hatch) for name, (colour, hatch, _) in _STATES.items() if name in seen]
    legend(figure, [Patch(facecolor=c, hatch=h, edgecolor="#8a8a8a", label=name) for name, c, h in states])
    return figure
