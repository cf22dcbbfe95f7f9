"""Saving of a figure as PNG, SVG and PDF, with its data as CSV and its caption as text."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

from fontTools.subset import Options
from matplotlib import rc_context, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG

from analysis.charts.figure_data import FigureData
from analysis.drawing.dodge import dodged
from analysis.drawing.draw import draw, series_of
from analysis.drawing.hover import with_targets
from analysis.drawing.style import STYLE
from budgets.names import neutral

# Files are equal for equal data: they contain neither a date nor a version of the drawing software.
_SVG = {"Date": None, "Creator": None, "Format": None, "Type": None}
_PDF = {"CreationDate": None, "Creator": None, "Producer": None}
# A PDF positions each glyph itself and needs no layout tables; subsetting them takes most of the time.
_UNREAD = ("GDEF", "GPOS", "GSUB")
Options._drop_tables_default = [*getattr(Options, "_drop_tables_default", ()), *_UNREAD]  # noqa: SLF001 (no other)


def save(data: FigureData, folder: Path) -> str:
    """Write ``<name>.png``, ``.svg``, ``.pdf``, ``.csv`` and ``.txt`` (the caption) into a folder.

    Returns:
        The SVG for a page, with the text of each mark as a tooltip.
    """
    figure = draw(data)
    svg = StringIO()
    with rc_context(fname=STYLE):
        # The layout is computed once for the three files; `savefig` would draw each of them twice for it.
        layout = figure.get_layout_engine()
        assert layout is not None, "every figure has a layout engine"
        layout.execute(figure)
        figure.set_layout_engine("none")
        figure.set_dpi(rcParams["savefig.dpi"])
        FigureCanvasAgg(figure).print_png(folder / f"{data.name}.png", metadata={"Software": None})
        FigureCanvasPdf(figure).print_pdf(folder / f"{data.name}.pdf", metadata=_PDF)
        FigureCanvasSVG(figure).print_svg(svg, metadata=_SVG)
    (folder / f"{data.name}.svg").write_text(svg.getvalue(), encoding="utf-8")
    data.frame.map(neutral).to_csv(folder / f"{data.name}.csv", index=False)
    (folder / f"{data.name}.txt").write_text(data.caption + "\n", encoding="utf-8")
    shown = replace(data, frame=dodged(data))
    return with_targets(svg.getvalue(), figure, shown, series_of(shown))
