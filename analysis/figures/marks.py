"""The marks that the figures share: points with intervals, laws with bands, stars, lines."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from pandas import DataFrame

from analysis.figures.style import OTHER, TENTATIVE, Look

_STAR: dict[str, Any] = {"linestyle": "none", "marker": "*", "markersize": 9, "zorder": 6}


def draw_marks(axes: Axes, frame: DataFrame, looks: dict[str, Look]) -> None:
    """Draws every row of a panel's frame.

    Args:
        axes: Where.
        frame: Rows of marks, see ``figure_data``.
        looks: One look a series.
    """
    other = frame[frame["mark"] == "other"]
    axes.plot(
        other["x"],
        other["y"],
        linestyle="none",
        marker=OTHER.marker,
        markersize=3,
        color=OTHER.colour,
        zorder=1,
    )
    for _, line in frame[frame["mark"] == "reference"].groupby("line", sort=False):
        axes.plot(line["x"], line["y"], color="#777777", linewidth=0.7, linestyle=(0, (4, 3)), zorder=1)
    for series, rows in frame.groupby("series", sort=False):
        if series not in looks:
            continue
        look = looks[str(series)]
        _draw_lines(axes, rows, look)
        _draw_points(axes, rows[rows["mark"] == "point"], look, face=look.colour)
        _draw_points(axes, rows[rows["mark"] == "bound"], look, face="white")
        _draw_stars(axes, rows, look)


def _draw_lines(axes: Axes, rows: DataFrame, look: Look) -> None:
    for mark in ("law", "tentative law"):
        law = rows[rows["mark"] == mark]
        if law.empty:
            continue
        dashes = look.dashes if mark == "law" else TENTATIVE
        axes.plot(law["x"], law["y"], color=look.colour, linestyle=dashes, zorder=3)
        if law["low"].notna().all():
            axes.fill_between(
                law["x"], law["low"], law["high"], color=look.colour, alpha=0.13, linewidth=0, zorder=2
            )
    for _, line in rows[rows["mark"] == "line"].groupby("line", sort=False):
        axes.plot(line["x"], line["y"], color=look.colour, linestyle=look.dashes, linewidth=0.8, zorder=3)


def _draw_points(axes: Axes, points: DataFrame, look: Look, *, face: str) -> None:
    axes.vlines(points["x"], points["low"], points["high"], color=look.colour, linewidth=0.8, zorder=4)
    hollow = face != look.colour
    axes.plot(
        points["x"], points["y"], linestyle="none", marker=look.marker, color=face,
        markeredgecolor=look.colour if hollow else "white", markeredgewidth=0.7 if hollow else 0.4, zorder=5,
    )  # fmt: skip


def _draw_stars(axes: Axes, rows: DataFrame, look: Look) -> None:
    for mark, face in (("best", look.colour), ("best, not clear", "white")):
        best = rows[rows["mark"] == mark]
        axes.vlines(best["x"], best["low"], best["high"], color=look.colour, linewidth=1.6, zorder=5)
        axes.plot(
            best["x"], best["y"], color=look.colour, markerfacecolor=face, markeredgecolor="black",
            markeredgewidth=0.6, **_STAR,
        )  # fmt: skip
    minimum = rows[rows["mark"] == "minimum"]
    axes.hlines(minimum["y"], minimum["low"], minimum["high"], color=look.colour, linewidth=1.6, zorder=5)
    axes.plot(
        minimum["x"], minimum["y"], color=look.colour, markeredgecolor="black", markeredgewidth=0.6, **_STAR
    )


def legend_handles(frame: DataFrame, looks: dict[str, Look]) -> list[Line2D]:
    """One handle a series, then what the special marks mean."""
    marks = set(frame["mark"])
    lines = bool(marks & {"law", "line"})
    pointed = bool(marks & {"point", "bound"})
    handles = [
        Line2D(
            [], [], color=look.colour, marker=look.marker if pointed else "", label=name,
            linestyle=look.dashes if lines else "none", markeredgecolor="white", markeredgewidth=0.4,
        )
        for name, look in looks.items()
    ]  # fmt: skip
    if "other" in marks:
        handles.append(
            Line2D(
                [],
                [],
                color=OTHER.colour,
                marker=OTHER.marker,
                linestyle="none",
                label="other configurations",
            )
        )
    if "tentative law" in marks:
        handles.append(Line2D([], [], color="#555555", linestyle=TENTATIVE, label="fit not tested"))
    if "bound" in marks:
        handles.append(
            Line2D(
                [], [], color="white", marker="o", markeredgecolor="#555555", linestyle="none", label="bound"
            )
        )
    star: dict[str, Any] = {
        "marker": "*",
        "markersize": 7,
        "linestyle": "none",
        "color": "#555555",
        "markeredgecolor": "black",
        "markeredgewidth": 0.6,
    }
    if "best" in marks:
        handles.append(Line2D([], [], label="best, clear", **star))
    if "best, not clear" in marks:
        handles.append(Line2D([], [], label="lowest, not clear", markerfacecolor="white", **star))
    if "minimum" in marks:
        handles.append(Line2D([], [], label="minimum", **star))
    return handles
