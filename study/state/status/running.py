"""Data of the status views: counts of trials by level, and the progress of running trials."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from budgets.planning.planned_trial import Cell
from budgets.planning.tuned import wording
from budgets.quantity import finite
from study.state.planning.tuning_table import values_of
from study.state.trial_states import Stage, TrialState


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """Counts of the trials of a level by state.

    Attributes:
        name: The level, ``tuning``, or a regime without levels.
        done: Trials with a result (finished or diverged).
        running: Running trials.
        failed: Trials that failed and run again only with ``--retry-failed``.
        waiting: All other trials.
        left_out: Trials for which the study budget, or the share of the tuning or its check, had no room in
            the last run and has none now.
    """

    name: str
    done: int = 0
    running: int = 0
    failed: int = 0
    waiting: int = 0
    left_out: int = 0

    @property
    def total(self) -> int:
        """Number of trials in the level."""
        return self.done + self.running + self.failed + self.waiting + self.left_out


def count_levels(trials: Iterable[tuple[str, str]]) -> list[Level]:
    """Return the counts of trials, each given by the names of its level and of its state, in their order."""
    counts: dict[str, Counter[str]] = {}
    for level, state in trials:
        counts.setdefault(level, Counter())[state] += 1
    return [Level(name=name, **of_state) for name, of_state in counts.items()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """Progress of a running trial.

    Attributes:
        trial: The trial's id.
        what: Cell and seed in words.
        samples_seen: Samples seen so far.
        samples_planned: Samples to see in all.
        train_flops: Training FLOPs so far.
        loss: Loss of the last step; None before the first.
        losses: Mean losses of equal parts of the steps so far.
        samples_per_s: Samples/s since the trial's process started; None until measured.
        flops_per_s: Training FLOP/s; None until measured.
        left_s: Seconds until its training ends at that speed; None until measured.
    """

    trial: str
    what: str
    samples_seen: int
    samples_planned: int
    train_flops: int
    loss: float | None
    losses: tuple[float, ...]
    samples_per_s: float | None
    flops_per_s: float | None
    left_s: float | None


def running_trials(
    rows: Mapping[str, Mapping[str, Any]], states: Mapping[str, TrialState]
) -> tuple[Running, ...]:
    """Return the progress of the running trials, by id, from the ``progress.json`` that each writes.

    Args:
        rows: Trial id → its row of `runners.results.PLAN_COLUMNS`.
        states: The trials' states.
    """
    return tuple(
        _running(trial, rows[trial], state.progress)
        for trial, state in sorted(states.items())
        if state.stage is Stage.RUNNING and state.progress is not None
    )


def _running(trial: str, row: Mapping[str, Any], progress: Mapping[str, Any]) -> Running:
    speed = progress["samples_per_s"] or None
    left = progress["samples_planned"] - progress["samples_seen"]
    return Running(
        trial=trial,
        what=words(row),
        samples_seen=progress["samples_seen"],
        samples_planned=progress["samples_planned"],
        train_flops=progress["train_flops"],
        loss=finite(progress["loss"]),
        losses=tuple(loss for loss in progress["losses"] if finite(loss) is not None),
        samples_per_s=speed,
        # The mean over the trial, whose unmasked tail costs more.
        flops_per_s=None if speed is None else speed * (row["train_flops"] / row["samples_seen"]),
        left_s=None if speed is None else left / speed,
    )


def words(row: Mapping[str, Any]) -> str:
    """Return the cell, the tuned values and the seed of a planned trial in words."""
    level = row["level_flops"]
    cell = Cell(
        regime=row["regime"], subset_size=row["subset_size"], quality=row["quality"],
        architecture=row["architecture"], strategy=row["strategy"],
        level_flops=None if math.isnan(level) else level,
    )  # fmt: skip
    return ", ".join(filter(None, (str(cell), wording.words(values_of(row)), f"seed {row['seed']}")))
