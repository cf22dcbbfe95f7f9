"""Figures of bars and of named rows: bars with intervals, FLOPs, the cells of a plan."""

from math import isfinite

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation
from pandas import DataFrame

from analysis.cells.table import records
from analysis.charts.figure_data import GROUP_WIDTH, FigureData
from analysis.drawing.marks import STAR, STAR_FACES, name_series, star_handles
from analysis.drawing.panels import legend, panels, wrapped
from analysis.drawing.style import COLUMN_IN, GREY, INK, PAGE_IN, looks
from budgets.quantity import format_flops

_FLOPS = {"planned": ("#d4d4d4", ""), "spent": (GREY, ""), "wasted": ("white", "//////")}
_LUMINANCE, _DARK = (0.2126, 0.7152, 0.0722), 0.45
_NUMBER_IN = 0.13
_ABOVE_IN = 0.07
_MARGIN = 0.7
"""Margin of a panel, in widths of a group of bars."""
_ROW_IN = 0.17
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
    colours = {name: look.colour for name, look in looks(data).items()}
    width = GROUP_WIDTH / len(colours)
    for axes, rows in by_panel:
        bars = rows[rows["mark"] == "column"]
        groups = bars["label"].nunique()
        numbered = width * figure.get_figwidth() / len(by_panel) / (groups + _MARGIN) >= _NUMBER_IN
        for series, mine in bars.groupby("series", sort=False):
            colour, before = colours[str(series)], set(axes.get_children())
            axes.bar(
                mine["x"], mine["y"], width=width, color=colour, edgecolor="white", linewidth=0.4, zorder=2
            )
            if numbered:
                _numbers(axes, mine, colour, ".1f" if "%" in data.y_label else ".4g")
            name_series(axes, before, list(colours).index(str(series)))
        for colour, linewidth in (("white", 2.0), (INK, 0.8)):  # seen on any bar
            axes.vlines(bars["x"], bars["low"], bars["high"], color=colour, linewidth=linewidth, zorder=4)
        for star in records(rows[rows["mark"] != "column"]):
            _star(axes, star["x"], star["high"] if isfinite(star["high"]) else star["y"], star["mark"])
        middle = bars.groupby("label", sort=False)["x"].mean()
        axes.set_xticks(middle, [wrapped(str(label)) for label in middle.index])
        axes.tick_params(axis="x", length=0)
        axes.margins(x=0.03, y=0.1)
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(6))
    by_panel[0][0].set_ylim(bottom=0)  # all panels share the axis; all bars are drawn by now
    handles = [Patch(facecolor=colour, label=name) for name, colour in colours.items()]
    legend(figure, [*handles, *star_handles(set(data.frame["mark"]), not_clear="may be lowest")])
    return figure


def _numbers(axes: Axes, bars: DataFrame, colour: str, form: str) -> None:
    ink = "white" if np.dot(to_rgb(colour), _LUMINANCE) < _DARK else INK
    for x, y in zip(bars["x"], bars["y"], strict=True):
        axes.annotate(
            f"{y:{form}}", (x, 0), (0, 3), textcoords="offset points", rotation=90, ha="center", va="bottom",
            fontsize=5.5, color=ink, zorder=3,
        )  # fmt: skip


def _star(axes: Axes, x: float, top: float, mark: str) -> None:
    """Draw a star above the upper end of the interval, where it hides nothing."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes are drawn in a figure"
    above = axes.transData + ScaledTranslation(0, _ABOVE_IN, figure.dpi_scale_trans)
    axes.plot([x], [top], transform=above, markerfacecolor=STAR_FACES[mark], clip_on=False, zorder=5, **STAR)


def flops(data: FigureData) -> Figure:
    """Draw horizontal bars of FLOPs, planned above spent."""
    levels = data.frame.groupby("label", sort=False)["y"].mean()
    figure = Figure(figsize=(COLUMN_IN, 0.6 + 0.42 * len(levels)), layout="constrained")
    axes = figure.subplots()
    thick = GROUP_WIDTH / data.frame["series"].nunique()
    for name, rows in data.frame.groupby("series", sort=False):
        colour, hatch = _FLOPS[str(name)]
        axes.barh(
            rows["y"], rows["x"], height=thick, color=colour, hatch=hatch, edgecolor="white", linewidth=0.3,
            label=name,
        )  # fmt: skip
        for y, x in zip(rows["y"], rows["x"], strict=True):
            if x > 0:
                axes.annotate(
                    format_flops(x), (x, y), (2, 0), textcoords="offset points", va="center", fontsize=5.5
                )
    axes.set_yticks(levels, [wrapped(str(label)) for label in levels.index])
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(data.x_label)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: "0" if value == 0 else format_flops(value)[: -len("FLOP")])
    )
    legend(figure, list(axes.containers))
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
