"""A figure → PNG, SVG and PDF, with the CSV that it draws and its caption beside it."""

from io import StringIO
from pathlib import Path

from fontTools.subset import Options
from matplotlib import rc_context, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG

from analysis.charts.figure_data import FigureData
from analysis.drawing.draw import draw
from analysis.drawing.hover import targets, with_targets
from analysis.drawing.style import STYLE

# A file is the same for the same data: no date, no version of what drew it.
_SVG = {"Date": None, "Creator": None, "Format": None, "Type": None}
_PDF = {"CreationDate": None, "Creator": None, "Producer": None}
# A PDF places each glyph itself; to cut a font's tables of layout is most of the time of embedding it.
_UNREAD = ("GDEF", "GPOS", "GSUB")
Options._drop_tables_default = [*getattr(Options, "_drop_tables_default", ()), *_UNREAD]  # noqa: SLF001 (no other)


def save(data: FigureData, folder: Path) -> str:
    """Writes ``<name>.png``, ``.svg``, ``.pdf``, ``.csv`` and ``.txt`` (the caption) into the folder.

    Returns:
        The SVG's text for a page, with what each mark says over it.
    """
    figure = draw(data)
    svg = StringIO()
    with rc_context(fname=STYLE):
        # One layout for the three files, and each drawn once: `savefig` draws twice to be sure of the layout.
        layout = figure.get_layout_engine()
        assert layout is not None, "every figure is drawn with one"
        layout.execute(figure)
        figure.set_layout_engine("none")
        figure.set_dpi(rcParams["savefig.dpi"])
        FigureCanvasAgg(figure).print_png(folder / f"{data.name}.png", metadata={"Software": None})
        FigureCanvasPdf(figure).print_pdf(folder / f"{data.name}.pdf", metadata=_PDF)
        FigureCanvasSVG(figure).print_svg(svg, metadata=_SVG)
    (folder / f"{data.name}.svg").write_text(svg.getvalue(), encoding="utf-8")
    data.frame.to_csv(folder / f"{data.name}.csv", index=False)
    (folder / f"{data.name}.txt").write_text(data.caption + "\n", encoding="utf-8")
    return with_targets(svg.getvalue(), targets(figure, data))
