"""Drawing of a figure's data with matplotlib."""

from math import floor, log10, sqrt

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from analysis.charts.figure_data import FigureData
from analysis.drawing.bars import columns, flops
from analysis.drawing.legend import legend
from analysis.drawing.marks import draw_marks, legend_handles
from analysis.drawing.panels import panels
from analysis.drawing.rows import grid, spans
from analysis.drawing.style import STYLE, looks

_SPREAD = 4.0
_DECADE = 10.0
_DECADES = 1.9
_WRITTEN_OUT = 1e5


def draw(data: FigureData) -> Figure:
    """Draw the marks of a figure in the style of the project."""
    with rc_context(fname=STYLE):
        kinds = {"curves": _curves, "columns": columns, "bars": flops, "grid": grid, "spans": spans}
        return kinds[data.kind](data)


def _curves(data: FigureData) -> Figure:
    figure, by_panel = panels(data)
    by_series = looks(series_of(data))
    for axes, rows in by_panel:
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
    legend(figure, legend_handles(data.frame, by_series))
    return figure


def series_of(data: FigureData) -> list[str]:
    """Return the series of a figure in their order, without what is there for context."""
    context = data.frame["mark"].isin(["other", "reference"])
    return list(dict.fromkeys(data.frame.loc[~context, "series"]))


def _spread(axes: Axes) -> None:
    """Widen an axis whose values are nearly equal, so that it has room for ticks."""
    low, high = axes.get_xlim()
    if high / low < _SPREAD:
        middle = sqrt(low * high)
        axes.set_xlim(middle / sqrt(_SPREAD), middle * sqrt(_SPREAD))


def _log_ticks(axes: Axes) -> None:
    """Set ticks at decades if the axis spans two of them, otherwise at 1, 2 and 5 within each decade."""
    low, high = axes.get_xlim()
    if log10(high / low) > _DECADES:
        axes.xaxis.set_major_locator(LogLocator(numticks=8))
        if high < _WRITTEN_OUT:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
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
    if 1 <= value < _WRITTEN_OUT:
        return f"{value:,.0f}"
    exponent = floor(log10(value) + 1e-9)
    factor = value / _DECADE**exponent
    power = f"10$^{{{exponent}}}$"
    return power if abs(factor - 1) < 1e-6 else f"{factor:g}·{power}"  # noqa: PLR2004
