"""Legends that fit the width of a figure."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.artist import Artist
from matplotlib.container import Container
from matplotlib.figure import Figure

_MARGIN_IN = 0.1
_ROW_IN = 0.13
_ROWS = 2
_HANDLE_IN = 0.37
_LETTER_IN = 0.054


def legend(figure: Figure, handles: Sequence[Artist | Container]) -> None:
    """Add a legend above the axes if it fits into two rows, else below them; the figure grows by it."""
    width = figure.get_figwidth() - _MARGIN_IN
    for handle in handles:
        handle.set_label(fill(str(handle.get_label()), int((width - _HANDLE_IN) / _LETTER_IN)))
    columns = max((n for n in range(1, len(handles) + 1) if _legend_width_in(handles, n) <= width), default=1)
    rows = max(sum(map(_lines, column)) for column in _columns(handles, columns))
    figure.set_figheight(figure.get_figheight() + rows * _ROW_IN)
    figure.legend(
        handles=handles,
        loc="outside upper center" if rows <= _ROWS else "outside lower center",
        ncols=columns,
        columnspacing=1.2,
    )


def _legend_width_in(handles: Sequence[Artist | Container], columns: int) -> float:
    """Return the width of a legend that fills column by column, from the usual width of a letter."""
    longest = [max(map(_letters, column)) for column in _columns(handles, columns)]
    return sum(_HANDLE_IN + count * _LETTER_IN for count in longest)


def _columns(handles: Sequence[Artist | Container], columns: int) -> list[list[str]]:
    """Return the labels of each column of a legend."""
    labels = np.array([str(handle.get_label()) for handle in handles])
    return [column.tolist() for column in np.array_split(labels, columns)]


def _letters(label: str) -> int:
    return max(map(len, label.split("\n")))


def _lines(label: str) -> int:
    return label.count("\n") + 1
