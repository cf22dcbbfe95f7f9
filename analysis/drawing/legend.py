"""Legends that fit the width of a figure, and labels that fit beside its axes."""

from collections.abc import Sequence
from math import ceil
from textwrap import shorten, wrap

import numpy as np
from matplotlib.artist import Artist
from matplotlib.container import Container
from matplotlib.figure import Figure

_MARGIN_IN = 0.1
_ROW_IN = 0.13
_ROWS = 2
_HANDLE_IN = 0.37
_LETTER_IN = 0.054
_LABEL_LETTERS = 18


def wrapped(label: str) -> str:
    """Return a label broken into a few short lines; the CSV has it in full."""
    return "\n".join(wrap(shorten(label, 4 * _LABEL_LETTERS, placeholder=" …"), _LABEL_LETTERS))


def legend(figure: Figure, handles: Sequence[Artist | Container]) -> None:
    """Add a legend above the axes if it fits into two rows, else beside them; the figure grows by it."""
    width = figure.get_figwidth() - _MARGIN_IN
    columns = max((n for n in range(1, len(handles) + 1) if _legend_width_in(handles, n) <= width), default=1)
    rows = ceil(len(handles) / columns)
    if rows > _ROWS:
        figure.set_figwidth(figure.get_figwidth() + _legend_width_in(handles, 1))
        figure.legend(handles=handles, loc="outside right upper")
        return
    figure.set_figheight(figure.get_figheight() + rows * _ROW_IN)
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.2)


def _legend_width_in(handles: Sequence[Artist | Container], columns: int) -> float:
    """Return the width of a legend that fills column by column, from the usual width of a letter."""
    letters = np.array_split([len(str(handle.get_label())) for handle in handles], columns)
    longest = [int(column.max()) for column in letters]
    return sum(_HANDLE_IN + count * _LETTER_IN for count in longest)
