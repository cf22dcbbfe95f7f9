"""Points of several series that would hide each other, drawn beside each other."""

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from analysis.arrays import Floats, Indices
from analysis.charts.figure_data import FRONTIER, FigureData

_MOVED = ("point", "undecided", "bound", "best", "best, not clear")
ONE_LEVEL = 0.05
"""Points this close in ln x are of one level: its trials stop at different whole batches."""
_STEP, _WIDEST = 0.012, 0.06  # shares of the range of ln x: about the width of a marker, and of five
_LEAST = 1e-300  # in a logarithm, for ends at zero
_MARKER = 0.02  # share of the range of y: about the height of a marker


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
