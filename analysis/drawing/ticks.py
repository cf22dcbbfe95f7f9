"""Scales and ticks of axes: worded as in the text, and as many as fit beside each other."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations, product
from math import ceil, floor, log10, sqrt

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from pandas import DataFrame

from analysis.arrays import Floats
from analysis.charts.figure_data import FigureData
from budgets.quantity import format_count, format_flops

_MEASURED = ("point", "undecided", "best", "best, not clear", "other")
_LEVELS = range(2, 7)
_MOST = 9
_SPREAD = 4.0
_ONE_LEVEL = 0.05
"""Points this close in ln x are of one level: its trials stop at different whole batches."""
_GAP = 1.1  # room of a label, as a multiple of its size
_EDGE = 0.1
_PERCENT = (0.2, 0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5)
_THOUSAND = 1000


def set_scales(axes: Axes, data: FigureData) -> None:
    """Set the scales of a panel; a logarithmic x of nearly equal values is widened for ticks."""
    for scale, set_scale, axis in (
        (data.x_scale, axes.set_xscale, axes.xaxis), (data.y_scale, axes.set_yscale, axes.yaxis)
    ):  # fmt: skip
        if scale == "log":
            set_scale("log")
            axis.set_ticks([])
            axis.set_ticks([], minor=True)
        if scale == "logit":
            set_scale("function", functions=(_logit, _percent))
    low, high = axes.get_xlim()
    if data.x_scale == "log" and high / low < _SPREAD:
        axes.set_xlim(sqrt(low * high / _SPREAD), sqrt(low * high * _SPREAD))


def _logit(percent: Floats) -> Floats:
    inside = np.clip(percent, _EDGE, 100 - _EDGE)
    return np.log(inside / (100 - inside))


def _percent(logits: Floats) -> Floats:
    return 100 / (1 + np.exp(-logits))


def set_ticks(axis: Axis, data: FigureData, rows: DataFrame) -> None:
    """Set the ticks of a laid-out axis that is not linear: the most whose labels fit.

    An axis of compute has them at the levels of its rows, if these are few, and where a forecast ends.
    """
    across = isinstance(axis, XAxis)
    scale, label = (data.x_scale, data.x_label) if across else (data.y_scale, data.y_label)
    if scale == "logit":
        _set_fitting(axis, [_PERCENT[::step] for step in (1, 2, 3)], _text)
    if scale == "log":
        compute = "FLOPs" in label.rpartition("(")[2] and "%" not in label
        marks, x = rows["mark"], rows["x"].to_numpy(np.float64)
        at = np.sort(x[marks.isin(_MEASURED)])
        levels = [*at[np.diff(at, append=np.inf) > _ONE_LEVEL * at], *x[marks == "extrapolation"][-1:]]
        low, high = axis.get_view_interval()
        powers = 10.0 ** np.arange(floor(log10(low)), ceil(log10(high)))
        ways: list[Sequence[float]] = [levels] if compute and across and len(levels) in _LEVELS else []
        ways.append(np.outer(powers, (1, 2, 5)).ravel().tolist())
        ways += [powers[::step].tolist() for step in range(1, len(powers))]
        _set_fitting(axis, ways, partial(_text, compute=compute))


def _set_fitting(axis: Axis, ways: Sequence[Sequence[float]], text: Callable[[float], str]) -> None:
    """Set the first ticks whose labels, in one line or two, differ and don't touch; the last if none do."""
    low, high = axis.get_view_interval()
    for values, space in product(ways, " \n" if isinstance(axis, XAxis) else " "):
        ticks = [value for value in values if low <= value <= high]
        texts = [text(value).replace(" ", space) for value in ticks]
        axis.set_ticks(ticks, texts)
        boxes = [label.get_window_extent().expanded(_GAP, 1) for label in axis.get_ticklabels()]
        fit = not any(one.overlaps(other) for one, other in combinations(boxes, 2))
        if 1 < len(ticks) <= _MOST and fit and len(set(texts)) == len(texts):
            return


def _text(value: float, *, compute: bool = False) -> str:
    if compute:
        return format_flops(float(f"{value:.2g}"))
    return f"{value:g}" if value < _THOUSAND else format_count(value, digits=3, from_=_THOUSAND)
