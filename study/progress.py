"""Shows a run as it goes: a live bar in a terminal, one plain line a trial when piped."""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from budgets.plan import Plan, Trial
from budgets.quantity import format_count, format_flops, format_seconds
from runners.trial import Outcome

_TICK_S = 0.5


class Progress:
    """The view of one run.

    Args:
        metric: The metric that is shown for finished trials.
        console: Where to write.
    """

    def __init__(self, metric: str, console: Console) -> None:
        self._metric, self._console = metric, console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._ticked_at = 0.0
        self._finished = self._total = self._spent = 0
        self._planned = 1
        self._began = time.monotonic()
        self._spent_at_start = 0
        self._budget = ""

    def begin(self, plan: Plan, *, finished: int, spent_flops: int) -> None:
        """Starts the view of a plan of which some trials are finished already."""
        self._total, self._planned = len(plan.trials), plan.train_flops
        self._finished, self._spent = finished, spent_flops
        self._spent_at_start, self._began = spent_flops, time.monotonic()
        done = f", {finished} of them finished before" if finished else ""
        if plan.study_flops is not None:
            self._budget = f" (study budget {format_flops(plan.study_flops)})"
        for warning in plan.warnings:
            self.say(f"note: {warning}")
        self.say(f"{self._total} trials, {format_flops(self._planned)}{self._budget}{done}")

    def finished(self, trial: Trial, outcome: Outcome, *, spent_flops: int) -> None:
        """Shows a finished trial."""
        self._finished += 1
        self._spent = spent_flops
        row, timing = outcome.row, outcome.timing
        value = f"{self._metric} {row[self._metric]:.1%}" if self._metric in row else row["status"]
        number = f"[{self._finished:>{len(str(self._total))}}/{self._total}]"
        self.say(
            f"{number} {trial.cell}, seed {trial.seed}: {value}, "
            f"{timing['wall_s']:.0f} s, {format_count(timing['samples_per_s'])} samples/s; "
            f"{format_flops(self._spent)} of {format_flops(self._planned)} spent"
        )

    def failed(self, trial: Trial, reason: str) -> None:
        """Shows a trial that gave no result."""
        self.say(f"FAILED {trial.cell}, seed {trial.seed}: {reason}")

    def say(self, text: str) -> None:
        """Writes a line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def tick(self, folder: Path, running_ids: Iterable[str]) -> None:
        """Draws the live view anew, now and then."""
        if self._live is None or time.monotonic() - self._ticked_at < _TICK_S:
            return
        self._ticked_at = time.monotonic()
        running = running_trials(folder, running_ids)
        spent = self._spent + sum(trial["train_flops"] for trial in running)
        table = Table.grid(padding=(0, 1))
        table.add_row(ProgressBar(total=self._planned, completed=spent, width=40), self._summary(spent))
        for trial in running:
            table.add_row(f"  {trial['trial']}", how_far(trial))
        self._live.update(table, refresh=True)

    def _summary(self, spent: float) -> str:
        rate = (spent - self._spent_at_start) / max(1e-9, time.monotonic() - self._began)
        left = f", {format_seconds((self._planned - spent) / rate)} left" if rate > 0 else ""
        return (
            f"{format_flops(spent)} of {format_flops(self._planned)} spent{self._budget}, "
            f"{self._finished} of {self._total} trials{left}"
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(self._summary(self._spent) if self._total else "", refresh=True)
            self._live.__exit__(kind, error, trace)


def remaining_text(remaining: Sequence[Trial], plan: Plan) -> list[str]:
    """Words which cells a run left out since the study budget had no room for them; nothing without any."""
    if not remaining:
        return []
    seeds: dict[str, list[str]] = {}
    for trial in remaining:
        seeds.setdefault(str(trial.cell), []).append(str(trial.seed))
    needs = format_flops(sum(trial.train_flops for trial in remaining))
    first = (
        f"{len(remaining)} of {len(plan.trials)} trials remain, which need {needs}: the study budget has no "
        "room for them. Raise budget.study and run again:"
    )
    return [
        first,
        *(f"  {cell}, seed {', '.join(numbers)}" for cell, numbers in seeds.items()),
    ]


def running_trials(folder: Path, running_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Reads how far the running trials of a study are, from what they write every second."""
    running = []
    for path in (folder / "trials" / trial / "progress.json" for trial in sorted(running_ids)):
        try:
            progress = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:  # it finished just now
            continue
        running.append({"trial": path.parent.name, **progress})
    return running


def how_far(trial: dict[str, Any]) -> str:
    """Words a running trial's share of its samples and its last loss."""
    loss = "" if trial["loss"] is None else f", loss {trial['loss']:.3f}"
    return f"{trial['samples_seen'] / trial['samples_planned']:.0%}{loss}"
