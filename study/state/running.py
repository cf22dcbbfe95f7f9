"""Counts of trials by level, the progress of running trials, and what is left of trials."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from budgets.planning.planned_trial import Cell, seed_words
from budgets.planning.price import PendingTrial, Speed, planned_range
from budgets.planning.tuning_plan import values_words
from budgets.quantity import finite_or_none
from runners.results import PHASE, TRUNK
from study.state.trial_states import Stage, TrialState
from study.state.tuning_table import values_of


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
        what: Cell, tuned values and seed in words.
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

    ``rows`` has the row of `runners.results.PLAN_COLUMNS` of each trial by id.
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
        what=trial_words(row),
        samples_seen=progress["samples_seen"],
        samples_planned=progress["samples_planned"],
        train_flops=progress["train_flops"],
        loss=finite_or_none(progress["loss"]),
        losses=tuple(loss for loss in progress["losses"] if finite_or_none(loss) is not None),
        samples_per_s=speed,
        # The mean over the trial, whose unmasked tail costs more.
        flops_per_s=None if speed is None else speed * (row["train_flops"] / row["samples_seen"]),
        left_s=None if speed is None else left / speed,
    )


def trial_words(row: Mapping[str, Any]) -> str:
    """Return the cell, the tuned values and the seed of a planned trial, as `Trial.words`."""
    # The plan of a tuning has no phase, also beside that of a grid with trunks.
    seed = seed_words(row["seed"], of_trunk=row.get(PHASE) == TRUNK, attempt=row["attempt"])
    return ", ".join(filter(None, [str(cell_of(row)), values_words(values_of(row)), seed]))


def cell_of(row: Mapping[str, Any]) -> Cell:
    """Return the cell of a row of a plan."""
    names = ("regime", "subset_size", "quality", "architecture", "strategy")
    level = None if math.isnan(row["level_flops"]) else row["level_flops"]
    return Cell(**{name: row[name] for name in names}, level_flops=level)


def speed_of(row: Mapping[str, Any], samples_per_s: float) -> Speed:
    """Return the speed of a trial by its planned row and its measured samples a second.

    It is relative to the plan, because rules may give trials of a kind different numbers of devices.
    """
    return (row["architecture"], row["strategy"]), samples_per_s * row["predicted_s"] / _own_samples(row)


def left_of(
    rows: Mapping[str, Mapping[str, Any]],
    states: Mapping[str, TrialState],
    running: Iterable[Running],
    *,
    start_s: float,
) -> list[PendingTrial]:
    """Return what is left of the trials that run or wait, each of which takes ``start_s`` to start."""
    seen, ahead = {trial.trial: trial.samples_seen for trial in running}, []
    for trial, row in rows.items():
        if states[trial].column not in {"waiting", "running"}:
            continue
        # The shorter trials of its trunk see the first samples for it.
        shared = row["samples_seen"] - _own_samples(row)
        done = seen.get(trial, states[trial].kept_steps * row["batch_size"])
        share = (row["samples_seen"] - max(done, shared)) / _own_samples(row)
        kind = row["architecture"], row["strategy"]
        start = 0.0 if trial in seen else start_s
        ahead.append(
            PendingTrial(kind=kind, start_s=start, work_s=planned_range(row["predicted_s"]).times(share))
        )
    return ahead


def _own_samples(row: Mapping[str, Any]) -> float:
    """Return the samples of a trial without those that the shorter trials of its trunk see for it."""
    shared = (row["train_flops"] - row["paid_flops"]) // row["train_flops_per_sample"]
    return float(row["samples_seen"] - shared)
