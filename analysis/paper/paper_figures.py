"""The figures of "Scaling (Down) CLIP" from its digitised tables, drawn like those of a study."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import pandas as pd

from analysis.answers.equivalence import equivalences
from analysis.answers.frontier import frontier
from analysis.cells.imported_table import ColumnMap
from analysis.charts.bar_figures import quality_bars, strategy_bars
from analysis.charts.compute_figures import over_compute
from analysis.charts.figure_data import FigureData, Missing
from analysis.charts.size_figures import over_epochs, over_pairs
from analysis.charts.worth_figures import equivalence, shift
from analysis.labels import capital
from analysis.laws.laws import Measure, measure
from analysis.paper.paper_panels import PANELS, panels_text, read_panels, reading_text


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperFigure:
    """A figure of the paper, or one that follows from its readings.

    Attributes:
        panels: Panels of the paper whose readings it draws.
        data: Data of the figure.
        kind: Name of the report figure that shows the same for a study, to be shown beside it; may be empty.
    """

    panels: tuple[str, ...]
    data: FigureData | Missing
    kind: str


def _compute(measures: Sequence[Measure]) -> FigureData | Missing:
    (mine,) = measures
    return over_compute(mine, frontier(mine.draws), axis="architecture")


def _worth(measures: Sequence[Measure]) -> FigureData | Missing:
    (mine,) = measures
    table = equivalences(mine.draws, tuple(mine.laws), along="data")
    return equivalence(mine.draws, table, along="data")


_models, _strategies = partial(over_pairs, axis="architecture"), partial(over_pairs, axis="strategy")
_FIGURES: tuple[tuple[str, str, Callable[[Sequence[Measure]], FigureData | Missing], str], ...] = (
    ("1b", "augmentations over 30 epochs", strategy_bars, ""),
    ("2a 2b", "epochs over each data size", over_epochs, "error-epochs"),
    ("3a 3b", "epochs over each data size, few-shot", over_epochs, ""),
    ("4a 4b", "epochs over each data size, retrieval", over_epochs, ""),
    ("5a 5b", "quality of the data", quality_bars, "quality"),
    ("6a 6b 6c 6d", "quality of the data, few-shot", quality_bars, ""),
    ("7a 7b 7c 7d", "quality of the data, retrieval", quality_bars, ""),
    ("8a 9a 9b", "ViTs on each data size", _models, "error-data-architecture"),
    ("8b", "ViTs against compute", _compute, "error-compute-architecture"),
    ("10a 10b", "ViTs on each data size, linear probe", _models, "probe"),
    ("11a 11b 11c 11d", "ViTs on each data size, retrieval", _models, "retrieval"),
    ("13a", "architectures on each data size", _models, ""),
    ("14a", "architectures on each data size, linear probe", _models, ""),
    ("17a 17b", "training strategies on each data size", _strategies, "error-data-strategy"),
    ("18c 18d", "training strategies on each data size, retrieval", _strategies, ""),
    ("19a 19b", "training strategies on each data size, linear probe", _strategies, ""),
    ("17a", "what a training strategy is worth in data", _worth, "equivalence-data"),
)
_SHIFTS = (("9a 9b", "ViTs under shift", "shift"), ("17a 17b", "training strategies under shift", ""))


def paper_figures(figures: pd.DataFrame, maps: Mapping[str, ColumnMap]) -> tuple[PaperFigure, ...]:
    """Return the figures of all digitised panels, in the order of the paper, then the derived ones.

    Args:
        figures: ``results/paper/figures.csv``.
        maps: The column maps of ``paper_panels.READERS``.
    """
    tables = read_panels(figures, maps)

    @cache  # several figures show one metric of one table
    def measured(by: str, metric: str) -> Measure:
        return measure(tables[by], metric, question=f"paper/{by}/{metric}")

    def measures(panels: Sequence[str]) -> list[Measure]:
        read = dict.fromkeys((PANELS[panel].reader, PANELS[panel].metric) for panel in panels)
        return [measured(by, metric) for by, metric in read]

    drawn = []
    for said, subject, draw, kind in _FIGURES:
        panels = tuple(said.split())
        drawn.append(_figure(figures, panels, subject, draw(measures(panels)), kind))
    for said, subject, kind in _SHIFTS:
        panels = tuple(said.split())
        plain = measures(panels)[0]
        data = shift(tables[PANELS[panels[0]].reader], metric=plain.metric, draws=plain.draws)
        drawn.append(_figure(figures, panels, subject, data, kind))
    return tuple(drawn)


def _figure(
    figures: pd.DataFrame, panels: tuple[str, ...], subject: str, data: FigureData | Missing, kind: str
) -> PaperFigure:
    title = f"{capital(panels_text(panels))}: {subject}"
    if isinstance(data, FigureData):
        name = "-".join(("figure", *panels, data.name))
        caption = f"{data.caption} {capital(reading_text(figures, panels))}."
        data = replace(data, name=name, caption=caption)
    return PaperFigure(panels=panels, data=replace(data, title=title), kind=kind)
