"""What frames the marks of a figure: panels side by side, texts that the font has, and a legend that fits."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import ceil
from textwrap import fill, shorten, wrap

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from pandas import DataFrame

from analysis.charts.figure_data import FigureData
from analysis.drawing.style import COLUMN_IN, PAGE_IN, STYLE

_HEIGHT_IN = 2.45
_LETTERS_AN_INCH = 17
_LETTERS_HIGH = 40
_LABEL_LETTERS = 18
_ABSENT = "□"
_ROWS = 3
_LEGEND_LETTERS_AN_INCH = 16


def panels(data: FigureData) -> tuple[Figure, list[tuple[Axes, DataFrame]]]:
    """Return a figure, one column wide or a page if it has several panels, and the rows of each panel."""
    names = list(dict.fromkeys(data.frame["panel"]))
    width = COLUMN_IN if len(names) == 1 else PAGE_IN
    figure = Figure(figsize=(width, _HEIGHT_IN), layout="constrained")
    row = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    letters = int(_LETTERS_AN_INCH * width / len(names))
    for axes, name in zip(row, names, strict=True):
        axes.set_title(_broken(name, letters))
        axes.set_xlabel(fill(data.x_label, letters))
    row[0].set_ylabel(_broken(data.y_label, _LETTERS_HIGH))
    return figure, [
        (axes, data.frame[data.frame["panel"] == name]) for axes, name in zip(row, names, strict=True)
    ]


def lay_out(figure: Figure) -> None:
    """Place the axes of a figure, its legend and the texts around them, without drawing."""
    layout = figure.get_layout_engine()
    assert layout is not None, "every figure has a layout engine"
    layout.execute(figure)


def _broken(text: str, letters: int) -> str:
    """Return a title broken into lines; if it is too long, the part after its last comma gets a line."""
    parts = [text] if len(text) <= letters else text.rsplit(", ", 1)
    return "\n".join(fill(part, letters) for part in parts)


def drawable(text: str) -> str:
    """Return a text as a figure shows it: ``$`` as itself, and □ for characters that the font lacks."""
    return "".join(each if ord(each) in _characters() else _ABSENT for each in text).replace("$", r"\$")


def with_drawable_texts(data: FigureData) -> FigureData:
    """Return a figure whose labels, panels and series are texts that it can show."""
    texts = ("series", "panel", "label", "line")
    frame = data.frame.assign(**{name: data.frame[name].map(drawable) for name in texts})
    return replace(
        data, frame=frame, x_label=drawable(data.x_label), y_label=drawable(data.y_label),
        order={drawable(name): value for name, value in data.order.items()},
        families={drawable(name): family for name, family in data.families.items()},
    )  # fmt: skip


def wrapped(label: str) -> str:
    """Return a label broken into a few short lines; the CSV has it in full."""
    return "\n".join(wrap(shorten(label, 4 * _LABEL_LETTERS, placeholder=" …"), _LABEL_LETTERS))


@cache
def _characters() -> frozenset[int]:
    with rc_context(fname=STYLE):
        return frozenset(get_font(findfont(FontProperties())).get_charmap())


def legend(figure: Figure, handles: Sequence[Artist | Container]) -> None:
    """Add a legend above the axes if it fits into three rows, else below them; the figure grows by it."""
    for handle in handles:
        handle.set_label(fill(str(handle.get_label()), int(figure.get_figwidth() * _LEGEND_LETTERS_AN_INCH)))
    for columns in range(len(handles), 0, -1):
        high = ceil(len(handles) / columns) > _ROWS
        added = figure.legend(
            handles=handles,
            loc="outside lower center" if high else "outside upper center",
            ncols=columns,
            columnspacing=1.2,
        )
        box = added.get_window_extent()
        if box.width <= figure.bbox.width or columns == 1:
            figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)
            return
        added.remove()
