"""A figure's data → a matplotlib figure."""

from math import floor, log10, sqrt

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.figure_data import FigureData
from analysis.figures.legend import legend, wrapped
from analysis.figures.marks import draw_marks, legend_handles
from analysis.figures.rows import grid, spans
from analysis.figures.style import COLUMN_IN, PAGE_IN, STYLE, looks
from budgets.quantity import format_flops

_HEIGHT_IN = 2.45
_SPREAD = 4.0
_DECADE = 10.0
_DECADES = 1.9
_BARS = {"planned": ("#d4d4d4", ""), "spent": ("#0072B2", ""), "wasted": ("#D55E00", "//////")}


def draw(data: FigureData) -> Figure:
    """Draws what the frame holds, in the project's style."""
    with rc_context(fname=STYLE):
        kinds = {"curves": _curves, "categories": _categories, "bars": _bars, "grid": grid, "spans": spans}
        return kinds[data.kind](data)


def _curves(data: FigureData) -> Figure:
    panels = list(dict.fromkeys(data.frame["panel"]))
    figure = Figure(figsize=(COLUMN_IN if len(panels) == 1 else PAGE_IN, _HEIGHT_IN), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    by_series = looks(_series(data))
    for axes, panel in zip(row, panels, strict=True):
        rows = data.frame[data.frame["panel"] == panel]
        draw_marks(axes, rows, by_series)
        if data.x_scale == "log":
            axes.set_xscale("log")
            _spread(axes)
            _log_ticks(axes)
        axes.set_yscale(data.y_scale)
        if data.y_scale == "log":
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(panel)
        axes.set_xlabel(data.x_label)
    row[0].set_ylabel(data.y_label)
    legend(figure, legend_handles(data.frame, looks(_series(data))))
    return figure


def _categories(data: FigureData) -> Figure:
    panels = list(dict.fromkeys(data.frame["panel"]))
    figure = Figure(figsize=(COLUMN_IN if len(panels) == 1 else PAGE_IN, _HEIGHT_IN), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    by_series = looks(_series(data))
    places = data.frame.drop_duplicates("x").sort_values("x")
    for axes, panel in zip(row, panels, strict=True):
        rows = data.frame[data.frame["panel"] == panel]
        for name, look in by_series.items():
            points = rows[(rows["series"] == name) & (rows["mark"] == "point")]
            axes.plot(
                points["x"], points["y"], color=look.colour, linestyle=look.dashes, linewidth=0.7, alpha=0.7
            )
        draw_marks(axes, rows, by_series)
        axes.set_xticks(places["x"], list(places["label"]))
        axes.margins(x=0.08)
        axes.set_title(panel)
        axes.set_xlabel(data.x_label)
        axes.yaxis.set_major_locator(MaxNLocator(6))
    row[0].set_ylabel(data.y_label)
    legend(figure, legend_handles(data.frame, by_series))
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
    axes.set_yticks(levels["y"], [wrapped(label) for label in levels["label"]])
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


def _series(data: FigureData) -> list[str]:
    context = data.frame["mark"].isin(["other", "reference"])
    return list(dict.fromkeys(data.frame.loc[~context, "series"]))


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
    if 1 <= value < 1e5:  # noqa: PLR2004 (counts up to here are written out)
        return f"{value:,.0f}"
    exponent = floor(log10(value) + 1e-9)
    factor = value / _DECADE**exponent
    power = f"10$^{{{exponent}}}$"
    return power if abs(factor - 1) < 1e-6 else f"{factor:g}·{power}"  # noqa: PLR2004
