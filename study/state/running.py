"""How far a study is: its trials by level and state, and those that run now."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """How far the trials of a level are.

    Attributes:
        name: The level, ``tuning``, or a regime without levels.
        done: Trials with a result.
        running: Trials that run.
        failed: Trials without a result that are not tried again by themselves.
        waiting: The others.
    """

    name: str
    done: int = 0
    running: int = 0
    failed: int = 0
    waiting: int = 0

    @property
    def total(self) -> int:
        """All its trials."""
        return self.done + self.running + self.failed + self.waiting


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A trial that runs.

    Attributes:
        trial: Its id.
        what: Its cell and seed in words.
        samples_seen: Samples seen so far.
        samples_planned: Samples that it will see.
        train_flops: Training FLOPs so far.
        loss: The last step's loss; None before the first.
        losses: Means of equal stretches of its steps so far.
        samples_per_s: Since its process took it up; None before it is known.
        flops_per_s: Training FLOPs a second; None before that is known.
        left_s: Seconds until its training ends, at that speed; None before that is known.
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


def running_trial(trial: str, what: str, flops_per_sample: float, progress: Mapping[str, Any]) -> Running:
    """Makes it of what a trial writes down every second.

    Args:
        trial: The trial's id.
        what: Its cell and seed in words.
        flops_per_sample: Training FLOPs of a pair, the mean over the trial.
        progress: What it wrote.
    """
    speed = progress.get("samples_per_s") or None
    left = progress["samples_planned"] - progress["samples_seen"]
    return Running(
        trial=trial,
        what=what,
        samples_seen=progress["samples_seen"],
        samples_planned=progress["samples_planned"],
        train_flops=progress["train_flops"],
        loss=_finite(progress["loss"]),
        losses=tuple(loss for loss in progress.get("losses", ()) if math.isfinite(loss)),
        samples_per_s=speed,
        flops_per_s=None if speed is None else speed * flops_per_sample,
        left_s=None if speed is None else left / speed,
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
