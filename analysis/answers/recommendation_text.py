"""A recommendation as the command line prints it."""

from collections.abc import Mapping
from typing import Any

from analysis.answers.recommendation import Recommendation
from analysis.cells.pareto import SAME_COST
from analysis.cells.table import records
from analysis.error_unit import ErrorUnit
from analysis.labels import configuration_text
from budgets.quantity import format_flops, plural

_MOST_LISTED = 12


def recommendation_lines(
    found: Recommendation, *, flops: float, pairs: float, source: str, metric: str
) -> tuple[str, ...]:
    """Return what to train, the error to expect, how sure that is, and what to run next."""
    unit = ErrorUnit.of(metric)
    rows = records(found.candidates)
    first, choice = rows[0], found.choice
    tied = f" (tied with {plural(len(choice.members) - 1, 'other')})" if choice.verdict == "tie" else ""
    ends = f"; its data are used up at {100 * first['share']:.2g} % of the budget" if first["uses_up"] else ""
    known = [
        f"  {_error_text(first, unit)}, {_known_text(first)}",
        *([f"  law: {_law_text(first, unit)}", f"    ({first['law_reason']})"] if first["law"] else []),
    ]
    if choice.verdict == "undecided":
        lines = [
            f"  the data do not show what to train: {choice.reason}", f"  to decide: {found.experiment}",
            f"  lowest: {first['name']}{ends}", *known,
        ]  # fmt: skip
    else:
        lines = [
            f"  train {first['name']}{tied}{ends}", *known,
            f"  {choice.verdict}: {choice.reason}", f"  next: {found.experiment}",
        ]  # fmt: skip
    lines = [f"{format_flops(flops)} and a pool of {pairs:,.0f} pairs, from {source}:", *lines]
    lines += _data_lines(found, pairs, unit)
    for place, row in enumerate(rows[1 : 1 + _MOST_LISTED]):
        how = f"by {row['read']}, {_known_text(row)}" if row["law"] else _known_text(row)
        lines.append(f"  {'also' if place else 'runner-up'}: {row['name']}, {_error_text(row, unit)}, {how}")
    if len(rows) > 1 + _MOST_LISTED:
        lines.append(f"  also: {plural(len(rows) - 1 - _MOST_LISTED, 'other configuration')}")
    others = {row["law"]: row for row in reversed(rows) if row["law"] not in ("", first["law"])}
    lines += [f"    {_law_text(row, unit)}" for row in others.values()]
    lines.append(f"  intervals: {found.explanation}")
    if len(found.left_out):
        lines += [
            f"  not read: {plural(int(count), 'configuration')}: {reason}"
            for reason, count in found.left_out["reason"].value_counts().items()
        ]
    return tuple(lines)


def _data_lines(found: Recommendation, pairs: float, unit: ErrorUnit) -> list[str]:
    """Return lines that compare the pool with the measured pools."""
    lines = []
    first = records(found.candidates)[0]
    if first["pool"] > found.pool * SAME_COST:
        lines.append(
            f"  data: {first['pool'] / found.pool:.3g} times as many pairs as the largest measured pool "
            f"({found.pool:,.0f}): the worth of the new pairs is extrapolated with the compute"
        )
    elif pairs > found.pool * SAME_COST:
        lines.append(
            f"  data: your pool is {pairs / found.pool:.3g} times as large as the largest measured "
            f"({found.pool:,.0f} pairs): the answer holds for the measured pools, not for more data"
        )
    if found.better is not None:
        lines.append(
            f"  data: a pool of {found.better['pool']:,.0f} pairs would allow "
            f"{configuration_text(found.better)}: {unit.named(found.better['error'])}"
        )
    return lines


def _known_text(row: Mapping[Any, Any]) -> str:
    """Return the source of an error, with its compute if that is not the budget."""
    if row["measured"]:
        less = f"at {format_flops(row['flops'])}, which costs only {100 * row['share']:.2g} % of the budget"
        return f"measured {'here' if row['share'] >= 1 / SAME_COST else less}"
    where = f"{row['factor']:.3g} times beyond" if row["beyond"] else "within"
    return f"{'' if row['law'] else row['read'] + ', '}{where} the measured budgets"


def _law_text(row: Mapping[Any, Any], unit: ErrorUnit) -> str:
    return f"{row['law']}; it missed held-out budgets by {unit.gap(row['law_error'], fine=True)}"


def _error_text(row: Mapping[Any, Any], unit: ErrorUnit) -> str:
    value = f"{unit.named(row['error'])} {unit.interval(row['low'], row['high'])}".rstrip()
    return value if row["measured"] else f"predicted {value}"
