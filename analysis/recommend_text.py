"""A recommendation as the command line prints it."""

from collections.abc import Mapping
from math import isnan
from typing import Any

from analysis.labels import configuration_text, percent, percent_interval, plural
from analysis.recommend import Recommendation
from analysis.table import is_loss, records
from budgets.quantity import format_flops


def recommendation_lines(
    found: Recommendation, *, flops: float, pairs: float, source: str, metric: str
) -> tuple[str, ...]:
    """What to train, how good that will be and how sure it is, and what would decide."""
    word, loss = ("loss", True) if is_loss(metric) else ("error", False)
    rows = records(found.candidates)
    first, choice = rows[0], found.choice
    distance = "within the measured budgets"
    if first["beyond"]:
        distance = f"{first['factor']:.3g} times beyond the measured budgets"
    spent = ""
    if first["flops"] < flops * 0.999:
        spent = f"; it uses up its data at {format_flops(first['flops'])} of {format_flops(flops)}"
    lines = [
        f"{format_flops(flops)} and a pool of {pairs:,.0f} pairs, from {source}:",
        f"  train {configuration_text(first)}{spent}",
        f"  predicted {word} {_error_text(first, loss=loss)}, {distance}",
        f"  law: {_law_text(first)}",
        f"    ({first['law_reason']})",
        f"  {choice.verdict}: {choice.reason}",
    ]
    if choice.runner_up is not None:
        second = rows[choice.runner_up]
        lines.append(f"  runner-up: {configuration_text(second)}, {_error_text(second, loss=loss)}")
        if second["law"] != first["law"]:
            lines.append(f"    by another law: {_law_text(second)}")
    lines += [f"  next: {found.experiment}", f"  intervals: {found.explanation}"]
    lines += ["  points: hundredths of the loss"] if loss else []
    if len(found.left_out):
        lines += [
            f"  not forecast: {plural(int(count), 'curve')}: {reason}"
            for reason, count in found.left_out["reason"].value_counts().items()
        ]
    return tuple(lines)


def _law_text(row: Mapping[Any, Any]) -> str:
    return f"{row['law']}; it missed held-out budgets by {percent(row['law_error'], 2)} points"


def _error_text(row: Mapping[Any, Any], *, loss: bool) -> str:
    if loss:
        ends = "" if isnan(row["low"]) else f" [{row['low']:.3f}, {row['high']:.3f}]"
        return f"{row['error']:.3f}{ends}"
    return f"{percent(row['error'])} % {percent_interval(row['low'], row['high'])}".rstrip()
