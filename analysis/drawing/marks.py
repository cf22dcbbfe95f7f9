"""The marks that the figures share: points with intervals, laws with bands, stars, lines."""

from collections.abc import Collection
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from pandas import DataFrame

from analysis.charts.figure_data import JOINED
from analysis.drawing.style import OTHER, STAR, TENTATIVE, Look

_OTHER: dict[str, Any] = {"linestyle": "none", "marker": OTHER.marker, "color": OTHER.colour}
_DROPPED: dict[str, Any] = {
    "linestyle": "none", "marker": "x", "markersize": 4, "zorder": 5, "color": "#555555",
}  # fmt: skip
_HOLLOW: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "white", "color": "#555555"}
_SPECIAL = {
    "other": _OTHER | {"label": "other configurations"},
    "dropped": _DROPPED | {"label": "dropped"},
    "tentative law": {"linestyle": TENTATIVE, "color": "#555555", "label": "minimum not marked"},
    "extrapolation": {"linestyle": TENTATIVE, "color": "#555555", "label": "extrapolated"},
    "undecided": _HOLLOW | {"marker": "o", "label": "undecided"},
    "bound": _HOLLOW | {"marker": "$↑$", "label": "there or beyond"},
}
"""Mark → its handle in the legend, in the order of the legend."""
STAR_FACES = {"best": "#555555", "best, not clear": "white", "minimum": "#555555"}
"""Fill colour of each kind of star in the legend."""


def draw_marks(axes: Axes, frame: DataFrame, looks: dict[str, Look]) -> None:
    """Draw every mark of a panel, rows as in ``figure_data``, each series with its look."""
    other = frame[frame["mark"] == "other"]
    axes.plot(other["x"], other["y"], markersize=3, zorder=1, **_OTHER)
    dropped = frame[frame["mark"] == "dropped"]
    axes.plot(dropped["x"], dropped["y"], **_DROPPED)
    for _, line in frame[frame["mark"] == "reference"].groupby("line", sort=False):
        axes.plot(line["x"], line["y"], color="#777777", linewidth=0.7, linestyle=(0, (4, 3)), zorder=1)
    for series, rows in frame.groupby("series", sort=False):
        if series not in looks:
            continue
        look, before = looks[str(series)], set(axes.get_children())
        bounds = rows[rows["mark"] == "bound"]
        _draw_lines(axes, rows, look)
        _draw_points(axes, rows[rows["mark"] == "point"], look, face=look.colour)
        _draw_points(axes, rows[rows["mark"] == "undecided"], look, face="white")
        for x, y, arrow in zip(bounds["x"], bounds["y"], bounds["label"], strict=True):
            axes.annotate(
                arrow, (x, y), (0, 3 if arrow == "↑" else -3), textcoords="offset points", ha="center",
                va="bottom" if arrow == "↑" else "top", color=look.colour, zorder=5,
            )  # fmt: skip
        _draw_stars(axes, rows, look)
        name_series(axes, before, list(looks).index(str(series)))


def name_series(axes: Axes, before: Collection[Artist], series: int) -> None:
    """Name all that was drawn since ``before`` after the number of its series, for the page's legend."""
    for number, artist in enumerate(each for each in axes.get_children() if each not in before):
        artist.set_gid(f"series-{series}-{number}")


def _draw_lines(axes: Axes, rows: DataFrame, look: Look) -> None:
    for mark in ("law", "tentative law", "extrapolation"):
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
    if points.empty:
        return
    joined = points[points["line"] == JOINED]
    if len(joined):
        axes.plot(
            joined["x"], joined["y"], color=look.colour, linestyle=look.dashes, linewidth=0.6, alpha=0.6,
            zorder=3,
        )  # fmt: skip
    axes.vlines(points["x"], points["low"], points["high"], color=look.colour, linewidth=0.8, zorder=4)
    hollow = face != look.colour
    axes.plot(
        points["x"], points["y"], linestyle="none", marker=look.marker, color=face,
        markeredgecolor=look.colour if hollow else "white", markeredgewidth=0.7 if hollow else 0.4, zorder=5,
    )  # fmt: skip


def _draw_stars(axes: Axes, rows: DataFrame, look: Look) -> None:
    for mark, face in (("best", look.colour), ("best, not clear", "white"), ("minimum", look.colour)):
        stars = rows[rows["mark"] == mark]
        # The interval of a minimum is one of x.
        lines, at = (axes.hlines, stars["y"]) if mark == "minimum" else (axes.vlines, stars["x"])
        lines(at, stars["low"], stars["high"], color=look.colour, linewidth=1.6, zorder=5)
        edge = look.colour if face == "white" else "black"
        own = {"markersize": 9, "zorder": 6, "markerfacecolor": face, "markeredgecolor": edge}
        axes.plot(stars["x"], stars["y"], **STAR | own)


def legend_handles(frame: DataFrame, looks: dict[str, Look]) -> list[Line2D]:
    """Return a legend handle per series, then one per special mark."""
    marks = set(frame["mark"])
    has = {str(name): _shapes(rows) for name, rows in frame.groupby("series")}
    handles = [
        Line2D(
            [], [], color=look.colour, marker=look.marker if has[name][0] else "", label=name,
            linestyle=look.dashes if has[name][1] else "none", markeredgecolor="white",
            markeredgewidth=0.4,
        )
        for name, look in looks.items()
    ]  # fmt: skip
    handles += [Line2D([], [], **look) for mark, look in _SPECIAL.items() if mark in marks]
    return [*handles, *star_handles(marks)]


def _shapes(rows: DataFrame) -> tuple[bool, bool]:
    """Return whether a series has points, and whether it has a solid or thin line."""
    marks = set(rows["mark"])
    lines = bool(marks & {"law", "line"}) or (rows["line"] == JOINED).sum() > 1
    return bool(marks & {"point", "undecided", "best", "best, not clear"}), bool(lines)


def star_handles(marks: set[str], *, not_clear: str = "lowest, not clear") -> list[Line2D]:
    """Return a legend handle for each kind of star among the marks."""
    words = {"best": "best, clear", "best, not clear": not_clear, "minimum": "minimum"}
    return [
        Line2D([], [], label=label, markerfacecolor=STAR_FACES[mark], **STAR)
        for mark, label in words.items()
        if mark in marks
    ]
