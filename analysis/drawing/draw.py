"""Drawing of a figure's data with matplotlib."""

from collections.abc import Callable
from dataclasses import replace
from math import floor, log10, sqrt

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from pandas import Series

from analysis.arrays import Floats
from analysis.charts.figure_data import FigureData
from analysis.drawing.bars import columns, flops
from analysis.drawing.dodge import ONE_LEVEL, dodged
from analysis.drawing.drawable_text import with_drawable_texts
from analysis.drawing.legend import legend
from analysis.drawing.marks import draw_marks, legend_handles
from analysis.drawing.named_rows import grid, spans
from analysis.drawing.panels import panels
from analysis.drawing.style import STYLE, looks
from analysis.labels import count_text
from budgets.quantity import format_flops

_MEASURED = ("point", "undecided", "best", "best, not clear", "other")
_MOST_TICKS = 5
_APART = 0.15  # least distance of two ticks in ln x, for each of them
_EDGE = 0.1
_LOGIT_TICKS = (0.2, 0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5)
_SPREAD = 4.0
_DECADE = 10.0
_DECADES = 1.9
_WRITTEN_OUT = 1e5


def draw(data: FigureData) -> Figure:
    """Draw the marks of a figure in the style of the project."""
    with rc_context(fname=STYLE):
        kinds = {"curves": _curves, "columns": columns, "bars": flops, "grid": grid, "spans": spans}
        return kinds[data.kind](with_drawable_texts(data))


def _curves(data: FigureData) -> Figure:
    figure, by_panel = panels(replace(data, frame=dodged(data)))
    by_series = looks(series_of(data))
    for axes, rows in by_panel:
        draw_marks(axes, rows, by_series)
        if data.x_scale == "log":
            axes.set_xscale("log")
            _spread(axes)
            if not _level_ticks(axes, data):
                _log_ticks(axes)
        if data.x_scale == "logit":
            _logit(axes.xaxis, axes.set_xscale, rows["x"])
        if data.y_scale == "logit":
            _logit(axes.yaxis, axes.set_yscale, rows["y"])
        else:
            axes.set_yscale(data.y_scale)
        if data.y_scale == "log":
            low, high = axes.get_ylim()
            wide = log10(high / low) > _DECADES
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(
                FuncFormatter(lambda value, _: f"{value:g}" if value < _WRITTEN_OUT else count_text(value))
            )
            axes.yaxis.set_minor_formatter(NullFormatter())
    legend(figure, legend_handles(data.frame, by_series))
    return figure


def series_of(data: FigureData) -> list[str]:
    """Return the series of a figure in their order, without those drawn only for context."""
    context = data.frame["mark"].isin(["other", "reference", "dropped"])
    return list(dict.fromkeys(data.frame.loc[~context, "series"]))


def _spread(axes: Axes) -> None:
    """Widen an axis whose values are nearly equal, so that it has room for ticks."""
    low, high = axes.get_xlim()
    if high / low < _SPREAD:
        middle = sqrt(low * high)
        axes.set_xlim(middle / sqrt(_SPREAD), middle * sqrt(_SPREAD))


def _level_ticks(axes: Axes, data: FigureData) -> bool:
    """Set a tick at each level of compute, worded as in the text, if the points lie at a few levels."""
    points = data.frame[data.frame["mark"].isin(_MEASURED)]
    if "FLOPs)" not in data.x_label or points.empty:
        return False
    at = np.sort(points["x"].to_numpy(np.float64))
    # Trials of one level stop at different whole batches.
    ends = np.append(np.flatnonzero(np.diff(np.log(at)) > ONE_LEVEL), len(at) - 1)
    levels = at[ends]
    if not 1 < len(levels) <= _MOST_TICKS or np.diff(np.log(levels)).min() < _APART * len(levels):
        return False
    axes.xaxis.set_major_locator(FixedLocator(levels.tolist()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_flops(float(f"{value:.2g}"))))
    axes.xaxis.set_minor_locator(NullLocator())
    return True


def _logit(axis: Axis, set_scale: Callable[..., None], percent: Series) -> None:
    """Scale an axis of percentages by ln p/(100 − p), within the data."""
    low, high = (float(np.clip(end, _EDGE, 100 - _EDGE)) for end in (percent.min(), percent.max()))

    def forward(values: Floats) -> Floats:
        inside = np.clip(values, _EDGE, 100 - _EDGE)
        return np.log(inside / (100 - inside))

    def back(values: Floats) -> Floats:
        return 100 / (1 + np.exp(-values))

    set_scale("function", functions=(forward, back))
    axis.set_major_locator(FixedLocator([tick for tick in _LOGIT_TICKS if low / 1.5 < tick < high + 5]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _log_ticks(axes: Axes) -> None:
    """Set ticks at decades if the axis spans two of them, otherwise at 1, 2 and 5 within each decade."""
    low, high = axes.get_xlim()
    wide = log10(high / low) > _DECADES
    ticks = [
        factor * _DECADE**exponent
        for exponent in range(floor(log10(low)), floor(log10(high)) + 1)
        for factor in (1, 2, 5)
        if low <= factor * _DECADE**exponent <= high
    ]
    axes.xaxis.set_major_locator(LogLocator(numticks=8) if wide else FixedLocator(ticks))
    if not wide or high < _WRITTEN_OUT:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    if 1 <= value < _WRITTEN_OUT:
        return f"{value:,.0f}"
    exponent = floor(log10(value) + 1e-9)
    factor = value / _DECADE**exponent
    power = f"10$^{{{exponent}}}$"
    return power if abs(factor - 1) < 1e-6 else f"{factor:g}·{power}"  # noqa: PLR2004
