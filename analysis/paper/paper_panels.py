"""The panels of "Scaling (Down) CLIP": the digitised ones and how they are read, and the others."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import pandas as pd

from analysis.cells.imported_table import ColumnMap, import_table
from analysis.cells.table import CELL
from analysis.labels import listed
from budgets.quantity import plural

SOURCE = "Li, Xie and Cubuk 2024 (arXiv 2404.08197)"
"""Source of the digitised figures."""

ZERO_SHOT, PROBE = "imagenet/top1", "imagenet/probe_top1"
FEW_SHOT = ("imagenet/few_shot_5_top1", "imagenet/few_shot_10_top1")
SIX, FIVE = "variants-6/top1", "variants-5/top1"
"""Means over variants of ImageNet; figures 2 and 9 agree with six variants, figure 17 with five."""
OTHER_PROBE = "other-sets/probe_top1"
RETRIEVAL = ("coco/image_to_text_r1", "coco/text_to_image_r1")

# A mean over n sets has the counting noise of n² ÷ Σ 1/images images. ImageNet-A has 7,500, -R 30,000,
# -Sketch 50,889, -V2 10,000, -ReaL 46,837, ObjectNet 18,574. The paper does not name the probed sets; the
# five are assumed.
_IMAGES = {
    "imagenet": 50_000, "coco": 5_000, "variants-6": 99_600, "variants-5": 73_500, "other-sets": 73_500,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """Reading of one panel.

    Attributes:
        reader: Name of the column map for its layout; panels of one reader form one table.
        metric: Metric of the panel, as a column of the results schema.
        better: Direction in which its values are better.
    """

    reader: str
    metric: str
    better: Literal["lower", "higher"]


_READINGS: Mapping[str, Mapping[str, str]] = {
    "paper-augmentation": {"1b": ZERO_SHOT},
    "paper-epochs": {
        "2a": ZERO_SHOT, "2b": SIX, "3a": FEW_SHOT[0], "3b": FEW_SHOT[1], "4a": RETRIEVAL[0],
        "4b": RETRIEVAL[1],
    },
    "paper-quality": {
        "5a": ZERO_SHOT, "5b": ZERO_SHOT, "6a": FEW_SHOT[0], "6b": FEW_SHOT[1], "6c": FEW_SHOT[0],
        "6d": FEW_SHOT[1], "7a": RETRIEVAL[0], "7b": RETRIEVAL[1], "7c": RETRIEVAL[0], "7d": RETRIEVAL[1],
    },
    "paper-equal-samples": {
        "8a": ZERO_SHOT, "9a": ZERO_SHOT, "9b": SIX, "10a": PROBE, "10b": OTHER_PROBE, "11a": RETRIEVAL[0],
        "11b": RETRIEVAL[1], "11c": RETRIEVAL[0], "11d": RETRIEVAL[1],
    },
    "paper-one-epoch": {"8b": ZERO_SHOT},
    "paper-architectures": {"13a": ZERO_SHOT},
    "paper-architectures-probe": {"14a": PROBE},
    "paper-strategies": {
        "17a": ZERO_SHOT, "17b": FIVE, "18c": RETRIEVAL[0], "18d": RETRIEVAL[1], "19a": PROBE,
        "19b": OTHER_PROBE,
    },
}  # fmt: skip
"""Column map → panel → metric of the panel."""

_ACCURACIES = ("1b", "8a", "11a", "11b")
"""Panels that show accuracies instead of errors."""

PANELS = {
    panel: Panel(reader=reader, metric=metric, better="higher" if panel in _ACCURACIES else "lower")
    for reader, panels in _READINGS.items()
    for panel, metric in panels.items()
}
"""Panels of the digitised tables."""

READERS = tuple(_READINGS)
"""Names of the column maps that read the panels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NotDigitised:
    """Panels that are not in the tables.

    Attributes:
        panels: Names of the panels; the number of a figure means all its panels.
        shows: Content of the panels.
        kinds: Names of the report figures that show the same for a study.
    """

    panels: tuple[str, ...]
    shows: str
    kinds: tuple[str, ...] = ()


NOT_DIGITISED = (
    NotDigitised(
        panels=("1a",),
        shows="zero-shot error against compute of all models and strategies; its ViTs are those of figure 8b",
        kinds=("error-compute-architecture", "error-compute-strategy"),
    ),
    NotDigitised(
        panels=("12a", "12b"), shows="architectures in one epoch, against samples and against compute",
        kinds=("error-compute-architecture",),
    ),
    NotDigitised(panels=("13b",), shows="architectures on ImageNet's variants", kinds=("shift",)),
    NotDigitised(panels=("14b",), shows="architectures by linear probes on other sets", kinds=("probe",)),
    NotDigitised(
        panels=("15a", "15b", "15c", "15d"), shows="architectures by retrieval", kinds=("retrieval",)
    ),
    NotDigitised(
        panels=("16a", "16b"), kinds=("error-samples-strategy", "error-compute-strategy"),
        shows="training strategies in one epoch, against samples and against compute",
    ),
    NotDigitised(panels=("18a", "18b"), shows="training strategies by retrieval, in one epoch"),
    NotDigitised(
        panels=("20", "21", "22", "23", "24", "26", "27"), kinds=("shift",),
        shows="ImageNet's variants one by one, and against ImageNet",
    ),
    NotDigitised(panels=("25",), shows="few-shot errors of the models", kinds=("probe",)),
)  # fmt: skip
"""Panels without an image when the figures were read."""


def read_panels(figures: pd.DataFrame, maps: Mapping[str, ColumnMap]) -> dict[str, pd.DataFrame]:
    """Read all panels.

    Args:
        figures: ``results/paper/figures.csv``.
        maps: The column maps of ``READERS``.

    Returns:
        Reader → its table in the results schema: one row per trial, one column per metric.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    for name, panel in PANELS.items():
        how = maps[panel.reader]
        figure, letter = _parts(name)
        images = _IMAGES[panel.metric.partition("/")[0]]
        rows = {**how.rows, "figure": (figure,), "panel": (letter,)}
        how = replace(how, rows=rows, metric=panel.metric, better=panel.better, images=images)
        tables.setdefault(panel.reader, []).append(import_table(figures, how))
    return {reader: _together(parts) for reader, parts in tables.items()}


def _together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Merge what several panels show of one trial into one row."""
    cell = [name for name in CELL if name != "budget"] + ["samples_seen"]
    table = pd.concat(parts, ignore_index=True).groupby(cell, as_index=False, sort=False).first()
    return table.assign(trial=[f"row-{place + 1}" for place in range(len(table))])


def reading_text(figures: pd.DataFrame, panels: Sequence[str]) -> str:
    """Return a caption text on how panels were read, and how precisely."""
    parts = pd.concat([_rows(figures, panel) for panel in panels])
    low, high = parts["precision"].min(), parts["precision"].max()
    within = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    notes = parts["note"].fillna("")
    hidden = int(notes.str.contains("hidden marker|% visible").sum())
    also = [f"{hidden} of markers that others hide partly or fully"] if hidden else []
    also += (
        ["the paper shows accuracy, this figure error"]
        if any(PANELS[panel].better == "higher" for panel in panels)
        else []
    )
    also += [
        note
        for note in dict.fromkeys("; ".join(notes).split("; "))
        if note and not re.search("hidden marker|own line segments|% visible|bar height", note)
    ]
    readings = f"{plural(len(parts), 'reading')} of {panels_text(panels)}"
    return "; ".join([f"{readings}, made for this project, to within {within} points", *also])


def panels_text(panels: Sequence[str]) -> str:
    """Return panels in words: ``("2a", "2b", "9a")`` → ``figures 2a, 2b and 9a``."""
    return f"figure{'s' if len(panels) > 1 else ''} {listed(panels)}"


def _rows(figures: pd.DataFrame, panel: str) -> pd.DataFrame:
    figure, letter = _parts(panel)
    here = (figures["figure"] == int(figure)) & (figures["panel"] == letter)
    return figures[here & (figures["source"] == "digitised")]


def _parts(panel: str) -> tuple[str, str]:
    figure, letter = ("".join(part) for _, part in groupby(panel, str.isdigit))
    return figure, letter
