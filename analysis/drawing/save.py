"""Saving of figures as PNG, SVG and PDF, with their data as CSV and their captions as text.

The SVG of a page also has the texts of its marks, shown under the pointer, and buttons over its legend. All
figures of a report are drawn in several processes, since each takes about 0.2 s.
"""

import multiprocessing
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from itertools import repeat
from pathlib import Path

import numpy as np
from fontTools.subset import Options
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.charts.figure_data import FigureData
from analysis.drawing.draw import draw
from analysis.drawing.panels import lay_out, styled
from analysis.drawing.places import dodged
from analysis.drawing.style import looks
from runners.results import csv_text

# Files are equal for data that are equal to six digits: they contain neither a date nor a version of the
# drawing software.
_DIGITS = "%.6g"
_SVG = {"Date": None, "Creator": None, "Format": None, "Type": None}
_PDF = {"CreationDate": None, "Creator": None, "Producer": None}
_HOVERED = ("other", "point", "best", "best, not clear", "minimum", "undecided", "cell")
_RADIUS, _HANDLE, _PAD = 4.5, 20.0, 1.0
_POINTS_PER_INCH = 72

# A PDF positions each glyph itself and needs no layout tables; subsetting them takes most of the time.
_UNREAD = ("GDEF", "GPOS", "GSUB")
Options._drop_tables_default = [*getattr(Options, "_drop_tables_default", ()), *_UNREAD]  # noqa: SLF001 (no other)


def save(data: FigureData, folder: Path) -> str:
    """Write ``<name>.png``, ``.svg``, ``.pdf``, ``.csv`` and ``.txt`` (the caption) into a folder.

    Returns:
        The SVG for a page, with the text of each mark as a tooltip.
    """
    numbers = data.frame[["x", "y", "low", "high"]].map(_DIGITS.__mod__).astype(float)
    data = replace(data, frame=data.frame.assign(**numbers))
    moved = dodged(data)
    figure = draw(data, moved)
    with styled():
        lay_out(figure)  # once for the three files
        figure.set_layout_engine("none")
        figure.set_dpi(rcParams["savefig.dpi"])
        # `savefig` would draw each of them twice.
        FigureCanvasAgg(figure).print_png(folder / f"{data.name}.png", metadata={"Software": None})
        FigureCanvasPdf(figure).print_pdf(folder / f"{data.name}.pdf", metadata=_PDF)
        FigureCanvasSVG(figure).print_svg(folder / f"{data.name}.svg", metadata=_SVG)
        svg = (folder / f"{data.name}.svg").read_text(encoding="utf-8")
        shown = _with_targets(svg, figure, replace(data, frame=moved), [*looks(data)])
    (folder / f"{data.name}.csv").write_text(csv_text(data.frame), encoding="utf-8")
    (folder / f"{data.name}.txt").write_text(data.caption + "\n", encoding="utf-8")
    return shown


@contextmanager
def helpers(processes: int) -> Iterator[Executor | None]:
    """Context manager of drawing processes, which load matplotlib meanwhile; None for one process."""
    if processes < 2:  # noqa: PLR2004 (this one draws)
        yield None
        return
    # Not the fork server: a process has one, and that of a process that also runs trials preloads torch.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in range(processes):
            pool.submit(_joined, "")  # loads this module
        yield pool


def save_all(
    figures: Sequence[FigureData],
    folder: Path,
    pool: Executor | None,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[str, str]:
    """Save figures as `save` does and return their SVGs by name; the files do not depend on who draws them.

    ``progress`` takes the number of figures that are drawn, and of all.
    """
    drawn = (pool.map if pool else map)(save, figures, repeat(folder))
    svgs = {}
    for data, svg in zip(figures, drawn, strict=True):
        svgs[data.name] = svg
        progress(len(svgs), len(figures))
    return svgs


def _with_targets(svg: str, figure: Figure, data: FigureData, series: Sequence[str]) -> str:
    """Return the SVG of a drawn figure with its final layout for a page.

    Each mark gets an invisible circle whose title is the mark's text. Each entry of the legend gets an
    invisible button that hides and shows its series. Everything that belongs to a series carries its name,
    which is that of its number in the ids of what was drawn.
    """
    named = re.sub(
        r'id="series-(\d+)-\d+"', lambda match: f'data-series="{escape(series[int(match[1])])}"', svg
    )
    over = "".join([*_circles(figure, data), *_buttons(figure, data)])
    return named.replace("</svg>", f'<g class="marks" fill="none" pointer-events="all">{over}</g></svg>')


def _circles(figure: Figure, data: FigureData) -> Iterator[str]:
    """Yield a circle for each mark with a text, from left to right in each panel."""
    scale, height = _POINTS_PER_INCH / figure.dpi, figure.get_figheight() * _POINTS_PER_INCH
    hovered = data.frame[data.frame["mark"].isin(_HOVERED) & (data.frame["text"] != "")]
    for panel, axes in zip(dict.fromkeys(data.frame["panel"]), figure.axes, strict=True):
        rows = hovered[hovered["panel"] == panel]
        at = (axes.transData.transform(rows[["x", "y"]].to_numpy(np.float64)) * scale).round(2)
        marks = zip(*at.T.tolist(), rows["text"], rows["series"], strict=True)
        for (x, y), (text, series) in sorted({(x, y): told for x, y, *told in marks}.items()):
            yield (
                f'<circle cx="{x:g}" cy="{round(height - y, 2):g}" r="{_RADIUS:g}" '
                f'data-series="{escape(series)}"><title>{escape(text)}</title></circle>'
            )


def _buttons(figure: Figure, data: FigureData) -> Iterator[str]:
    """Yield a button over each name of a series, in the legend or at the end of its line."""
    names = {_joined(name): name for name in data.frame["series"].unique()}
    scale, height = _POINTS_PER_INCH / figure.dpi, figure.get_figheight() * _POINTS_PER_INCH
    legend = [(text, _HANDLE) for legend in figure.legends for text in legend.get_texts()]
    for text, handle in [*legend, *((text, _PAD) for text in figure.axes[0].texts)]:
        if (shown := _joined(text.get_text())) in names:
            # That of an annotation contains its line.
            box, name = Text.get_window_extent(text), escape(names[shown])
            left = box.x0 * scale - handle
            wide, high = round(box.x1 * scale - left + _PAD, 1), round(box.height * scale + 2 * _PAD, 1)
            yield (
                f'<rect class="toggle" role="button" tabindex="0" aria-pressed="true" data-series="{name}" '
                f'aria-label="{name}: show" x="{round(left, 1):g}" '
                f'y="{round(height - box.y1 * scale - _PAD, 1):g}" width="{wide:g}" height="{high:g}"/>'
            )


def _joined(label: str) -> str:
    """Return a label without spaces, since a legend may break it into lines."""
    return "".join(label.split())
