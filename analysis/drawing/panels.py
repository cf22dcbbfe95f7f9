"""What frames the marks of a figure: panels side by side, texts that the font has, and a legend that fits."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from textwrap import fill, shorten, wrap

import numpy as np
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
_MARGIN_IN = 0.1
_ROW_IN = 0.13
_ROWS = 2
_HANDLE_IN = 0.37
_LETTER_IN = 0.054


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
    return replace(data, frame=frame, x_label=drawable(data.x_label), y_label=drawable(data.y_label))


def wrapped(label: str) -> str:
    """Return a label broken into a few short lines; the CSV has it in full."""
    return "\n".join(wrap(shorten(label, 4 * _LABEL_LETTERS, placeholder=" …"), _LABEL_LETTERS))


@cache
def _characters() -> frozenset[int]:
    with rc_context(fname=STYLE):
        return frozenset(get_font(findfont(FontProperties())).get_charmap())


def legend(figure: Figure, handles: Sequence[Artist | Container]) -> None:
    """Add a legend above the axes if it fits into two rows, else below them; the figure grows by it."""
    width = figure.get_figwidth() - _MARGIN_IN
    for handle in handles:
        handle.set_label(fill(str(handle.get_label()), int((width - _HANDLE_IN) / _LETTER_IN)))
    columns = max((n for n in range(1, len(handles) + 1) if _legend_width_in(handles, n) <= width), default=1)
    rows = max(map(len, _columns(handles, columns)))
    figure.set_figheight(figure.get_figheight() + rows * _ROW_IN)
    figure.legend(
        handles=handles,
        loc="outside upper center" if rows <= _ROWS else "outside lower center",
        ncols=columns,
        columnspacing=1.2,
    )


def _legend_width_in(handles: Sequence[Artist | Container], columns: int) -> float:
    """Return the width of a legend that fills column by column, from the usual width of a letter."""
    longest = [max(map(len, lines)) for lines in _columns(handles, columns)]
    return sum(_HANDLE_IN + count * _LETTER_IN for count in longest)


def _columns(handles: Sequence[Artist | Container], columns: int) -> list[list[str]]:
    """Return the lines of the labels in each column of a legend."""
    labels = np.array([str(handle.get_label()) for handle in handles])
    return ["\n".join(column).split("\n") for column in np.array_split(labels, columns)]
