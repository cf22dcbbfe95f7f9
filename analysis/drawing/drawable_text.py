"""Texts of figures: characters that the font has, no mathematics, and lines that fit."""

from dataclasses import replace
from functools import cache
from textwrap import shorten, wrap

from matplotlib import rc_context
from matplotlib.font_manager import FontProperties, findfont, get_font

from analysis.charts.figure_data import FigureData
from analysis.drawing.style import STYLE

_LABEL_LETTERS = 18
_ABSENT = "□"


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
