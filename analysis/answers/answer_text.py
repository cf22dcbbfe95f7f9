"""An answer in one line, in the words that every command, the view of a run and the page share."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from budgets.quantity import format_times

if TYPE_CHECKING:  # for the terminal, which starts without what it needs
    from analysis.error_unit import ErrorUnit

_NUMBER = re.compile(r"(?<=\berror )\S+ %|(?<=\bloss )\S+(?= \[|,)")


def answer_line(at: str, leader: str, row: Mapping[str, Any], unit: "ErrorUnit", *, tied: int) -> str:
    """Return the answer at a budget in one line.

    Such as ``1.8 TFLOP: ViT-B-32, CLIP, 13M pairs, all: error 57.2 % [55.8, 58.8], tie of 2``.

    Args:
        at: The budget in words.
        leader: The configuration in words.
        row: Its ``error`` with ``low`` and ``high``, ``runs`` at the budget, ``by_trunk`` if these are trunk
            states alone, the ``verdict`` and its ``distance``.
        unit: Unit of the errors.
        tied: Number of configurations that are tied, if that is the verdict.
    """
    error = error_text(row, unit, predicted=not row["runs"])
    longer = {"tie": f"tie of {tied}", "beaten": "a cheaper one is lower"}
    verdict = longer.get(row["verdict"]) or verdict_text(row["verdict"], row["distance"])
    return f"{at}: {leader}: {error}, {verdict}"


def verdict_text(kind: str, distance: float) -> str:
    """Return a verdict in words, such as ``clear`` and ``clear by forecast (6 ×)``."""
    return f"clear by forecast ({format_times(distance)})" if kind == "forecast" else kind


def reason_lines(row: Mapping[str, Any], first: str, *others: str, tied: Iterable[str]) -> list[str]:
    """Return the lines below an answer with the ``verdict`` of a row: its reasons, and what is tied."""
    ties = f"tied: {'; '.join(tied)}" if row["verdict"] == "tie" else ""
    return [f"  {line}" for line in (first, ties, *others) if line]


def error_text(row: Mapping[str, Any], unit: "ErrorUnit", *, predicted: bool) -> str:
    """Return the ``error`` of a row with its interval, if it has one, and what it is read from."""
    value, source = unit.named(row["error"], row["low"], row["high"]), source_text(row, predicted=predicted)
    return f"{value} {source}" if row.get("by_trunk") else f"{source} {value}".lstrip()


def source_text(row: Mapping[str, Any], *, predicted: bool) -> str:
    """Return what an error is read from, if not from runs there: ``by its trunk`` or ``predicted``."""
    return "by its trunk" if row.get("by_trunk") else "predicted" if predicted else ""


def parts_of(line: str) -> tuple[str, str, str]:
    """Return a line in three parts, of which the second is its first error: the number to show in bold."""
    number = _NUMBER.search(line)
    return (line[: number.start()], number[0], line[number.end() :]) if number else (line, "", "")
