"""A figure's data → a matplotlib figure."""

from collections.abc import Sequence
from math import ceil, floor, log10, sqrt
from textwrap import shorten, wrap

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.figure_data import FigureData
from analysis.figures.marks import draw_marks, legend_handles
from analysis.figures.style import COLUMN_IN, PAGE_IN, STYLE, looks
from budgets.quantity import format_flops

_HEIGHT_IN = 2.45
_LEGEND_MARGIN_IN = 0.1
_LEGEND_ROW_IN = 0.13
_LEGEND_HANDLE_IN = 0.37
_LETTER_IN = 0.054
_LABEL_LETTERS = 18
_SPREAD = 4.0
_DECADE = 10.0
_DECADES = 1.9
_BARS = {"planned": ("#d4d4d4", ""), "spent": ("#0072B2", ""), "wasted": ("#D55E00", "//////")}


def draw(data: FigureData) -> Figure:
    """Draws what the frame holds, in the project's style."""
    with rc_context(fname=STYLE):
        return {"curves": _curves, "categories": _categories, "bars": _bars}[data.kind](data)


def _curves(data: FigureData) -> Figure:
    panels = list(dict.fromkeys(data.frame["panel"]))
    figure = Figure(figsize=(COLUMN_IN if len(panels) == 1 else PAGE_IN, _HEIGHT_IN), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    by_series = looks(_series(data))
    for axes, panel in zip(row, panels, strict=True):
        rows = data.frame[data.frame["panel"] == panel]
        draw_marks(axes, rows, by_series)
        axes.set_xscale("log")
        _spread(axes)
        _log_ticks(axes)
        axes.set_title(panel)
        axes.set_xlabel(data.x_label)
    row[0].set_ylabel(data.y_label)
    _legend(figure, legend_handles(data.frame, looks(_series(data))))
    return figure


def _categories(data: FigureData) -> Figure:
    figure = Figure(figsize=(COLUMN_IN, _HEIGHT_IN), layout="constrained")
    axes = figure.subplots()
    by_series = looks(_series(data))
    for name, look in by_series.items():
        points = data.frame[(data.frame["series"] == name) & (data.frame["mark"] == "point")]
        axes.plot(
            points["x"], points["y"], color=look.colour, linestyle=look.dashes, linewidth=0.7, alpha=0.7
        )
    draw_marks(axes, data.frame, by_series)
    places = data.frame.drop_duplicates("x").sort_values("x")
    axes.set_xticks(places["x"], list(places["label"]))
    axes.margins(x=0.08)
    axes.set_xlabel(data.x_label)
    axes.set_ylabel(data.y_label)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    _legend(figure, legend_handles(data.frame, looks(_series(data))))
    return figure


def _bars(data: FigureData) -> Figure:
    levels = data.frame.drop_duplicates("y").sort_values("y")
    figure = Figure(figsize=(COLUMN_IN, 0.6 + 0.42 * len(levels)), layout="constrained")
    axes = figure.subplots()
    series = _series(data)
    thick = 0.8 / len(series)
    for place, name in enumerate(series):
        rows = data.frame[data.frame["series"] == name]
        colour, hatch = _BARS[name]
        at = rows["y"] + (place - (len(series) - 1) / 2) * thick
        axes.barh(
            at,
            rows["x"],
            height=thick,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.3,
            label=name,
        )
        for y, x in zip(at, rows["x"], strict=True):
            if x > 0:
                axes.annotate(
                    format_flops(x), (x, y), (2, 0), textcoords="offset points", va="center", fontsize=5.5
                )
    axes.set_yticks(levels["y"], [_wrapped(label) for label in levels["label"]])
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(data.x_label)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: "0" if value == 0 else format_flops(value)[: -len("FLOP")])
    )
    _legend(figure, list(axes.containers))
    return figure


def _wrapped(label: str) -> str:
    """A label of a few short lines; the CSV has it whole."""
    return "\n".join(wrap(shorten(label, 4 * _LABEL_LETTERS, placeholder=" …"), _LABEL_LETTERS))


def _series(data: FigureData) -> list[str]:
    return list(dict.fromkeys(data.frame.loc[data.frame["mark"] != "other", "series"]))


def _legend(figure: Figure, handles: Sequence[Line2D | Container]) -> None:
    """A legend above the axes, in as many columns as fit; the figure grows by its rows."""
    width = figure.get_figwidth() - _LEGEND_MARGIN_IN
    columns = max(
        (n for n in range(1, len(handles) + 1) if _legend_width_in(handles, n) <= width),
        default=1,
    )
    rows = ceil(len(handles) / columns)
    figure.set_figheight(figure.get_figheight() + rows * _LEGEND_ROW_IN)
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.2)


def _legend_width_in(handles: Sequence[Line2D | Container], columns: int) -> float:
    """Width of a legend whose handles fill column by column, from the usual width of a letter."""
    letters = np.array_split([len(str(handle.get_label())) for handle in handles], columns)
    longest = [int(column.max()) for column in letters]
    return sum(_LEGEND_HANDLE_IN + count * _LETTER_IN for count in longest)


def _spread(axes: Axes) -> None:
    """Widens an axis on which all lies at about one place, so that it can bear ticks."""
    low, high = axes.get_xlim()
    if high / low < _SPREAD:
        middle = sqrt(low * high)
        axes.set_xlim(middle / sqrt(_SPREAD), middle * sqrt(_SPREAD))


def _log_ticks(axes: Axes) -> None:
    """Whole decades where the axis spans two of them; otherwise 1, 2 and 5 within each, written out."""
    low, high = axes.get_xlim()
    if log10(high / low) > _DECADES:
        axes.xaxis.set_major_locator(LogLocator(numticks=8))
        axes.xaxis.set_minor_formatter(NullFormatter())
        return
    ticks = [
        factor * _DECADE**exponent
        for exponent in range(floor(log10(low)), floor(log10(high)) + 1)
        for factor in (1, 2, 5)
        if low <= factor * _DECADE**exponent <= high
    ]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    if value < 1e5:  # noqa: PLR2004 (counts up to here are written out)
        return f"{value:,.0f}"
    exponent = floor(log10(value) + 1e-9)
    factor = value / _DECADE**exponent
    power = f"10$^{{{exponent}}}$"
    return power if abs(factor - 1) < 1e-6 else f"{factor:g}·{power}"  # noqa: PLR2004
