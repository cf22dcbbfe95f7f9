"""A recommendation as the command line prints it."""

from collections.abc import Mapping
from math import isinf
from typing import Any

from analysis.answers.recommendation import Recommendation, times_text
from analysis.cells.pareto import SAME_COST
from analysis.cells.table import records
from analysis.error_unit import ErrorUnit
from analysis.labels import configuration_text
from budgets.quantity import format_flops, plural

_MOST_LISTED, _ODDS = 12, 0.005


def recommendation_lines(
    found: Recommendation, *, flops: float, pairs: float, source: str, metric: str
) -> tuple[str, ...]:
    """Return what to train, the error to expect, how sure that is, and what to run next."""
    unit = ErrorUnit.of(metric)
    rows = records(found.candidates)
    first, verdict = rows[0], found.verdict
    tied = f" (tied with {plural(len(verdict.members) - 1, 'other')})" if verdict.kind == "tie" else ""
    ends = f"; its data are used up at {100 * first['share']:.2g} % of the budget" if first["uses_up"] else ""
    known = _known_text(first) if len(verdict.members) > 1 else _source_text(first)
    if verdict.kind == "undecided":
        lines = [
            f"  the data do not show what to train: {verdict.reason}", f"  to decide: {found.experiment}",
            f"  lowest: {first['name']}{ends}", f"  {_error_text(first, unit)}, {known}",
        ]  # fmt: skip
    else:
        lines = [
            f"  train {first['name']}{tied}{ends}", f"  {_error_text(first, unit)}, {known}",
            f"  {verdict.kind}: {verdict.reason}", f"  next: {found.experiment}",
        ]  # fmt: skip
    lines = [f"{format_flops(flops)} and a pool of {pairs:,.0f} pairs, from {source}:", *lines]
    lines += _data_lines(found, pairs, unit)
    if found.cheaper and found.cheaper not in verdict.reason:
        lines.append(f"  cheaper: {found.cheaper}")
    for place, row in enumerate(rows[1 : 1 + _MOST_LISTED]):
        said = f"{row['name']}, {_error_text(row, unit)}, {_known_text(row)}"
        lines.append(f"  {'also' if place else 'runner-up'}: {said}")
    if len(rows) > 1 + _MOST_LISTED:
        lines.append(f"  also: {plural(len(rows) - 1 - _MOST_LISTED, 'other configuration')}")
    lines.append(f"  intervals: {found.explanation}")
    lines += [
        f"  not read: {plural(int(count), 'configuration')}: {reason}"
        for reason, count in found.left_out["reason"].value_counts().items()
    ]
    return tuple(lines)


def _data_lines(found: Recommendation, pairs: float, unit: ErrorUnit) -> list[str]:
    """Return lines that compare the pool and its epochs with those that were measured."""
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
    if first["epochs"] > max(1.0, first["own_epochs"]) * SAME_COST:
        own = (
            f"its runs saw theirs at most {times_text(first['own_epochs'])}, " if first["own_epochs"] else ""
        )
        lines.append(
            f"  epochs: each pair is seen {times_text(first['epochs'])}; {own}"
            f"no run of the study more than {times_text(first['most_epochs'])}"
        )
    if found.better is not None and unit.named(found.better["error"]) != unit.named(first["error"]):
        lines.append(
            f"  data: a pool of {found.better['pool']:,.0f} pairs would allow "
            f"{configuration_text(found.better)}: {unit.named(found.better['error'])}"
        )
    return lines


def _known_text(row: Mapping[Any, Any]) -> str:
    """Return the source of an error, with its compute if that is not the budget, and the odds."""
    odds = f", the lowest in {row['probability']:.0%} of the draws" if row["probability"] >= _ODDS else ""
    return f"{_source_text(row)}{odds}"


def _source_text(row: Mapping[Any, Any]) -> str:
    here = row["share"] >= 1 / SAME_COST
    less = f"at {format_flops(row['flops'])}, which costs only {100 * row['share']:.2g} % of the budget"
    if row["measured"]:
        return f"measured {'here' if here else less}"
    sizes = f"{row['sizes']}, " if row["sizes"] else ""
    if isinf(row["factor"]):
        return f"{sizes}never run"
    where = f"{row['factor']:.3g} times beyond" if row["beyond"] else "within"
    return f"{sizes}{'' if here or row['uses_up'] else less + ', '}{where} the measured budgets"


def _error_text(row: Mapping[Any, Any], unit: ErrorUnit) -> str:
    value = f"{unit.named(row['error'])} {unit.interval(row['low'], row['high'])}".rstrip()
    return value if row["measured"] else f"predicted {value}"
