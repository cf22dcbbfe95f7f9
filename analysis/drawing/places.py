"""Places of points and of texts in a figure of curves, so that none hides another."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from pandas import DataFrame
from scipy.optimize import isotonic_regression

from analysis.arrays import Floats, Mask
from analysis.cells.table import records
from analysis.charts.figure_data import JOINED, FigureData
from analysis.drawing.panels import broken
from analysis.drawing.style import GREY, INK, Look

# Half the width of a mark, as a share of the range of ln x in a figure of one panel. In this order they are
# placed: the first stay where they are.
_HALF = {
    "best": 0.018, "best, not clear": 0.018, "point": 0.01, "undecided": 0.01, "other": 0.006,
}  # fmt: skip
_HIGH = 1.4  # ratio of the shares of y and x: axes are wider than high
_WIDEST = 0.06
_LEAST = 1e-300  # in a logarithm, for ends at zero
_LINES = ("law", "extrapolation", "line")
_LETTERS, _MOST_LINES, _LINE_PT = 20, 13, 7.6
_RINGS_PT = (5.0, 12.0, 22.0, 34.0, 48.0)
_ANGLES = np.radians(np.arange(225, 585, 30))  # first below and to the left, where a falling frontier is not
_DIRECTIONS = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])
_STEPS = np.linspace(0, 1, 6, endpoint=False)


def dodged(data: FigureData) -> DataFrame:
    """Return the marks of a figure with points that would hide each other moved sideways.

    Stars stay. Each other point takes the nearest place where neither its marker nor its interval touches
    those before it, or the emptiest within 6 % of the range of ln x. A star and the point of its
    cell move together. Points move only over a logarithmic x; laws and lines stay.
    """
    frame = data.frame
    moved = frame[frame["mark"].isin(_HALF)]
    if data.kind != "curves" or data.x_scale != "log" or len(moved) < 2:  # noqa: PLR2004 (two hide each other)
        return frame
    ends = moved[["y", "low", "high"]].to_numpy(np.float64)
    ends = np.log(np.maximum(ends, _LEAST)) if data.y_scale == "log" else ends
    at = np.log(moved["x"].to_numpy(np.float64))
    wide, high = float(np.ptp(at)) or 1.0, float(np.ptp(ends[:, 0])) or 1.0
    panel = moved["panel"].to_numpy()
    half = moved["mark"].map(_HALF).to_numpy(np.float64) * max(len(set(panel)) / 2, 1)
    low = np.fmin(ends[:, 0] - half * _HIGH * high, ends[:, 1])
    top = np.fmax(ends[:, 0] + half * _HIGH * high, ends[:, 2])
    placed, taken = np.full(len(at), np.nan), dict[tuple[Any, ...], int]()
    rank = moved["mark"].map({mark: n for n, mark in enumerate(_HALF)})
    marks, series = moved["mark"].to_numpy(), moved["series"].to_numpy()
    for n in np.argsort(rank.to_numpy(), kind="stable").tolist():
        first = taken.setdefault((panel[n], at[n], ends[n, 0]), n)
        if marks[first] != marks[n] and (series[first] == series[n] or marks[n] == "other"):
            placed[n] = placed[first]
            continue
        steps = np.arange(1, 1 + max(int(_WIDEST / half[n] / 2), 1))
        tries = at[n] + 2 * half[n] * wide * np.concatenate([[0], np.column_stack([-steps, steps]).ravel()])
        near = np.abs(tries[:, None] - placed) < 0.95 * (half + half[n]) * wide
        hidden = near & (panel == panel[n]) & (low < top[n]) & (low[n] < top)
        placed[n] = tries[np.argmin(hidden.sum(axis=1))]
    x = frame["x"].to_numpy(np.float64, copy=True)
    x[frame["mark"].isin(_HALF).to_numpy()] *= np.exp(placed - at)
    return frame.assign(x=x)


def ends_are_named(data: FigureData, looks: dict[str, Look]) -> bool:
    """Return whether the series of a figure are named at the ends of their lines, not in a legend."""
    frame = data.frame
    lines = frame[frame["mark"].isin(_LINES) | (frame["line"] == JOINED)]
    texts = [text for name in looks for text in broken(name, _LETTERS).split("\n")]
    return (
        len(set(frame["panel"])) == 1
        and set(looks) <= set(lines["series"])
        and max(map(len, texts)) <= _LETTERS
        and len(texts) <= _MOST_LINES
    )


def name_ends(axes: Axes, frame: DataFrame, looks: dict[str, Look]) -> None:
    """Name the series of a laid-out panel at its right, each beside the end of its line if there is room."""
    lines = frame[(frame["mark"].isin(_LINES) | (frame["line"] == JOINED)) & frame["y"].notna()]
    last = lines.sort_values("x", kind="stable").groupby("series").last()[["x", "y"]].loc[list(looks)]
    height = axes.transData.transform(last.to_numpy(np.float64))[:, 1]
    order = np.argsort(height, kind="stable")
    texts = [broken(str(last.index[n]), _LETTERS) for n in order]
    room = np.array([(1 + text.count("\n")) * _LINE_PT for text in texts]) * axes.figure.dpi / 72
    above = np.concatenate([[0], np.cumsum((room[1:] + room[:-1]) / 2)])
    # The least moves that keep the order and the distances.
    least = isotonic_regression(height[order] - above).x
    lowest, highest = axes.bbox.y0 + room[0] / 2, axes.bbox.y1 - room[-1] / 2 - above[-1]
    places = np.clip(least, lowest, max(lowest, highest)) + above
    for n, text, place in zip(order, texts, places, strict=True):
        axes.annotate(
            text, last.iloc[n].tolist(), (1.04, (place - axes.bbox.y0) / axes.bbox.height),
            textcoords="axes fraction", va="center", fontsize="small", color=INK, annotation_clip=False,
            arrowprops=_leader(looks[str(last.index[n])].colour) | {"relpos": (0, 0.5)},
        )  # fmt: skip


def _leader(colour: str) -> dict[str, Any]:
    return {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3}


def label_points(axes: Axes, frame: DataFrame) -> None:
    """Write the label of each star of a laid-out panel near it, where label and leader hide the least."""
    stars = frame[frame["mark"].str.startswith("best") & (frame["label"] != "")].sort_values("x")
    drawn = frame[frame["mark"] != "reference"]
    lines = [line for _, line in drawn[drawn["mark"].isin(_LINES)].groupby(["mark", "series"])]
    ways = [
        axes.transData.transform(rows[["x", end]].dropna().to_numpy(np.float64))
        for rows in (drawn, *lines)
        for end in ("y", "low", "high")
    ]
    between = [way[1:] + share * (way[:-1] - way[1:]) for way in ways[3:] for share in _STEPS[1:]]
    hidden = np.concatenate([*ways, *between])
    boxes = np.empty((0, 4))
    scale, room = axes.figure.dpi / 72, axes.bbox.extents
    for star in records(stars):
        text = axes.annotate(
            broken(star["label"]), (star["x"], star["y"]), (0, 0), textcoords="offset points", ha="center",
            va="center", fontsize="small", color=INK, zorder=7, arrowprops=_leader(GREY),
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
        )  # fmt: skip
        text.set_in_layout(False)
        half = np.array(Text.get_window_extent(text).size) / 2 + scale
        point = axes.transData.transform((star["x"], star["y"]))
        centres = np.array([
            _DIRECTIONS[n] * (half + ring * scale) for ring in _RINGS_PT for n in range(len(_DIRECTIONS))
        ])  # fmt: skip
        tries = np.hstack([point + centres - half, point + centres + half])
        leaders = point + centres[:, None, :] * _STEPS[:, None]
        crossed = ((tries[:, None, :2] < boxes[:, 2:]) & (tries[:, None, 2:] > boxes[:, :2])).all(axis=2)
        through = _inside(leaders[:, :, None, :], boxes).any(axis=1)
        out = ((tries[:, :2] < room[:2]) | (tries[:, 2:] > room[2:])).any(axis=1)
        over = _inside(hidden, tries[:, None, :]).sum(axis=1)
        worth = over + 100 * (crossed | through).sum(axis=1) + 1000 * out
        best = int(np.argmin(worth + np.hypot(*centres.T) / scale / 10))
        boxes = np.vstack([boxes, tries[best]])
        hidden = np.concatenate([hidden, leaders[best]])
        text.set_position(tuple(centres[best] / scale))


def _inside(points: Floats, boxes: Floats) -> Mask:
    return np.asarray(np.all((points > boxes[..., :2]) & (points < boxes[..., 2:]), axis=-1))
