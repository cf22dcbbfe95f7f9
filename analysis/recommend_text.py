"""A recommendation as the command line prints it."""

from collections.abc import Mapping
from typing import Any

from analysis.labels import configuration_text, percent, percent_interval, plural
from analysis.recommend import Recommendation
from analysis.table import records
from budgets.quantity import format_flops


def recommendation_lines(
    found: Recommendation, *, flops: float, pairs: float, source: str
) -> tuple[str, ...]:
    """What to train, how good that will be and how sure it is, and what would decide."""
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
        f"  predicted error {_error_text(first)}, {distance}",
        f"  law: {_law_text(first)}",
        f"    ({first['law_reason']})",
        f"  {choice.verdict}: {choice.reason}",
    ]
    if choice.runner_up is not None:
        second = rows[choice.runner_up]
        lines.append(f"  runner-up: {configuration_text(second)}, {_error_text(second)}")
        if second["law"] != first["law"]:
            lines.append(f"    by another law: {_law_text(second)}")
    lines += [f"  next: {found.experiment}", f"  intervals: {found.explanation}"]
    if len(found.left_out):
        lines += [
            f"  not forecast: {plural(int(count), 'curve')}: {reason}"
            for reason, count in found.left_out["reason"].value_counts().items()
        ]
    return tuple(lines)


def _law_text(row: Mapping[Any, Any]) -> str:
    return f"{row['law']}; it missed held-out budgets by {percent(row['law_error'], 2)} points"


def _error_text(row: Mapping[Any, Any]) -> str:
    return f"{percent(row['error'])} % {percent_interval(row['low'], row['high'])}".rstrip()
