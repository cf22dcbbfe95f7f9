"""The data of a figure before it is drawn: marks, axis labels and caption."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.belief.cell_draws import CellDraws
from analysis.belief.verdict import LEADS
from analysis.cells.intervals import column_intervals
from analysis.cells.table import records
from analysis.error_unit import ErrorUnit
from analysis.labels import cell_text, listed, metric_text
from budgets.quantity import plural

MARKS = (
    "other", "reference", "point", "undecided", "law", "extrapolation", "best", "best, not clear", "minimum",
    "line", "cell", "dropped",
)  # fmt: skip
_BLANK: dict[str, Any] = {
    "panel": "", "series": "", "mark": "", "line": "",
    "x": np.nan, "y": np.nan, "low": np.nan, "high": np.nan, "label": "", "text": "",
}  # fmt: skip
COLUMNS = tuple(_BLANK)
JOINED = "joined"
"""Value of ``line`` for points that a thin line joins."""

AXIS_WORDS = {
    "architecture": "architecture", "strategy": "training strategy", "subset_size": "data size",
    "quality": "quality of the data",
}  # fmt: skip
"""Part of the configuration → its name in titles."""

FRONTIER, MAP = "lowest by the law", "map"
"""Series that are drawn in black."""

BEYOND = 10.0
"""Factor of compute by which figures forecast beyond the data without a target."""
_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureData:
    """The data of one figure.

    Attributes:
        name: File name without suffix.
        title: Title for headings.
        x_label: Label of the x axis, with unit.
        y_label: Label of the y axis, with unit.
        frame: One row per mark, with columns ``COLUMNS``: everything that is drawn, and nothing else;
            ``text`` describes the mark in words; in ``curves`` the ``label`` of a star is written beside it.
        finding: What the figure shows, in one sentence; a page has it in bold.
        caption: What is drawn, in one sentence; what all figures share is said once, on the page.
        kind: Kind of drawing: ``curves`` (points whose ``line`` is ``JOINED`` are joined by a thin line);
            ``grid`` (cells in rows named by ``label`` and columns named by ``line``).
        x_scale: Scale of x in ``curves``; ``logit`` is for percentages.
        y_scale: Scale of y in ``curves``.
        by: What the series are, such as ``strategy``, whose colour is the same in every figure; empty if
            the figure says nothing of it.
        order: Series → the number by which it is coloured on one ramp, such as its budget, pairs or FLOPs per
            sample; empty for series without order.
        families: Series → the word that its marker shows, such as the family of an architecture.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    frame: pd.DataFrame
    caption: str
    kind: Literal["curves", "grid"] = "curves"
    x_scale: Literal["log", "linear", "logit"] = "log"
    y_scale: Literal["log", "linear", "logit"] = "linear"
    finding: str = ""
    by: str = ""
    order: Mapping[str, float] = field(default_factory=dict)
    families: Mapping[str, str] = field(default_factory=dict)

    @property
    def alt(self) -> str:
        """Text for readers who cannot see the figure; each mark has its own text beside it."""
        return f"{self.title}. {self.finding or self.caption}"

    @property
    def wide(self) -> bool:
        """True if the figure spans both columns of a page."""
        return self.kind == "grid" or len(set(self.frame["panel"])) > 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """A figure that the data do not support, with the reason."""

    title: str
    reason: str


def mark_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return the frame of a figure from rows of marks; absent values are empty or NaN."""
    frame = pd.DataFrame([_BLANK | row for row in rows], columns=list(COLUMNS))
    assert frame["mark"].isin(MARKS).all(), "drawing knows no other mark"
    return frame


def cell_marks(
    draws: CellDraws, positions: Iterable[int], *, x: str, **fixed: object
) -> list[dict[str, Any]]:
    """Return a ``point`` per cell: its error in its unit, the interval of its draws, and its text.

    ``x`` is the column of the cells for the x axis; all marks share the ``fixed`` columns.
    """
    unit, places = draws.error_unit, list(positions)
    lows, highs = column_intervals(draws.draws[:, places])
    return [
        {
            "mark": "point", "text": f"{cell_text(cell)}: {unit.text(cell['error'], low, high)}, "
            f"{plural(int(cell['runs']), 'run')}",
            "x": float(cell[x]), "y": unit.factor * cell["error"],
            "low": unit.factor * low, "high": unit.factor * high,
        } | fixed
        for cell, low, high in zip(records(draws.cells.iloc[places]), lows, highs, strict=True)
    ]  # fmt: skip


def band_marks(
    mark: str, band: pd.DataFrame, unit: ErrorUnit, *, ratio: float = 1.0, **fixed: object
) -> list[dict[str, Any]]:
    """Return a mark per point of a band (`intervals.band`): errors in their unit, and ``ratio`` times x."""
    factor = pd.Series(dict.fromkeys(("y", "low", "high"), unit.factor) | {"x": ratio})
    return [{"mark": mark, **fixed} | point for point in records(band * factor)]


def architecture_order(cells: pd.DataFrame) -> dict[str, float]:
    """Return the ``order`` of architectures: their FLOPs per sample, the median over cells or trials."""
    return dict(cells.groupby("architecture")["train_flops_per_sample"].median().astype(float))


def architecture_families(cells: pd.DataFrame) -> dict[str, str]:
    """Return the ``families`` of architectures, with the patch size that a ViT's name ends with."""
    labels = {}
    for name, family in zip(cells["architecture"], cells["family"], strict=True):
        patch = re.search(r"[-/](\d+)(?!.*\d)", name)
        labels[name] = f"{family}, patch {patch[1]}" if patch else family
    return labels


def star(verdict: str) -> str:
    """Return the mark of the best at a budget: a filled star if it is clear, also by forecast."""
    return "best" if verdict in LEADS else "best, not clear"


def finding(rows: Sequence[Mapping[str, Any]], unit: ErrorUnit) -> str:
    """Return who is ahead, and by how much, at the largest budget where that is clear, in one sentence.

    ``rows`` rise in budget and have ``at`` and ``best``, in words, and the columns of a ``Verdict``.
    """
    if not rows:
        return ""
    clear = [row for row in rows if row["verdict"] in LEADS]
    row = clear[-1] if clear else rows[-1]
    ahead = unit.gap(row["gap"], row["gap_low"], row["gap_high"])
    lead = f" by {ahead}" if row["runner_up"] else ""
    if not clear:
        return f"No budget has a clear winner; at {row['at']} {row['best']} leads{lead}."
    others = {other["best"] for other in clear} - {row["best"]}
    also = listed([other["at"] for other in clear[:-1]]) if 1 < len(clear) <= _NAMED else ""
    rest = f"; clear also at {also or plural(len(clear) - 1, 'other budget')}" if len(clear) > 1 else ""
    if len(clear) == len(rows) > 1 and not others:
        rest = " and at every smaller budget"
    elif len(clear) < len(rows):
        ties = {row["verdict"] for row in rows} <= {*LEADS, "tie"}
        rest += "; elsewhere ties" if ties else "; elsewhere nothing is decided"
    return f"{row['best']} is ahead{lead} at {row['at']}{rest}."


def error_label(*metrics: str) -> str:
    """Return the label of an axis of errors by one metric, or by several that panels share."""
    unit = ErrorUnit.of(metrics[0])
    return unit.heading_of(metric_text(metrics[0]) if len(set(metrics)) == 1 else unit.word)
