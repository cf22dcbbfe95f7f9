"""What frames the marks of a figure: panels side by side, broken texts, and a legend that fits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from textwrap import fill, shorten
from warnings import catch_warnings, filterwarnings

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure
from pandas import DataFrame

from analysis.charts.figure_data import FigureData
from analysis.drawing.style import COLUMN_IN, PAGE_IN, STYLE

_HEIGHT_IN = 2.45
_LETTERS_AN_INCH = 17
_LETTERS_HIGH = 40
_ROWS = 3
_LEGEND_LETTERS_AN_INCH = 16


@contextmanager
def styled() -> Iterator[None]:
    """Context manager with the style of the project; characters that its font lacks are boxes."""
    with rc_context(fname=STYLE), catch_warnings():
        filterwarnings("ignore", "Glyph .* missing from font")
        yield


def panels(data: FigureData) -> tuple[Figure, list[tuple[Axes, DataFrame]]]:
    """Return a figure, one column wide or a page if it has several panels, and the rows of each panel."""
    names = list(dict.fromkeys(data.frame["panel"]))
    width = COLUMN_IN if len(names) == 1 else PAGE_IN
    figure = Figure(figsize=(width, _HEIGHT_IN), layout="constrained")
    row = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    letters = int(_LETTERS_AN_INCH * width / len(names))
    for axes, name in zip(row, names, strict=True):
        axes.set_title(fill(name, letters))
        axes.set_xlabel(fill(data.x_label, letters))
    row[0].set_ylabel(fill(data.y_label, _LETTERS_HIGH))
    return figure, [
        (axes, data.frame[data.frame["panel"] == name]) for axes, name in zip(row, names, strict=True)
    ]


def lay_out(figure: Figure) -> None:
    """Place the axes of a figure, its legend and the texts around them, without drawing."""
    layout = figure.get_layout_engine()
    assert layout is not None, "every figure has a layout engine"
    layout.execute(figure)


def broken(text: str, letters: int = 20) -> str:
    """Return a text broken into lines, but not within parentheses of two words; shortened if it is long."""
    short = shorten(text, 4 * letters, placeholder=" …").replace(" (", "\u00a0(").replace(" %", "\u00a0%")
    return fill(short, letters, break_on_hyphens=False)


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
