"""The paper's figures and a study's side by side: a folder with paper.html and the figures' files."""

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.figure_data import FigureData, Missing
from analysis.figures.save import save
from analysis.figures.style import COLUMN_IN
from analysis.page import inline_svg

_PAPER = "The paper"
_NONE = "The study does not support this figure."
_WIDE_PT = 72 * COLUMN_IN * 1.2


def write_paper_page(
    folder: Path,
    figures: Sequence[FigureData | Missing],
    *,
    source: str,
    study: str = "",
    theirs: Path | None = None,
) -> Path:
    """Draws the figures and writes the page.

    Args:
        folder: Replaced as a whole.
        figures: Of the paper.
        source: What they were read off.
        study: Name of a study to set beside them.
        theirs: Its report's folder of figures; a figure of the same name is the same kind of figure.

    Returns:
        The page's path.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new = Path(scratch) / "new"
        (new / "figures").mkdir(parents=True)
        pairs = []
        for data in figures:
            sides = [_drawn(data, new / "figures")]
            if theirs is not None and isinstance(data, FigureData):
                sides.append(_read(theirs, data, study))
            pairs.append({"title": data.title, "sides": sides})
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
        )
        text = environment.get_template("paper.html.j2").render(
            title=f"Scaling (Down) CLIP beside {study}" if study else "Scaling (Down) CLIP, as digitised",
            source=source,
            pairs=pairs,
        )
        (new / "paper.html").write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        shutil.move(new, folder)
    return folder / "paper.html"


def _drawn(data: FigureData | Missing, folder: Path) -> dict[str, Any]:
    if isinstance(data, Missing):
        return {"name": _PAPER, "svg": "", "alt": "", "caption": f"Not drawn: {data.reason}.", "wide": False}
    svg = inline_svg(save(data, folder), f"paper.{data.name}")
    return {"name": _PAPER, "svg": svg, "alt": data.alt, "caption": data.caption, "wide": _is_wide(svg)}


def _read(folder: Path, data: FigureData, study: str) -> dict[str, Any]:
    """A study's figure of that name, from its report."""
    drawing = folder / f"{data.name}.svg"
    if not drawing.exists():
        return {"name": study, "svg": "", "alt": "", "caption": _NONE, "wide": False}
    caption = (folder / f"{data.name}.txt").read_text(encoding="utf-8").strip()
    svg = inline_svg(drawing.read_text(encoding="utf-8"), f"study.{data.name}")
    alt = f"{data.title}. {caption}"
    return {"name": study, "svg": svg, "alt": alt, "caption": caption, "wide": _is_wide(svg)}


def _is_wide(svg: str) -> bool:
    """Whether a drawing fills a page: beside another one its texts would be too small."""
    found = re.search(r'<svg[^>]*\bwidth="([\d.]+)pt"', svg)
    return found is not None and float(found[1]) > _WIDE_PT
