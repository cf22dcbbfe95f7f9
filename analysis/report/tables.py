"""A table of texts, made of a frame and a list of columns: a heading, and the way from a row to its text."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, NamedTuple

import pandas as pd

from analysis.answers.answer_text import verdict_text
from analysis.cells.table import records
from analysis.error_unit import ErrorUnit
from analysis.labels import axis_text, budget_text, configuration_text, count_text, epochs_text
from budgets.quantity import format_flops, format_number

EMPTY = "–"


class TextColumn(NamedTuple):
    """A column of a table: its heading, and the function from a row to the text of its cell.

    One that stays is shown also where all of its texts are alike.
    """

    head: str
    text: Callable[[Any], str]
    stays: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table whose cells are texts.

    Attributes:
        name: File name without suffix.
        title: Heading.
        note: Meaning of its numbers, and what all of its rows share.
        frame: The cells, with the headings as column names.
        alike: Columns that only the CSV has, because all of their cells are the same.
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame
    alike: tuple[str, ...] = ()

    @property
    def shown(self) -> pd.DataFrame:
        """The columns that differ between the rows."""
        return self.frame.drop(columns=[*self.alike])

    @classmethod
    def of(
        cls,
        name: str,
        title: str,
        note: str,
        rows: pd.DataFrame | Iterable[Any],
        columns: Sequence[TextColumn],
    ) -> "Table":
        """Return a table with a row for each of a frame, or of any things that the columns take.

        A column without a text is not shown, and neither is one with the same text in all of several rows,
        which the note then says. The first column stays.
        """
        things = records(rows) if isinstance(rows, pd.DataFrame) else list(rows)
        cells = {one.head: [one.text(row) or EMPTY for row in things] for one in columns}
        may_go = [one.head for one in columns[1:] if not one.stays]
        same = {head: cells[head][0] for head in may_go if len({*cells[head]}) == 1}
        alike = {head: text for head, text in same.items() if len(things) > 1 or text == EMPTY}
        shared = "; ".join(f"{head} {text}" for head, text in alike.items() if text != EMPTY)
        note = ". ".join(filter(None, [note.rstrip("."), shared and f"In all rows: {shared}"]))
        return cls(name=name, title=title, note=note, frame=pd.DataFrame(cells), alike=tuple(alike))


def column(head: str, name: str, text: Callable[[Any], str] = str) -> TextColumn:
    """Return a column of a table from one of a frame; a value that is NaN or None has no text."""

    def cell(row: Mapping[str, Any]) -> str:
        value = row[name]
        return "" if value is None or (isinstance(value, float) and isnan(value)) else text(value)

    return TextColumn(head, cell)


def interval(
    head: str, text: Callable[[float, float], str], low: str = "low", high: str = "high"
) -> TextColumn:
    """Return a column of intervals from the two columns of their ends."""
    return TextColumn(head, lambda row: text(row[low], row[high]))


def number(form: str) -> Callable[[float], str]:
    """Return the function that writes a number in a format."""
    return lambda value: format_number(value, form)


def probability_text(probability: float) -> str:
    """Return a probability with two digits; near 0 and 1, beyond the precision of the draws, as a bound."""
    if isnan(probability):
        return EMPTY
    if not 0.005 <= probability < 0.995:  # noqa: PLR2004 (what rounds to 0 or 1)
        return ">.99" if probability > 0.5 else "<.01"  # noqa: PLR2004
    return format_number(probability, ".2f")


def errors(unit: ErrorUnit) -> tuple[TextColumn, TextColumn]:
    """Return the columns of errors and of their intervals."""
    return column(unit.heading, "error", unit.number), interval("Interval", unit.interval)


BUDGET = TextColumn("Budget", lambda row: budget_text(row["regime"], row["budget"]))
NAMED = TextColumn("Configuration", configuration_text)
PARTS = (
    column("Architecture", "architecture")._replace(stays=True),
    column("Strategy", "strategy", lambda name: axis_text("strategy", name))._replace(stays=True),
    column("Pairs", "subset_size", count_text),
    column("Quality", "quality", lambda name: axis_text("quality", name)),
)
"""The parts of a configuration."""
EPOCHS = column("Epochs", "epochs", epochs_text)
FLOPS = column("FLOPs", "train_flops", format_flops)
STATUS, REASON = column("Status", "status"), column("Reason", "reason")
VERDICT = TextColumn(
    "Verdict", lambda row: verdict_text(row["verdict"], row.get("distance", 1.0)), stays=True
)
