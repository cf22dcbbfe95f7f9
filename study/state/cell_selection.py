"""Selection of cells by words, for ``plan --explain`` and ``run --only``."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Cell, Trial

T = TypeVar("T")


def cell_words(cell: Cell, samples: int) -> str:
    """Return the text of a cell that words are matched with."""
    return f"{cell}, {cell.regime}, {cell.subset_size} pairs, {samples} samples"


def meant(items: Iterable[T], wanted: str, text: Callable[[T], str]) -> list[T]:
    """Return the items whose text, as ``text`` returns it, contains all the wanted words.

    If some items contain all of them as whole words, only these are returned: ``clip`` selects clip, not
    clip-crop-flip.
    """
    words = wanted.lower().replace(",", "").split()
    found = [each for each in items if words and all(word in text(each).lower() for word in words)]
    exact = [each for each in found if all(word.strip("()") in _whole(text(each)) for word in words)]
    return exact or found


def select_trials(plan: Plan, selections: Sequence[str]) -> list[Trial]:
    """Return the trials that match any of the selections, in the plan's order.

    Args:
        plan: The plan.
        selections: Trial ids or words of cells; empty for all trials.

    Raises:
        ValueError: A selection matches no trial.
    """
    chosen: set[str] = set()
    for selection in selections:
        found = [trial for trial in plan.trials if trial.trial_id == selection] or meant(
            plan.trials, selection, lambda trial: cell_words(trial.cell, trial.samples_seen)
        )
        if not found:
            raise ValueError(
                f"'{selection}' matches no trial of this plan; `plan` lists the cells, "
                "`plan --format csv` the trials' ids"
            )
        chosen.update(trial.trial_id for trial in found)
    return [trial for trial in plan.trials if not selections or trial.trial_id in chosen]


def _whole(text: str) -> list[str]:
    return text.lower().replace(",", "").replace("(", "").replace(")", "").split()
