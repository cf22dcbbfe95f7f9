"""The figures of "Scaling (Down) CLIP" from its digitised panels, drawn like a study's, and their page."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from analysis.answers.crossing import comparisons
from analysis.cells.imported_table import ColumnMap, import_table
from analysis.cells.table import CELL
from analysis.charts.curve_figures import over
from analysis.charts.figure_data import FigureData, Missing
from analysis.charts.worth_figures import equivalence, shift
from analysis.drawing.save import helpers, save_all
from analysis.drawing.style import COLUMN_IN
from analysis.labels import capital, listed
from analysis.laws.laws import Measure, measure
from analysis.report.page import inline_svg, templates
from analysis.report.table_files import replacing
from budgets.quantity import plural

ZERO_SHOT = "imagenet/top1"
PROBES = ("imagenet/probe_top1", "other-sets/probe_top1")
FEW_SHOT = ("imagenet/few_shot_5_top1", "imagenet/few_shot_10_top1")
SIX, FIVE = "variants-6/top1", "variants-5/top1"
"""Means over variants of ImageNet; figures 2 and 9 agree with six variants, figure 17 with five."""
RETRIEVAL = ("coco/image_to_text_r1", "coco/text_to_image_r1")

# A mean over n sets has the counting noise of n² ÷ Σ 1/images images. ImageNet-A has 7,500, -R 30,000,
# -Sketch 50,889, -V2 10,000, -ReaL 46,837, ObjectNet 18,574. The paper does not name the probed sets; the
# five are assumed.
_IMAGES = {
    "imagenet": 50_000, "coco": 5_000, "variants-6": 99_600, "variants-5": 73_500, "other-sets": 73_500,
}  # fmt: skip


def _worth(measures: Sequence[Measure]) -> FigureData | Missing:
    (mine,) = measures
    return equivalence(comparisons(mine.draws), along="data")


_models, _strategies, _epochs, _quality, _compute = (
    partial(over, axis=axis, x=x)
    for axis, x in (
        ("architecture", "subset_size"), ("strategy", "subset_size"), ("subset_size", "epochs"),
        ("quality", "train_flops"), ("architecture", "train_flops"),
    )
)  # fmt: skip
_Draw = Callable[[Sequence[Measure]], FigureData | Missing]
_SAME = "same"
# Column map (without "paper-"), panels, the metric of each, subject, drawing (None: shift from the first
# metric to the second), and the name of the report figure that shows the same for a study.
_FIGURES: tuple[tuple[str, str, tuple[str, ...], str, _Draw | None, str], ...] = (
    ("augmentation", "1b", (ZERO_SHOT,), "augmentations over 30 epochs", _strategies, ""),
    ("epochs", "2a 2b", (ZERO_SHOT, SIX), "epochs over each data size", _epochs, _SAME),
    ("epochs", "3a 3b", FEW_SHOT, "epochs over each data size, few-shot", _epochs, ""),
    ("epochs", "4a 4b", RETRIEVAL, "epochs over each data size, retrieval", _epochs, ""),
    ("quality", "5a 5b", (ZERO_SHOT,) * 2, "quality of the data", _quality, _SAME),
    ("quality", "6a 6b 6c 6d", FEW_SHOT * 2, "quality of the data, few-shot", _quality, ""),
    ("quality", "7a 7b 7c 7d", RETRIEVAL * 2, "quality of the data, retrieval", _quality, ""),
    ("equal-samples", "8a 9a 9b", (ZERO_SHOT, ZERO_SHOT, SIX), "ViTs on each data size", _models, _SAME),
    ("one-epoch", "8b", (ZERO_SHOT,), "ViTs against compute", _compute, _SAME),
    ("equal-samples", "10a 10b", PROBES, "ViTs on each data size, linear probe", _models, "probe"),
    (
        "equal-samples", "11a 11b 11c 11d", RETRIEVAL * 2, "ViTs on each data size, retrieval", _models,
        "retrieval",
    ),
    ("architectures", "13a", (ZERO_SHOT,), "architectures on each data size", _models, ""),
    ("architectures-probe", "14a", PROBES[:1], "architectures on each data size, linear probe", _models, ""),
    ("strategies", "17a 17b", (ZERO_SHOT, FIVE), "training strategies on each data size", _strategies, _SAME),
    ("strategies", "18c 18d", RETRIEVAL, "training strategies on each data size, retrieval", _strategies, ""),
    ("strategies", "19a 19b", PROBES, "training strategies on each data size, linear probe", _strategies, ""),
    ("strategies", "17a", (ZERO_SHOT,), "what a training strategy is worth in data", _worth, _SAME),
    ("equal-samples", "9a 9b", (ZERO_SHOT, SIX), "ViTs under shift", None, _SAME),
    ("strategies", "17a 17b", (ZERO_SHOT, FIVE), "training strategies under shift", None, ""),
)  # fmt: skip
PANELS = {
    panel: (f"paper-{name}", metric)
    for name, panels, metrics, *_ in _FIGURES
    for panel, metric in zip(panels.split(), metrics, strict=True)
}
"""Digitised panels → name of their column map (panels of one map form one table), and metric."""
READERS = tuple(dict.fromkeys(reader for reader, _ in PANELS.values()))
"""Names of the column maps that read the panels."""
ACCURACIES = ("1b", "8a", "11a", "11b")
"""Panels that show accuracies instead of errors."""


def read_panels(figures: pd.DataFrame, maps: Mapping[str, ColumnMap]) -> dict[str, pd.DataFrame]:
    """Return each of `READERS` → its table in the results schema: one row per trial, one column per metric.

    ``figures`` is ``results/paper/figures.csv``, ``maps`` has the column maps of `READERS`.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    for name, (reader, metric) in PANELS.items():
        how, images = maps[reader], _IMAGES[metric.partition("/")[0]]
        rows = {**how.rows, "figure": (name[:-1],), "panel": (name[-1],)}
        better: Literal["lower", "higher"] = "higher" if name in ACCURACIES else "lower"
        how = replace(how, rows=rows, metric=metric, better=better, images=images)
        tables.setdefault(reader, []).append(import_table(figures, how))
    return {reader: _together(parts) for reader, parts in tables.items()}


def _together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Merge what several panels show of one trial into one row."""
    cell = [name for name in CELL if name != "budget"] + ["samples_seen"]
    table = pd.concat(parts, ignore_index=True).groupby(cell, as_index=False, sort=False).first()
    return table.assign(trial=[f"row-{place + 1}" for place in range(len(table))])


class PaperFigure(NamedTuple):
    """A figure of the paper or from its readings; ``kind`` is its name in the report of a study, if any."""

    panels: tuple[str, ...]
    data: FigureData | Missing
    kind: str


def paper_figures(figures: pd.DataFrame, maps: Mapping[str, ColumnMap]) -> tuple[PaperFigure, ...]:
    """Return the figures of all digitised panels, in the order of the paper, then the derived ones.

    Takes what `read_panels` does.
    """
    tables = read_panels(figures, maps)

    @cache  # several figures show one metric of one table
    def measured(by: str, metric: str) -> Measure:
        return measure(tables[by], metric)

    drawn = []
    for name, named, metrics, subject, draw, kind in _FIGURES:
        panels, reader = tuple(named.split()), f"paper-{name}"
        measures = [measured(reader, metric) for metric in dict.fromkeys(metrics)]
        data = draw(measures) if draw else shift(tables[reader], metric=metrics[0])
        shown = data.name if kind == _SAME and isinstance(data, FigureData) else kind
        if isinstance(data, FigureData):
            caption = f"{data.caption} {capital(_reading_text(figures, panels))}."
            data = replace(data, name="-".join(("figure", *panels, data.name)), caption=caption)
        data = replace(data, title=f"{capital(_panels_text(panels))}: {subject}")
        drawn.append(PaperFigure(panels, data, shown))
    return tuple(drawn)


def _reading_text(figures: pd.DataFrame, panels: Sequence[str]) -> str:
    """Return a caption text on how panels were read, and how precisely."""
    shown = (figures["figure"].astype(str) + figures["panel"]).isin(panels)
    parts = figures[shown & (figures["source"] == "digitised")]
    low, high = parts["precision"].min(), parts["precision"].max()
    notes = parts["note"].fillna("")
    reading = f"{plural(len(parts), 'reading')} of {_panels_text(panels)}, made for this project, to within "
    also = [reading + (f"{low:g} points" if low == high else f"{low:g} to {high:g} points")]
    if hidden := int(notes.str.contains("hidden marker|% visible").sum()):
        also.append(f"{hidden} of markers that others hide partly or fully")
    if set(panels) & set(ACCURACIES):
        also.append("the paper shows accuracy, this figure error")
    usual = re.compile("hidden marker|own line segments|% visible|bar height")
    also += [note for note in dict.fromkeys("; ".join(notes).split("; ")) if note and not usual.search(note)]
    return "; ".join(also)


def _panels_text(panels: Sequence[str]) -> str:
    """Return panels in words: ``("2a", "2b", "9a")`` → ``figures 2a, 2b and 9a``."""
    return f"figure{'s' if len(panels) > 1 else ''} {listed(panels)}"


def write_paper_page(
    folder: Path, figures: Sequence[PaperFigure], *, study: str = "", theirs: Path | None = None,
    processes: int = 1,
) -> Path:  # fmt: skip
    """Draw the figures, write the page, and return its path.

    ``folder`` is replaced as a whole; ``theirs`` is the figures folder of the report of the study to show
    beside the paper.
    """
    with replacing(folder) as new:
        (new / "figures").mkdir()
        with helpers(processes) as pool:
            drawn = [figure.data for figure in figures if isinstance(figure.data, FigureData)]
            svgs = save_all(drawn, new / "figures", pool)
        pairs = [
            {"title": figure.data.title, "sides": list(_sides(figure, svgs, study, theirs))}
            for figure in figures
        ]
        title = f"Scaling (Down) CLIP beside {study}" if study else "Scaling (Down) CLIP, as digitised"
        text = templates().get_template("paper.html.j2").render(title=title, pairs=pairs, is_wide=_is_wide)
        (new / "paper.html").write_text(text, encoding="utf-8")
    return folder / "paper.html"


def _sides(
    figure: PaperFigure, svgs: Mapping[str, str], study: str, theirs: Path | None
) -> Iterator[dict[str, str]]:
    """Yield the paper's drawing, then a study's of the same kind, with their texts and files."""
    data = figure.data
    if isinstance(data, Missing):
        yield {"name": "The paper", "caption": f"Not drawn: {data.reason}."}
    else:
        svg, files = inline_svg(svgs[data.name], data.name), f"figures/{data.name}"
        yield {"name": "The paper", "caption": data.caption, "svg": svg, "alt": data.alt, "files": files}
    if theirs is None or not figure.kind:
        return
    drawing, files = theirs / f"{figure.kind}.svg", f"../figures/{figure.kind}"
    if not drawing.exists():
        yield {"name": study, "caption": f"{study} does not support this figure; its report says why."}
        return
    svg = inline_svg(drawing.read_text(encoding="utf-8"), f"study.{figure.kind}")
    caption = drawing.with_suffix(".txt").read_text(encoding="utf-8").strip()
    yield {"name": study, "caption": caption, "svg": svg, "alt": f"{study}: {caption}", "files": files}


def _is_wide(svg: str) -> bool:
    """Return whether a drawing is a page wide: beside another one its text would be too small."""
    width = re.search(r'<svg[^>]*\bwidth="([\d.]+)pt"', svg)
    return width is not None and float(width[1]) > 72 * COLUMN_IN * 1.2
