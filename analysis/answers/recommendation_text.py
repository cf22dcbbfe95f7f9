"""A recommendation as the command line prints it."""

from collections.abc import Mapping
from math import isinf
from typing import Any

import pandas as pd

from analysis.answers.answer_text import answer_line, error_text
from analysis.answers.outliers import outlier_lines
from analysis.answers.recommendation import Recommendation, times_text
from analysis.belief.verdict import draws_text
from analysis.cells.pareto import SAME_COST
from analysis.cells.table import records
from analysis.labels import configuration_text
from budgets.quantity import format_flops, format_number, plural

_MOST_LISTED, _ODDS = 3, 0.005


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
    row = first | {"runs": first["measured"], "verdict": verdict.kind}
    lines = [answer_line(format_flops(advice.flops), first["name"], row, unit, tied=len(verdict.members))]
    if first["uses_up"]:
        lines.append(
            f"  its data are used up at {format_number(100 * first['share'], '.2g')} % of the budget"
        )
    if why or (first["share"] < 1 / SAME_COST and not first["uses_up"]):
        lines.append(f"  {_source_text(first)}")
    lines += [f"  {verdict.reason}"] if why else []
    lines += [f"  trunk states count for no run: {advice.unlearned}"] if advice.unlearned else []
    lines.append(f"  {'next' if verdict.kind == 'clear' else 'to decide'}: {advice.experiment}")
    lines += _data_lines(advice)
    if advice.cheaper and not (why and advice.cheaper in verdict.reason):
        lines.append(f"  cheaper: {advice.cheaper}")
    for other in others[:_MOST_LISTED]:
        chance = other["probability"]
        odds = f", lowest {draws_text(chance)}" if chance >= _ODDS else ""
        error = error_text(other, unit, predicted=not other["measured"])
        rests = f"; {_source_text(other)}" if why else ""
        lines.append(f"  or {other['name']}: {error}{odds}{rests}")
    if len(others) > _MOST_LISTED:
        lines.append(f"  or {plural(len(others) - _MOST_LISTED, 'other configuration')}")
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


def _data_lines(advice: Recommendation) -> list[str]:
    """Return lines that compare the pool and its epochs with those that were measured."""
    lines, pairs, unit = list[str](), advice.pairs, advice.error_unit
    first = records(advice.candidates)[0]
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
    if first["epochs"] > max(1.0, first["own_epochs"]) * SAME_COST:
        seen = (
            f"its runs saw theirs at most {times_text(first['own_epochs'])}, " if first["own_epochs"] else ""
        )
        lines.append(
            f"  epochs: each pair is seen {times_text(first['epochs'])}; {seen}"
            f"no run of the study more than {times_text(first['most_epochs'])}"
        )
    if advice.better is not None and unit.named(advice.better["error"]) != unit.named(first["error"]):
        lines.append(
            f"  data: a pool of {advice.better['pool']:,.0f} pairs would allow "
            f"{configuration_text(advice.better)}: {unit.named(advice.better['error'])}"
        )
    return lines


def _source_text(row: Mapping[Any, Any]) -> str:
    exact = row["share"] >= 1 / SAME_COST
    share = format_number(100 * row["share"], ".2g")
    less = f"at {format_flops(row['flops'])}, which costs only {share} % of the budget"
    if row["measured"] or row["by_trunk"]:
        return f"{'measured' if row['measured'] else 'read from its trunk state'} {'here' if exact else less}"
    sizes = f"{row['sizes']}, " if row["sizes"] else ""
    if isinf(row["factor"]):
        return f"{sizes}never run"
    where = f"{format_number(row['factor'], '.3g')} times beyond" if row["beyond"] else "within"
    return f"{sizes}{'' if exact or row['uses_up'] else less + ', '}{where} the measured budgets"
