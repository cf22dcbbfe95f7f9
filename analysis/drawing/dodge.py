"""Points of several series at one x, drawn beside each other so that none hides another."""

import numpy as np
import pandas as pd

from analysis.charts.figure_data import FigureData

_MOVED = ("point", "best", "best, not clear")
ONE_LEVEL = 0.05
"""Points this close in ln x are of one level: its trials stop at different whole batches."""
_STEP, _WIDEST = 0.012, 0.07  # shares of the range of ln x


def dodged(data: FigureData) -> pd.DataFrame:
    """Return the marks of a figure with its points moved sideways, by a constant factor of x per series.

    Only points of figures over a logarithmic x move, and only if several series have points at one x: each by
    at most 3.5 % of the range of ln x. Laws, lines and the figure's own data stay as they are.
    """
    frame, points = data.frame, data.frame["mark"].isin(_MOVED)
    if data.kind != "curves" or data.x_scale != "log" or not _shared(frame[points]):
        return frame
    series = list(dict.fromkeys(frame.loc[points, "series"]))
    range_of_log_x = np.log(frame.loc[points, "x"].max() / frame.loc[points, "x"].min())
    step = min(_STEP, _WIDEST / (len(series) - 1)) * range_of_log_x
    factors = {name: np.exp(step * (k - (len(series) - 1) / 2)) for k, name in enumerate(series)}
    return frame.assign(x=frame["x"].where(~points, frame["x"] * frame["series"].map(factors)))


def _shared(points: pd.DataFrame) -> bool:
    """Return True if two series of a panel have points at the same x."""
    for _, panel in points.groupby("panel", sort=False):
        at = panel.sort_values("x")
        near = np.diff(np.log(at["x"].to_numpy(np.float64))) < ONE_LEVEL
        if (near & (at["series"].to_numpy()[1:] != at["series"].to_numpy()[:-1])).any():
            return True
    return False
