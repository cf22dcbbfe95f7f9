"""Results of a tuning in words: values, carried rates, checks, and notes on the winners."""

import math
from collections.abc import Iterator, Mapping

from budgets.planning.tuned.line import Carried
from budgets.planning.tuned.tuning_plan import Check, TuningPlan
from budgets.quantity import format_flops


def tuning_notes(plan: TuningPlan, *, reported: str) -> Iterator[str]:
    """Yield notes on the winners: ties, optima beyond the values tried, selection by the reported metric."""
    if plan.metric == reported:
        yield (
            f"tuning selects by {reported}, which the study also reports: the winners' values of it are "
            "biased upwards; declare another set for selection (tuning.metric)"
        )
    for each in plan.winners:
        name = f"tuning of {each.architecture} with {each.strategy}"
        for field in each.at_edge:
            yield (
                f"{name}: {field} = {each.values[field]:g} won at the edge of the values tried; the optimum "
                "may lie beyond; declare values further out"
            )
        if each.tie:
            yield (
                f"{name}: {words(each.values)} ({each.score:.1%}) ties with {words(each.runner_up)} "
                f"({each.runner_up_score:.1%})"
            )
    for check in plan.checks:
        if check.moved:
            shown = f"{check.cell}: {check_words(check)}"
            yield f"tuned rates at a larger level: {shown}; tune at two levels or sizes"
    for said in plan.left_out:
        yield f"tuned rates are not checked at a larger level: {said}"


def words(values: Mapping[str, float]) -> str:
    """Format a combination of values."""
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def carried_words(line: Carried) -> str:
    """Format a line with its rates and their 90 % intervals."""
    rates = ", ".join(
        f"{each.architecture}{'' if each.level_flops is None else f' at {format_flops(each.level_flops)}'} "
        f"{each.lr_peak:.3g}" + ("" if each.tuned else f" [{each.low:.2g}, {each.high:.2g}]")
        for each in line.rates
    )
    return f"{line.strategy}: exponent {line.exponent:.2f} [{line.low:.2f}, {line.high:.2f}]: {rates}"


def check_words(check: Check) -> str:
    """Format what trying the neighbours of a tuned rate showed."""
    best = check.winner
    if best is None:
        return f"training diverged at the tuned rate {check.lr_peak:g} and both neighbours"
    if best.values["lr_peak"] == check.lr_peak:
        return f"the tuned rate {check.lr_peak:g} is still the best ({check.score:.1%})"
    said = "is better than" if check.moved else "ties with"
    tuned = f"the tuned {check.lr_peak:g} ({'diverged' if math.isnan(check.score) else f'{check.score:.1%}'})"
    return f"lr_peak {best.values['lr_peak']:g} ({best.score:.1%}) {said} {tuned}"
