"""The panels of a figure, side by side with a shared y axis, each with a title and labels."""

from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from analysis.charts.figure_data import FigureData
from analysis.drawing.style import COLUMN_IN, PAGE_IN

_HEIGHT_IN = 2.45
_LETTERS_AN_INCH = 17
_LETTERS_HIGH = 40


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
