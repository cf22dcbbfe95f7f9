"""Positions and texts of the marks of a drawn figure, which a page shows under the pointer."""

import re
from collections.abc import Iterator, Sequence
from html import escape
from math import isfinite
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.cells.table import records
from analysis.charts.figure_data import FigureData
from analysis.drawing.drawable_text import drawable

_HOVERED = (
    "other", "point", "best", "best, not clear", "minimum", "undecided", "bar", "column", "cell", "span",
)  # fmt: skip
_RADIUS = 4.5
_HANDLE = 20.0
_PAD = 1.0
_POINTS_PER_INCH = 72


def with_targets(svg: str, figure: Figure, data: FigureData, series: Sequence[str]) -> str:
    """Return the SVG of a figure for a page.

    Each mark gets an invisible circle whose title is the mark's text. Each entry of the legend gets an
    invisible button that hides and shows its series. Everything that belongs to a series carries its name.

    Args:
        svg: The drawn figure.
        figure: The same, with its final layout.
        data: Its marks, at the places where they were drawn.
        series: Its series, in the order of the numbers in the ids of what was drawn.
    """
    named = re.sub(
        r'id="series-(\d+)-\d+"', lambda found: f'data-series="{escape(series[int(found[1])])}"', svg
    )
    over = "".join([*_circles(figure, data), *_buttons(figure, data)])
    return named.replace("</svg>", f'<g class="marks" fill="none" pointer-events="all">{over}</g></svg>')


def _circles(figure: Figure, data: FigureData) -> Iterator[str]:
    """Yield a circle for each mark with a text, from left to right in each panel."""
    panels = dict(zip(dict.fromkeys(data.frame["panel"]), figure.axes, strict=True))
    for panel, axes in panels.items():
        rows = data.frame[(data.frame["panel"] == panel) & data.frame["mark"].isin(_HOVERED)]
        here = {_place(figure, axes, row): (row["text"], row["series"]) for row in records(rows)}
        for (x, y), (text, series) in sorted(here.items()):
            if text:
                yield (
                    f'<circle cx="{x:g}" cy="{y:g}" r="{_RADIUS:g}" data-series="{escape(series)}">'
                    f"<title>{escape(text)}</title></circle>"
                )


def _buttons(figure: Figure, data: FigureData) -> Iterator[str]:
    """Yield a button over each entry of a series in the legend."""
    names = {_joined(drawable(name)): name for name in data.frame["series"].unique()}
    scale, height = _POINTS_PER_INCH / figure.dpi, figure.get_figheight() * _POINTS_PER_INCH
    for text in (text for legend in figure.legends for text in legend.get_texts()):
        if (shown := _joined(text.get_text())) in names:
            box, name = text.get_window_extent(), escape(names[shown])
            left = box.x0 * scale - _HANDLE
            wide, high = round(box.x1 * scale - left + _PAD, 1), round(box.height * scale + 2 * _PAD, 1)
            yield (
                f'<rect class="toggle" role="button" tabindex="0" aria-pressed="true" data-series="{name}" '
                f'aria-label="{name}: show" x="{round(left, 1):g}" '
                f'y="{round(height - box.y1 * scale - _PAD, 1):g}" width="{wide:g}" height="{high:g}"/>'
            )


def _joined(label: str) -> str:
    """Return a label without spaces, since a legend may break it into lines."""
    return "".join(label.split())


def _place(figure: Figure, axes: Axes, row: dict[str, Any]) -> tuple[float, float]:
    """Return the position of a mark, in points from the left and upper edge of its figure, as in the SVG.

    That of a bar, which starts at ``low`` or zero, is its middle.
    """
    x = float(row["x"])
    if row["mark"] in ("bar", "span"):
        x = (x + (float(row["low"]) if isfinite(row["low"]) else 0.0)) / 2
    right, up = figure.transFigure.inverted().transform(axes.transData.transform((x, float(row["y"]))))
    width, height = figure.get_size_inches() * _POINTS_PER_INCH
    return round(float(right * width), 2), round(float((1 - up) * height), 2)
