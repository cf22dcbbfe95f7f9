"""The course of an adaptive design, read from the events of a study's runs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from analysis.cells.pareto import SAME_COST
from analysis.cells.table import records
from analysis.labels import configuration_text
from budgets.quantity import plural

CHOSEN, COURSE = "trial-chosen", "design"
"""Events: a chosen trial with its reason; the answers so far and, at the end, why the design stopped."""


def decisions(events: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the decisions of a design, in order; empty without one."""
    return [] if "answers" not in events else records(events[events["event"] == COURSE])


def each_answer(made: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[str]]]:
    """Yield each decision with each of its answers and the configurations that this answer drops.

    An answer has the fields of ``questions.Answer``; ``dropped`` there also lists what was dropped before.
    """
    gone = defaultdict[tuple[str, float], set[str]](set)
    for decision in made:
        for answer in decision["answers"]:
            known = gone[answer["kind"], answer["flops"]]
            new = [name for name in answer["dropped"] if name not in known]
            known.update(new)
            yield decision, answer, new


def unsettled(not_chosen: pd.DataFrame, events: pd.DataFrame, flops: float) -> pd.DataFrame:
    """Return the trials that a design left out at this compute and that might still be the best there.

    A clear answer of the design counts them all, and what it dropped is not the best.
    """
    last = _last_answers(events)
    kept = [
        _is_near(row["train_flops"], flops)
        and not any(
            one["verdict"] == "clear" or _name(row) in one["dropped"]
            for one in _near(last, row["regime"], flops)
        )
        for row in records(not_chosen)
    ]
    return not_chosen[kept]


def _last_answers(events: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what the last decision of a design answers about the best."""
    return [
        one for decision in decisions(events)[-1:] for one in decision["answers"] if one["kind"] == "best"
    ]


def _near(answers: Iterable[dict[str, Any]], regime: str, flops: float) -> list[dict[str, Any]]:
    """Return the answers at a compute, the nearest first.

    Outside fixed compute that is a mean over runs, which rounding changes with their number.
    """
    near = [one for one in answers if one["regime"] == regime and _is_near(one["flops"], flops)]
    return sorted(near, key=lambda one: abs(one["flops"] - flops))


def _name(row: Mapping[str, Any]) -> str:
    """Return the name of a trial's curve, as the answers of a design have it."""
    return configuration_text(row, without="subset_size" if row["regime"] == "one-epoch" else "")


def _is_near(one: float, other: float) -> bool:
    return other / SAME_COST <= one <= other * SAME_COST


def by_design(best: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """Return the best configurations with verdicts that count configurations without runs.

    The table compares measured cells. A configuration that the design did not run at a budget may still be
    the best there, so a leader is only clear if the design, whose draws hold all configurations, calls it
    so. The table of `frontier` comes with the number of configurations at each budget that the design chose,
    ``planned``, and that it could choose from, ``grid``.
    """
    last = _last_answers(events)
    judged = [
        _judged(row, next(iter(_near(last, row["regime"], row["flops"])), None)) for row in records(best)
    ]
    return best.assign(verdict=[verdict for verdict, _ in judged], reason=[reason for _, reason in judged])


def _judged(row: Mapping[str, Any], answer: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return verdict and reason of a row of ``by_design``, given the answer of the design at its budget."""
    verdict, reason, apart = row["verdict"], row["reason"], row["grid"] - row["planned"]
    clear = verdict == "clear"
    if answer is not None:
        chance = f"{answer['leader']} is best with probability {answer['probability']:.0%}"
        if clear and answer["verdict"] != "clear":
            whose = "with configurations that were not run" if apart else "by the draws of the design"
            return "undecided", f"{reason}; {whose}, {chance}"
        if row["configurations"] == 1 and apart:
            return verdict, f"{reason}; by the curves of those that the design did not run here, {chance}"
    if not apart or (clear and answer is not None):
        return verdict, reason
    reason = f"{reason}; {plural(apart, 'configuration')} of the grid's {row['grid']} not run here"
    return "undecided" if clear else verdict, reason
