"""Drawing of a figure's data with matplotlib: points with intervals, laws with bands, stars, lines, cells."""

from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from pandas import DataFrame

from analysis.cells.table import records
from analysis.charts.figure_data import JOINED, FigureData
from analysis.drawing.panels import lay_out, legend, panels, styled
from analysis.drawing.places import dodged, ends_are_named, label_points, name_ends
from analysis.drawing.style import GREY, PAGE_IN, TENTATIVE, Look, looks
from analysis.drawing.ticks import set_scales, set_ticks

_ROW_IN = 0.17
_STATES = {
    "finished": ("#555555", "", "white"),
    "partly finished": ("#bbbbbb", "", "black"),
    "not run": ("#ffffff", "", "black"),
    "without a result": ("#ffffff", "xxxx", "black"),
    "left out": ("#eeeeee", "////", "black"),
}
_LONE: dict[str, Any] = {"linestyle": "none", "color": GREY}
_STAR = _LONE | {"marker": "*", "markersize": 8, "markeredgecolor": "black", "markeredgewidth": 0.6}
_SPECIAL: dict[str, dict[str, Any]] = {
    "other": _LONE | {"marker": ".", "markersize": 4, "alpha": 0.5, "markeredgewidth": 0},
    "dropped": _LONE | {"marker": "x", "label": "dropped"},
    "extrapolation": {"linestyle": TENTATIVE, "color": GREY, "label": "extrapolated"},
    "undecided": _LONE | {"marker": "o", "markerfacecolor": "white", "label": "undecided"},
    "best": _STAR | {"label": "best"},
    "best, not clear": _STAR | {"markerfacecolor": "white", "label": "best, not clear"},
    "minimum": _STAR | {"label": "minimum"},
}
"""Mark → its handle in the legend, in the order of the legend."""


def draw(data: FigureData, moved: DataFrame | None = None) -> Figure:
    """Draw the marks of a figure in the style of the project; ``moved`` is their `dodged` frame, if known."""
    with styled():
        return _grid(data) if data.kind == "grid" else _curves(data, dodged(data) if moved is None else moved)


def _curves(data: FigureData, moved: DataFrame) -> Figure:
    figure, by_panel = panels(replace(data, frame=moved))
    by_series = looks(data)
    for axes, rows in by_panel:
        _draw_marks(axes, rows, by_series)
        set_scales(axes, data)
    named = ends_are_named(data, by_series)
    legend(figure, _legend_handles(data.frame, {} if named else by_series))
    # What lies beside the axes is placed by their height, then what lies below them by their width.
    lay_out(figure)
    if named:
        name_ends(*by_panel[0], by_series)
    for axes, rows in by_panel:
        set_ticks(axes.yaxis, data, rows)
    lay_out(figure)
    for axes, rows in by_panel:
        set_ticks(axes.xaxis, data, data.frame.loc[rows.index])  # not moved apart
    if data.frame.loc[data.frame["mark"].str.startswith("best"), "label"].any():
        lay_out(figure)
        for axes, rows in by_panel:
            label_points(axes, rows)
    return figure


def _grid(data: FigureData) -> Figure:
    """Draw cells by row and column, each with its finished trials (``low``) of all trials (``high``)."""
    rows = data.frame.drop_duplicates("y").sort_values("y")
    columns = data.frame.drop_duplicates("x").sort_values("x")
    figure = Figure(figsize=(PAGE_IN, 0.55 + _ROW_IN * len(rows)), layout="constrained")
    axes = figure.subplots()
    for cell in records(data.frame):
        colour, hatch, ink = _STATES[cell["series"]]
        axes.add_patch(
            Rectangle(
                (cell["x"] - 0.46, cell["y"] - 0.42), 0.92, 0.84,
                facecolor=colour, hatch=hatch, edgecolor="#8a8a8a", linewidth=0.4,
            )
        )  # fmt: skip
        if cell["series"] != "left out":
            axes.annotate(
                f"{cell['low']:.0f}/{cell['high']:.0f}", (cell["x"], cell["y"]),
                ha="center", va="center", fontsize=5.5, color=ink,
                bbox={"boxstyle": "square,pad=0.15", "facecolor": colour, "edgecolor": "none"},
            )  # fmt: skip
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(columns["x"], list(columns["line"]))
    axes.set_yticks(rows["y"], list(rows["label"]))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_xlabel(data.x_label)
    seen = set(data.frame["series"])
    states = [(name, colour, hatch) for name, (colour, hatch, _) in _STATES.items() if name in seen]
    legend(figure, [Patch(facecolor=c, hatch=h, edgecolor="#8a8a8a", label=name) for name, c, h in states])
    return figure


def _draw_marks(axes: Axes, frame: DataFrame, looks: dict[str, Look]) -> None:
    """Draw every mark of a panel, rows as in ``figure_data``, each series with its look."""
    for mark, zorder in (("other", 1), ("dropped", 5)):
        rows = frame[frame["mark"] == mark]
        axes.plot(rows["x"], rows["y"], zorder=zorder, **_SPECIAL[mark])
    for _, line in frame[frame["mark"] == "reference"].groupby("line", sort=False):
        axes.plot(line["x"], line["y"], color=GREY, linewidth=0.7, linestyle=TENTATIVE, zorder=1)
    for number, (series, look) in enumerate(looks.items()):
        rows, before = frame[frame["series"] == series], set(axes.get_children())
        _draw_lines(axes, rows, look)
        _draw_points(axes, rows[rows["mark"] == "point"], look, face=look.colour)
        _draw_points(axes, rows[rows["mark"] == "undecided"], look, face="white")
        _draw_stars(axes, rows, look)
        # The page finds by its name what belongs to a series.
        for part, artist in enumerate(child for child in axes.get_children() if child not in before):
            artist.set_gid(f"series-{number}-{part}")


def _draw_lines(axes: Axes, rows: DataFrame, look: Look) -> None:
    for mark in ("law", "extrapolation"):
        law, dashes = rows[rows["mark"] == mark], "-" if mark == "law" else TENTATIVE
        axes.plot(law["x"], law["y"], color=look.colour, linestyle=dashes, zorder=3)
        if len(law) and law["low"].notna().all():
            axes.fill_between(
                law["x"], law["low"], law["high"], color=look.colour, alpha=0.13, linewidth=0, zorder=2
            )
    for _, line in rows[rows["mark"] == "line"].groupby("line", sort=False):
        axes.plot(line["x"], line["y"], color=look.colour, linewidth=0.8, zorder=3)


def _draw_points(axes: Axes, points: DataFrame, look: Look, *, face: str) -> None:
    if points.empty:
        return
    joined = points[points["line"] == JOINED]
    axes.plot(joined["x"], joined["y"], color=look.colour, linewidth=0.6, alpha=0.6, zorder=3)
    axes.vlines(points["x"], points["low"], points["high"], color=look.colour, linewidth=0.8, zorder=4)
    axes.plot(
        points["x"], points["y"], linestyle="none", marker=look.marker, color=face, zorder=5,
        markeredgecolor="white" if face == look.colour else look.colour, markeredgewidth=0.5,
    )  # fmt: skip


def _draw_stars(axes: Axes, rows: DataFrame, look: Look) -> None:
    for mark, face in (("best", look.colour), ("best, not clear", "white"), ("minimum", look.colour)):
        stars = rows[rows["mark"] == mark]
        if stars.empty:
            continue
        # The interval of a minimum is one of x.
        lines, at = (axes.hlines, stars["y"]) if mark == "minimum" else (axes.vlines, stars["x"])
        lines(at, stars["low"], stars["high"], color=look.colour, linewidth=1.6, zorder=5)
        edge = look.colour if face == "white" else "black"
        axes.plot(
            stars["x"], stars["y"], zorder=6, **_STAR | {"markerfacecolor": face, "markeredgecolor": edge}
        )


def _legend_handles(frame: DataFrame, looks: dict[str, Look]) -> list[Line2D]:
    """Return a legend handle per series of ``looks``, then one per special mark."""
    handles = []
    for name, look in looks.items():
        rows = frame[frame["series"] == name]
        drawn = set(rows["mark"])
        star = "*" if drawn & {"best", "best, not clear"} else ""
        marker = look.marker if drawn & {"point", "undecided"} else star
        lines = bool(drawn & {"law", "line"}) or (rows["line"] == JOINED).sum() > 1
        handles.append(
            Line2D(
                [], [], color=look.colour, label=name, marker=marker, markersize=6,
                linestyle="-" if lines else "none", markeredgecolor="white", markeredgewidth=0.5,
            )
        )  # fmt: skip
    marks, others = set(frame["mark"]), set(frame.loc[frame["mark"] == "other", "series"])
    context: dict[str, Any] = {"label": others.pop() if len(others) == 1 else "other configurations"}
    return handles + [Line2D([], [], **context | look) for mark, look in _SPECIAL.items() if mark in marks]
