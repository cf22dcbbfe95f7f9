"""Cells meant by words: what `plan --explain` shows and what `run --only` runs."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from budgets.planning.plan import Cell, Plan, Trial

T = TypeVar("T")


def cell_words(cell: Cell, samples: int) -> str:
    """Says all of a cell that words may be about."""
    return f"{cell}, {cell.regime}, {cell.subset_size} pairs, {samples} samples"


def meant(items: Iterable[T], wanted: str, text: Callable[[T], str]) -> list[T]:
    """Finds what words mean: items whose text has all of them.

    A word that names something whole is meant as that: clip is not clip-crop-flip.

    Args:
        items: To choose from.
        wanted: The words.
        text: What an item's words are.
    """
    words = wanted.lower().replace(",", "").split()
    found = [each for each in items if words and all(word in text(each).lower() for word in words)]
    exact = [each for each in found if all(word.strip("()") in _whole(text(each)) for word in words)]
    return exact or found


def select_trials(plan: Plan, selections: Sequence[str]) -> list[Trial]:
    """Gives the trials that any of the selections means, in the plan's order.

    Args:
        plan: The plan.
        selections: Each a trial's id or words of its cell; none for all trials.

    Raises:
        ValueError: A selection means no trial.
    """
    chosen: set[str] = set()
    for selection in selections:
        found = [trial for trial in plan.trials if trial.trial_id == selection] or meant(
            plan.trials, selection, lambda trial: cell_words(trial.cell, trial.samples_seen)
        )
        if not found:
            raise ValueError(
                f"--only '{selection}' means no trial of this plan; `plan` shows its cells, "
                "--format csv with the trials' ids"
            )
        chosen.update(trial.trial_id for trial in found)
    return [trial for trial in plan.trials if not selections or trial.trial_id in chosen]


def _whole(text: str) -> list[str]:
    return text.lower().replace(",", "").replace("(", "").replace(")", "").split()
