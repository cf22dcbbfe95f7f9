"""Parts of what a person sees of a study: a bar a level, a line a running trial, losses as a sparkline."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.progress_bar import ProgressBar
from rich.table import Table

from budgets.price import Range
from budgets.quantity import format_count, format_flops, format_seconds

_BLOCKS = "▁▂▃▄▅▆▇█"
_BAR = 24


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


def running_trial(trial: str, what: str, flops_per_sample: float, progress: dict[str, Any]) -> Running:
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


def sparkline(values: Sequence[float]) -> str:
    """Draws values as blocks between their lowest and highest."""
    if not values:
        return ""
    low, span = min(values), max(values) - min(values)
    if not span:
        return _BLOCKS[0] * len(values)
    return "".join(_BLOCKS[round((value - low) / span * (len(_BLOCKS) - 1))] for value in values)


def level_table(levels: Sequence[Level], *, bars: bool) -> Table:
    """Lays out the levels, one a row, then all together.

    Args:
        levels: The levels.
        bars: Whether each has a bar, as in a terminal.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ("done", "running", "failed", "waiting")
    table.add_column("level", justify="right")
    if bars:
        table.add_column("", width=_BAR)
    for name in names:
        table.add_column(name, justify="right")
    every = Level(name="all", **{name: sum(getattr(level, name) for level in levels) for name in names})
    for level in (*levels, every):
        bar = ProgressBar(total=max(1, level.total), completed=level.done, width=_BAR)
        counts = [f"{getattr(level, name):,}" for name in names]
        table.add_row(level.name, *([bar] if bars else []), *counts, style="bold" if level is every else None)
    return table


def running_lines(running: Sequence[Running]) -> Iterator[str]:
    """Words the running trials, one a line."""
    for each in running:
        parts = [f"{each.samples_seen / each.samples_planned:.0%}"]
        if each.loss is not None:
            parts.append(f"loss {each.loss:.3f} {sparkline(each.losses)}".rstrip())
        if each.samples_per_s is not None and each.flops_per_s is not None and each.left_s is not None:
            parts.append(f"{format_count(round(each.samples_per_s))} samples/s")
            parts.append(f"{format_flops(each.flops_per_s)}/s")
            parts.append(f"{format_seconds(each.left_s)} left")
        # What changes stands first: a narrow terminal cuts the end.
        yield f"running {each.trial} {', '.join(parts)}: {each.what}"


def range_words(left: Range) -> str:
    """Words a forecast in seconds."""
    low, high = format_seconds(left.low), format_seconds(left.high)
    return low if low == high else f"{low} to {high}"


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
