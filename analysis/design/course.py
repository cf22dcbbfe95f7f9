"""The course of an adaptive design, read from the events of a study's runs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from analysis.cells.table import records

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


def by_design(best: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """Return the best configurations with verdicts that count configurations without runs.

    The table compares measured cells. A configuration that the design did not run at a budget may still be
    the best there, so a leader is only clear if the design, whose draws hold all configurations, calls it
    so.
    """
    last = [one for decision in decisions(events)[-1:] for one in decision["answers"]]
    best_of = {(one["regime"], one["flops"]): one for one in last if one["kind"] == "best"}
    verdicts, reasons = [], []
    for row in best.to_dict("records"):
        one = best_of.get((row["regime"], row["flops"]))
        doubt = one is not None and row["verdict"] == "clear" and one["verdict"] != "clear"
        verdicts.append("undecided" if doubt else row["verdict"])
        said = "" if one is None or not doubt else (
            f"; with configurations that were not run, {one['leader']} is best with probability "
            f"{one['probability']:.0%}"
        )  # fmt: skip
        reasons.append(f"{row['reason']}{said}")
    return best.assign(verdict=verdicts, reason=reasons)
