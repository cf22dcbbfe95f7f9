"""Positions and texts of the marks of a drawn figure, which a page shows under the pointer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.cells.table import records
from analysis.charts.figure_data import FigureData

_HOVERED = (
    "other", "point", "best", "best, not clear", "minimum", "undecided", "bound", "bar",
    "column", "cell", "span",
)  # fmt: skip
_RADIUS = 4.5
_HANDLE = 20.0
_PAD = 1.0
_POINTS_PER_INCH = 72


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A mark with its position and text.

    Attributes:
        x: In points from the left edge of the figure, as in its SVG.
        y: In points from the top.
        text: Text of the mark.
        series: Series of the mark.
    """

    x: float
    y: float
    text: str
    series: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LegendEntry:
    """The entry of a series in a legend, by which a page hides and shows the series.

    Attributes:
        x: Left edge, in points from the left edge of the figure.
        y: Upper edge, in points from the top.
        width: In points.
        height: In points.
        series: Series of the entry.
    """

    x: float
    y: float
    width: float
    height: float
    series: str


def targets(figure: Figure, data: FigureData) -> list[Target]:
    """Return the marks of a figure whose layout is final, from left to right in each panel."""
    panels = dict(zip(dict.fromkeys(data.frame["panel"]), figure.axes, strict=True))
    found = []
    for panel, axes in panels.items():
        rows = data.frame[(data.frame["panel"] == panel) & data.frame["mark"].isin(_HOVERED)]
        here = {_place(figure, axes, row): (row["text"], row["series"]) for row in records(rows)}
        found += [
            Target(x=x, y=y, text=text, series=series)
            for (x, y), (text, series) in sorted(here.items())
            if text
        ]
    return found


def entries(figure: Figure, data: FigureData) -> list[LegendEntry]:
    """Return the legend's entries of the series of a figure whose layout is final and that was drawn."""
    names, found = set(data.frame["series"]), []
    scale, height = _POINTS_PER_INCH / figure.dpi, figure.get_figheight() * _POINTS_PER_INCH
    for text in (text for legend in figure.legends for text in legend.get_texts()):
        if text.get_text() in names:
            box = text.get_window_extent()
            left = box.x0 * scale - _HANDLE
            found.append(
                LegendEntry(
                    x=round(left, 1), y=round(height - box.y1 * scale - _PAD, 1),
                    width=round(box.x1 * scale - left + _PAD, 1),
                    height=round(box.height * scale + 2 * _PAD, 1), series=text.get_text(),
                )
            )  # fmt: skip
    return found


def _place(figure: Figure, axes: Axes, row: dict[str, Any]) -> tuple[float, float]:
    """Return the position of a mark; that of a bar, which starts at ``low`` or zero, is its middle."""
    x = float(row["x"])
    if row["mark"] in ("bar", "span"):
        x = (x + (float(row["low"]) if isfinite(row["low"]) else 0.0)) / 2
    right, up = figure.transFigure.inverted().transform(axes.transData.transform((x, float(row["y"]))))
    width, height = figure.get_size_inches() * _POINTS_PER_INCH
    return round(float(right * width), 2), round(float((1 - up) * height), 2)


def with_targets(
    svg: str, marks: Sequence[Target], legend: Sequence[LegendEntry], series: Sequence[str]
) -> str:
    """Return the SVG for a page.

    Over each mark lies an invisible circle whose title is the text of the mark, over each entry of the legend
    an invisible button, and what belongs to a series carries its name.

    Args:
        svg: The drawn figure.
        marks: Its marks.
        legend: Entries of its legend.
        series: Its series, in the order of the numbers in the ids of what was drawn.
    """
    circles = "".join(
        f'<circle cx="{mark.x:g}" cy="{mark.y:g}" r="{_RADIUS:g}" data-series="{escape(mark.series)}">'
        f"<title>{escape(mark.text)}</title></circle>"
        for mark in marks
    )
    buttons = "".join(
        f'<rect class="toggle" role="button" tabindex="0" aria-pressed="true" '
        f'data-series="{escape(one.series)}" '
        f'aria-label="{escape(one.series)}: show" x="{one.x:g}" y="{one.y:g}" width="{one.width:g}" '
        f'height="{one.height:g}"/>'
        for one in legend
    )
    named = re.sub(
        r'id="series-(\d+)-\d+"', lambda found: f'data-series="{escape(series[int(found[1])])}"', svg
    )
    over = f'<g class="marks" fill="none" pointer-events="all">{circles}{buttons}</g></svg>'
    return named.replace("</svg>", over)
