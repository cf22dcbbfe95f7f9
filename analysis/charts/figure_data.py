"""What a figure is before it is drawn: a frame of marks, axis labels, a caption and an alternative text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from analysis.cells.bootstrap import CellDraws
from analysis.cells.intervals import interval
from analysis.labels import (
    budget_text,
    capital,
    configuration_text,
    listed,
    metric_text,
    percent,
    percent_interval,
    plural,
)  # fmt: skip

MARKS = (
    "other", "reference", "point", "undecided", "bound", "law", "tentative law", "best", "best, not clear",
    "minimum", "line", "bar", "column", "cell", "span",
)  # fmt: skip
COLUMNS = ("panel", "series", "mark", "line", "x", "y", "low", "high", "label", "text")
JOINED = "joined"
"""The ``line`` of points that a thin one joins."""

GROUP_WIDTH = 0.8
"""Of a group of bars, whose neighbour is at a distance of 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureData:
    """One figure.

    Attributes:
        name: File name without suffix.
        title: What it shows, for headings.
        kind: Which drawing it is: ``curves`` (points whose ``line`` is ``JOINED`` are joined by a thin one);
            ``columns`` (upright bars in groups named by ``label``); ``bars`` (lying ones, in groups named by
            ``label``); ``grid`` (cells of rows named by ``label`` and columns named by ``line``); ``spans``
            (from ``low`` to x).
        x_label: With unit.
        y_label: With unit.
        frame: One row a mark, in the order of ``COLUMNS``: everything that is drawn, and nothing else;
            ``text`` says a mark in words.
        caption: Rows, law and interval.
        alt: What a reader who does not see it should know.
        x_scale: Of ``curves``.
        y_scale: Of ``curves``.
    """

    name: str
    title: str
    kind: Literal["curves", "columns", "bars", "grid", "spans"]
    x_label: str
    y_label: str
    frame: pd.DataFrame
    caption: str
    alt: str
    x_scale: Literal["log", "linear"] = "log"
    y_scale: Literal["log", "linear"] = "linear"

    @property
    def wide(self) -> bool:
        """Whether it takes both columns of a page."""
        return self.kind in ("grid", "spans") or len(set(self.frame["panel"])) > 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """A figure that the data do not support, and why."""

    title: str
    reason: str


def mark_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows of marks → the frame of a figure; what a row leaves out is empty or NaN."""
    blank: dict[str, Any] = {
        "panel": "", "series": "", "mark": "", "line": "",
        "x": np.nan, "y": np.nan, "low": np.nan, "high": np.nan, "label": "", "text": "",
    }  # fmt: skip
    frame = pd.DataFrame([blank | row for row in rows], columns=list(COLUMNS))
    assert frame["mark"].isin(MARKS).all(), "drawing knows no other mark"
    return frame


def bar_place(group: int, bar: int, bars: int) -> float:
    """Where the middle of one bar lies, along an axis on which the groups lie at 0, 1, 2 and so on."""
    return group + (bar - (bars - 1) / 2) * GROUP_WIDTH / bars


def cell_marks(
    draws: CellDraws, positions: Iterable[int], *, x: str, **fixed: object
) -> list[dict[str, Any]]:
    """One ``point`` a cell: its error in percent with the interval of the draws, and which cell it is.

    Args:
        draws: The study's cells.
        positions: Which of them.
        x: Column of the cells that is the x axis.
        fixed: Columns of the mark that all share.
    """
    marks = []
    for position in positions:
        low, high = interval(draws.draws[:, position])
        cell = draws.cells.iloc[position]
        mark = {"x": float(cell[x]), "y": 100 * float(cell["error"]), "low": 100 * low, "high": 100 * high}
        marks.append({"mark": "point", "text": _cell_text(cell, low, high)} | mark | fixed)
    return marks


def _cell_text(cell: "pd.Series[Any]", low: float, high: float) -> str:
    ends = f" {percent_interval(low, high)}" if isfinite(low) else ""
    where = budget_text(str(cell["regime"]), float(cell["budget"]))
    runs = plural(int(cell["runs"]), "run")
    return f"{configuration_text(cast('Any', cell))}, {where}: {percent(cell['error'])} %{ends}, {runs}"


def panel_text(metric: str, regime: str) -> str:
    """A panel's title: its metric, its regime, both or neither."""
    return ", ".join(filter(None, (metric and metric_text(metric), regime.replace("-", " "))))


def said_once(*sentences: str) -> str:
    """A caption of these sentences without the empty ones, each of them once: panels share some."""
    return " ".join(f"{capital(sentence)}." for sentence in dict.fromkeys(filter(None, sentences)))


def runs_text(draws: CellDraws, positions: Iterable[int]) -> str:
    """How many runs of how many cells stand behind a figure."""
    runs = draws.cells["runs"].to_numpy(np.int64)[list(positions)]
    return f"{plural(int(runs.sum()), 'run')} of {plural(len(runs), 'cell')}"


def intervals_text(several: Sequence[CellDraws]) -> str:
    """Where the intervals of several measures come from: said once where they differ in the noise alone."""
    noises: dict[str, list[str]] = {}
    for draws in several:
        noise = f"vary {draws.noise:.2f} times"
        noises.setdefault(draws.explanation.replace(noise, "vary {} times"), []).append(f"{draws.noise:.2f}")
    return ". ".join(
        capital(said.replace("{}", listed([*dict.fromkeys(values)]))) for said, values in noises.items()
    )


def runs_texts(panels: Iterable[tuple[CellDraws, Iterable[int]]]) -> list[str]:
    """How many runs of how many cells stand behind the panels of each measure."""
    behind: dict[int, tuple[CellDraws, list[int]]] = {}
    for draws, positions in panels:
        behind.setdefault(id(draws), (draws, []))[1].extend(positions)
    return [runs_text(draws, positions) for draws, positions in behind.values()]


def error_label(metrics: Sequence[str]) -> str:
    """The y axis of panels that share it."""
    return f"{metric_text(metrics[0])} (%)" if len(set(metrics)) == 1 else "error (%)"
