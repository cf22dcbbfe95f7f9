"""A recommendation as the command line prints it."""

from collections.abc import Mapping, Sequence
from math import isinf, isnan
from typing import Any

import pandas as pd

from analysis.answers.answer_text import answer_line, error_text
from analysis.answers.least_compute import least_text
from analysis.answers.outliers import outlier_lines
from analysis.answers.recommendation import Recommendation, times_text
from analysis.belief.verdict import LEADS, MATTERS, draws_text
from analysis.cells.pareto import SAME_COST
from analysis.cells.table import records
from analysis.labels import configuration_text
from budgets.quantity import format_flops, format_number, format_times, plural

_MOST_LISTED = 3


def recommendation_lines(
    advice: Recommendation, *, source: str, apart: pd.DataFrame | None = None, why: bool = False
) -> tuple[str, ...]:
    """Return what to train and its expected error in a line, what to run next, and what else fits.

    ``source`` says where the results are from. Of the runs ``apart`` that stand out (`outliers.outliers`)
    those of the leaders' architecture, strategy and quality are listed. With ``why``, also what the answer
    rests on, and the configurations that could not be read.
    """
    unit, pairs = advice.error_unit, advice.pairs
    first, *others = records(advice.candidates)
    verdict = advice.verdict
    row = first | {"runs": first["measured"], "verdict": verdict.kind, "distance": verdict.distance}
    leader = first["name"] + _repeated(first)
    lines = (
        [] if advice.least is None else [least_text(advice.least, unit, served=bool(first["serving_flops"]))]
    )
    lines += [answer_line(format_flops(advice.flops), leader, row, unit, tied=len(verdict.members))]
    if first["serving_flops"]:
        training, serving = format_flops(first["flops"]), format_flops(first["serving_flops"])
        lines.append(f"  training takes {training}, serving {serving}")
    if first["uses_up"]:
        lines.append(
            f"  its data are used up at {format_number(100 * first['share'], '.2g')} % of the budget"
        )
    if why or (first["share"] < 1 / SAME_COST and not first["uses_up"]):
        lines.append(f"  {_source_text(first)}")
    lines += [f"  {verdict.reason}"] if why else []
    lines += [f"  trunk states count for no run: {advice.unlearned}"] if advice.unlearned else []
    lines.append(f"  {'next' if verdict.kind in LEADS else 'to decide'}: {advice.experiment}")
    lines += _data_lines(advice)
    if advice.cheaper and not (why and advice.cheaper in verdict.reason):
        lines.append(f"  cheaper: {advice.cheaper}")
    lines += _other_lines(advice, others, why=why)
    lines.append(f"  from {source}, for a pool of {pairs:,.0f} pairs")
    if why:
        lines.append(f"  intervals: {advice.explanation}")
        lines += [
            f"  not read ({plural(int(count), 'configuration')}): {reason}"
            for reason, count in advice.left_out["reason"].value_counts().items()
        ]
    if apart is not None:
        leaders = advice.candidates.iloc[[*verdict.members]][["architecture", "strategy", "quality"]]
        mine = apart.merge(leaders.drop_duplicates())
        lines += [f"  {line}" for line in outlier_lines(mine, unit)]
    return tuple(lines)


def _other_lines(advice: Recommendation, others: Sequence[Mapping[Any, Any]], *, why: bool) -> list[str]:
    """Return a line on each that holds ``MATTERS`` of the draws, and one on all others."""
    lines, unit = list[str](), advice.error_unit
    matter = [other for other in others if not other["probability"] < MATTERS]
    for other in matter[:_MOST_LISTED]:
        odds = "" if isnan(other["probability"]) else f", lowest {draws_text(other['probability'])}"
        error = error_text(other, unit, predicted=not other["measured"])
        rests = f"; {_source_text(other)}" if why else ""
        lines.append(f"  or {other['name']}{_repeated(other)}: {error}{odds}{rests}")
    if len(matter) > _MOST_LISTED:
        lines.append(f"  or {plural(len(matter) - _MOST_LISTED, 'other configuration')}")
    if rest := len(others) - len(matter):
        least = (
            f"{plural(rest, 'other')}, {'each ' if rest > 1 else ''}lowest in less than {100 * MATTERS:g} %"
        )
        from_ = ""
        if advice.later:
            flops, name = advice.later
            from_ = f"; from {format_flops(flops, digits=1)} on {name} may matter"
        lines.append(f"  {least}{from_}")
    return lines


def _data_lines(advice: Recommendation) -> list[str]:
    """Return lines that compare the pool and its epochs with those that were measured."""
    lines, pairs, unit = list[str](), advice.pairs, advice.error_unit
    first, *_ = candidates = records(advice.candidates)
    tied = [candidates[place] for place in advice.verdict.members]
    least = min(tied, key=lambda row: float(row["epochs"]))
    if _repeated(first) and least is not first:
        lines.append(f"  of the tie, {least['name']} repeats least: {times_text(least['epochs'])}")
    if first["pool"] > advice.pool * SAME_COST:
        lines.append(
            f"  data: {format_number(first['pool'] / advice.pool, '.3g')} times as many pairs as the largest "
            f"measured pool ({advice.pool:,.0f}): the worth of the new pairs is extrapolated with the compute"
        )
    elif pairs > advice.pool * SAME_COST:
        lines.append(
            f"  data: your pool is {format_number(pairs / advice.pool, '.3g')} times as large as the largest "
            f"measured ({advice.pool:,.0f} pairs): the answer holds for the measured pools, not for more data"
        )
    if advice.better is not None and unit.named(advice.better["error"]) != unit.named(first["error"]):
        lines.append(
            f"  data: a pool of {advice.better['pool']:,.0f} pairs would allow "
            f"{configuration_text(advice.better)}: {unit.named(advice.better['error'])}"
        )
    return lines


def _repeated(row: Mapping[Any, Any]) -> str:
    """Return how often a configuration sees its pairs, if that is more often than its runs did."""
    if row["epochs"] <= max(1.0, row["own_epochs"]) * SAME_COST:
        return ""
    own = f"its runs at most {times_text(row['own_epochs'])}" if row["own_epochs"] else "it was never run"
    return f" (sees its pairs {times_text(row['epochs'])}, {own})"


def _source_text(row: Mapping[Any, Any]) -> str:
    exact = row["share"] >= 1 / SAME_COST
    share = format_number(100 * row["share"], ".2g")
    less = f"at {format_flops(row['flops'])}, which costs only {share} % of the budget"
    if row["measured"] or row["by_trunk"]:
        return f"{'measured' if row['measured'] else 'read from its trunk state'} {'here' if exact else less}"
    sizes = f"{row['sizes']}, " if row["sizes"] else ""
    if isinf(row["distance"]):
        return f"{sizes}never run"
    where = f"{format_times(row['distance'])} from" if row["distance"] > SAME_COST else "between"
    return f"{sizes}{'' if exact or row['uses_up'] else less + ', '}{where} its own runs"
