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
