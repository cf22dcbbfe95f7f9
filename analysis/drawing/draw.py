"""Drawing of a figure's data with matplotlib; points that would hide each other are drawn side by side."""

from collections.abc import Callable
from dataclasses import replace
from math import floor, log10, sqrt

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from pandas import Series
from scipy.sparse.csgraph import connected_components

from analysis.arrays import Floats, Indices
from analysis.charts.figure_data import FRONTIER, FigureData
from analysis.drawing.bars import columns, flops, grid, spans
from analysis.drawing.marks import draw_marks, legend_handles
from analysis.drawing.panels import legend, panels, with_drawable_texts
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
_MOVED = ("point", "undecided", "bound", "best", "best, not clear")
_ONE_LEVEL = 0.05
"""Points this close in ln x are of one level: its trials stop at different whole batches."""
_STEP, _WIDEST = 0.012, 0.06  # shares of the range of ln x: about the width of a marker, and of five
_LEAST = 1e-300  # in a logarithm, for ends at zero
_MARKER = 0.02  # share of the range of y: about the height of a marker


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
        if data.y_scale == "log":
            axes.set_yscale("log")
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
    ends = np.append(np.flatnonzero(np.diff(np.log(at)) > _ONE_LEVEL), len(at) - 1)
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


def dodged(data: FigureData) -> pd.DataFrame:
    """Return the marks of a figure with points that would hide each other moved sideways.

    Points of different series move apart if their markers or intervals overlap: each by about the width of a
    marker, and by at most 3 % of the range of ln x. They move only over a logarithmic x, and not around a
    Pareto frontier, where their place to it counts. Laws and lines stay as they are.
    """
    frame, points = data.frame, data.frame["mark"].isin(_MOVED)
    on_curves = data.kind == "curves" and data.x_scale == "log" and FRONTIER not in set(frame["series"])
    if not on_curves or frame.loc[points, "series"].nunique() < 2:  # noqa: PLR2004 (two hide each other)
        return frame
    moved = frame[points]
    at = np.log(moved["x"].to_numpy(np.float64))
    wide = float(np.ptp(at))
    rank = moved["series"].map({name: n for n, name in enumerate(dict.fromkeys(moved["series"]))})
    shift = np.zeros(len(at))
    for together in _overlapping(moved, at, _STEP * wide, log_y=data.y_scale == "log"):
        series, place = np.unique(rank.to_numpy()[together], return_inverse=True)
        if len(series) > 1:
            step = min(_STEP, _WIDEST / (len(series) - 1)) * wide
            shift[together] = step * (place - (len(series) - 1) / 2)
    x = frame["x"].to_numpy(np.float64, copy=True)
    x[points.to_numpy()] *= np.exp(shift)
    return frame.assign(x=x)


def _overlapping(points: pd.DataFrame, at: Floats, width: float, *, log_y: bool) -> list[Indices]:
    """Return groups of points that overlap, each directly or through others of its group."""
    ends = points[["y", "low", "high"]].to_numpy(np.float64)
    ends = np.log(np.maximum(ends, _LEAST)) if log_y else ends
    pad = _MARKER * float(np.ptp(ends[:, 0])) / 2
    low = np.fmin(ends[:, 0] - pad, ends[:, 1])
    high = np.fmax(ends[:, 0] + pad, ends[:, 2])
    panel = points["panel"].to_numpy()
    near = (np.abs(at[:, None] - at) < width) & (panel[:, None] == panel)
    _, group = connected_components(near & (low[:, None] < high) & (low < high[:, None]), directed=False)
    return [np.flatnonzero(group == n) for n in np.unique(group)]
