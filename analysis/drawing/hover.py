"""Positions and texts of the marks of a drawn figure, which a page shows under the pointer."""

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
_POINTS_PER_INCH = 72


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A mark with its position and text.

    Attributes:
        x: In points from the left edge of the figure, as in its SVG.
        y: In points from the top.
        text: Text of the mark.
    """

    x: float
    y: float
    text: str


def targets(figure: Figure, data: FigureData) -> list[Target]:
    """Return the marks of a figure whose layout is final, from left to right in each panel."""
    panels = dict(zip(dict.fromkeys(data.frame["panel"]), figure.axes, strict=True))
    found = []
    for panel, axes in panels.items():
        rows = data.frame[(data.frame["panel"] == panel) & data.frame["mark"].isin(_HOVERED)]
        here = {_place(figure, axes, row): row["text"] for row in records(rows)}
        found += [Target(x=x, y=y, text=text) for (x, y), text in sorted(here.items()) if text]
    return found


def _place(figure: Figure, axes: Axes, row: dict[str, Any]) -> tuple[float, float]:
    """Return the position of a mark; that of a bar, which starts at ``low`` or zero, is its middle."""
    x = float(row["x"])
    if row["mark"] in ("bar", "span"):
        x = (x + (float(row["low"]) if isfinite(row["low"]) else 0.0)) / 2
    right, up = figure.transFigure.inverted().transform(axes.transData.transform((x, float(row["y"]))))
    width, height = figure.get_size_inches() * _POINTS_PER_INCH
    return round(float(right * width), 2), round(float((1 - up) * height), 2)


def with_targets(svg: str, marks: list[Target]) -> str:
    """Return the SVG with an invisible circle over each mark, whose title is the text of the mark."""
    circles = "".join(
        f'<circle cx="{mark.x:g}" cy="{mark.y:g}" r="{_RADIUS:g}"><title>{escape(mark.text)}</title></circle>'
        for mark in marks
    )
    return svg.replace("</svg>", f'<g class="marks" fill="none" pointer-events="all">{circles}</g></svg>')
