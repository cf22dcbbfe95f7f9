"""The paper's figures and a study's side by side: a folder with paper.html and the figures' files."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.charts.figure_data import FigureData, Missing
from analysis.claims.findings import Finding
from analysis.drawing.save import helpers, save_all
from analysis.drawing.style import COLUMN_IN
from analysis.labels import capital
from analysis.paper.agreement import agreement_text
from analysis.paper.paper_figures import PaperFigure
from analysis.paper.paper_panels import NOT_DIGITISED, SOURCE, NotDigitised, panels_text
from analysis.report.page import inline_svg
from analysis.report.tables.table_files import replacing
from analysis.report.templating import templates

_PAPER = "The paper"
_WIDE_PT = 72 * COLUMN_IN * 1.2


def write_paper_page(  # noqa: PLR0913 (the paper's side, and the study's)
    folder: Path,
    figures: Sequence[PaperFigure],
    *,
    study: str = "",
    theirs: Path | None = None,
    ours: Sequence[Finding] = (),
    published: Sequence[Finding] = (),
    processes: int = 1,
) -> Path:
    """Draw the figures and write the page.

    Args:
        folder: Folder of the page; it is replaced as a whole.
        figures: Figures of the paper.
        study: Name of a study to show beside them.
        theirs: Figures folder of that study's report.
        ours: Verdicts on the paper's claims by that study.
        published: Verdicts on them by the paper's own figures.
        processes: Number of processes that draw the figures.

    Returns:
        Path of the page.
    """
    with replacing(folder) as new:
        (new / "figures").mkdir()
        with helpers(processes - 1) as pool:
            drawn = [figure.data for figure in figures if isinstance(figure.data, FigureData)]
            svgs = save_all(drawn, new / "figures", pool)
        pairs = []
        for figure in figures:
            sides = [_own(figure.data, svgs)]
            if theirs is not None and figure.kind:
                sides.append(_read(theirs, figure.kind, study))
            said = agreement_text(figure.panels, ours, published) if study else ""
            pairs.append({"title": figure.data.title, "sides": sides, "agreement": said})
        page = templates(Path(__file__).parent).get_template("paper.html.j2")
        text = page.render(
            title=f"Scaling (Down) CLIP beside {study}" if study else "Scaling (Down) CLIP, as digitised",
            source=SOURCE,
            pairs=pairs,
            study=study,
            absent=[_absent(each, theirs) for each in NOT_DIGITISED],
        )
        (new / "paper.html").write_text(text, encoding="utf-8")
    return folder / "paper.html"


def _own(data: FigureData | Missing, svgs: Mapping[str, str]) -> dict[str, Any]:
    if isinstance(data, Missing):
        return _side(_PAPER, f"Not drawn: {data.reason}.")
    svg = inline_svg(svgs[data.name], data.name)
    return _side(_PAPER, data.caption, svg, data.alt, f"figures/{data.name}")


def _read(folder: Path, kind: str, study: str) -> dict[str, Any]:
    """Return a study's figure from its report."""
    drawing = folder / f"{kind}.svg"
    if not drawing.exists():
        return _side(study, f"{study} does not support this figure; its report gives the reason.")
    caption = (folder / f"{kind}.txt").read_text(encoding="utf-8").strip()
    svg = inline_svg(drawing.read_text(encoding="utf-8"), f"study.{kind}")
    return _side(study, caption, svg, f"{study}: {caption}", f"../figures/{kind}")


def _side(name: str, caption: str, svg: str = "", alt: str = "", files: str = "") -> dict[str, Any]:
    return {"name": name, "caption": caption, "svg": svg, "alt": alt, "files": files, "wide": _is_wide(svg)}


def _absent(each: NotDigitised, theirs: Path | None) -> dict[str, Any]:
    kinds = [kind for kind in each.kinds if theirs is not None and (theirs / f"{kind}.svg").exists()]
    return {"panels": capital(panels_text(each.panels)), "shows": each.shows, "kinds": kinds}


def _is_wide(svg: str) -> bool:
    """Return whether a drawing is a page wide; beside another one its text would be too small."""
    found = re.search(r'<svg[^>]*\bwidth="([\d.]+)pt"', svg)
    return found is not None and float(found[1]) > _WIDE_PT
