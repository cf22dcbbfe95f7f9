"""Bar figures: vertical bars with intervals in groups, and horizontal bars of FLOPs."""

from math import isfinite

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation
from pandas import DataFrame

from analysis.cells.table import records
from analysis.charts.figure_data import GROUP_WIDTH, FigureData
from analysis.drawing.drawable_text import wrapped
from analysis.drawing.legend import legend
from analysis.drawing.marks import STAR_FACES, name_series, star_handles
from analysis.drawing.panels import panels
from analysis.drawing.style import COLUMN_IN, STAR, fills
from budgets.quantity import format_flops

_FLOPS = {"planned": ("#d4d4d4", ""), "spent": ("#0072B2", ""), "wasted": ("#D55E00", "//////")}
_INK = "#222222"
_NUMBER_IN = 0.13
_ABOVE_IN = 0.07
_MARGIN = 0.7
"""Margin of a panel, in widths of a group of bars."""


def columns(data: FigureData) -> Figure:
    """Draw vertical bars from zero with intervals, stars above, and numbers if these fit."""
    figure, by_panel = panels(data)
    looks = fills(list(dict.fromkeys(data.frame["series"])))
    width = GROUP_WIDTH / len(looks)
    for axes, rows in by_panel:
        bars = rows[rows["mark"] == "column"]
        groups = bars["label"].nunique()
        numbered = width * figure.get_figwidth() / len(by_panel) / (groups + _MARGIN) >= _NUMBER_IN
        for series, mine in bars.groupby("series", sort=False):
            look, before = looks[str(series)], set(axes.get_children())
            axes.bar(
                mine["x"], mine["y"], width=width, color=look.colour, hatch=look.hatch, edgecolor=_INK,
                linewidth=0.4, zorder=2,
            )  # fmt: skip
            if numbered:
                _numbers(axes, mine, look.colour, ".1f" if "%" in data.y_label else ".4g")
            name_series(axes, before, list(looks).index(str(series)))
        axes.vlines(bars["x"], bars["low"], bars["high"], color=_INK, linewidth=0.8, zorder=4)
        for star in records(rows[rows["mark"] != "column"]):
            _star(axes, star["x"], star["high"] if isfinite(star["high"]) else star["y"], star["mark"])
        middle = bars.groupby("label", sort=False)["x"].mean()
        axes.set_xticks(middle, [wrapped(str(label)) for label in middle.index])
        axes.tick_params(axis="x", length=0)
        axes.margins(x=0.03, y=0.1)
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(6))
    by_panel[0][0].set_ylim(bottom=0)  # all panels share the axis; all bars are drawn by now
    handles = [
        Patch(facecolor=look.colour, hatch=look.hatch, edgecolor=_INK, linewidth=0.4, label=name)
        for name, look in looks.items()
    ]
    legend(figure, [*handles, *star_handles(set(data.frame["mark"]), not_clear="may be lowest")])
    return figure


def _numbers(axes: Axes, bars: DataFrame, colour: str, form: str) -> None:
    for x, y in zip(bars["x"], bars["y"], strict=True):
        axes.annotate(
            f"{y:{form}}", (x, 0), (0, 3), textcoords="offset points", rotation=90,
            ha="center", va="bottom", fontsize=5.5, color=_INK, zorder=3,
            bbox={"boxstyle": "square,pad=0.3", "facecolor": colour, "edgecolor": "none"},
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
