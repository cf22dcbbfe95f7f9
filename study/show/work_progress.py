"""Progress of long work: a bar in a terminal; elsewhere, such as in a job's log, a line each minute."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from budgets.quantity import format_seconds
from study.show.view import can_update

_LINE_S = 60.0


class Bars(Protocol):
    """Draws the progress of a kind of work: finished steps, all steps, pairs of the last step."""

    def __call__(self, what: str, done: int, of: int, pairs: int = 0) -> None:
        """Draw the bar of the work."""


@dataclass(kw_only=True, slots=True)
class _Task:
    """A task since its first report, which may already count parts of an earlier run."""

    shown: TaskID
    before: int
    pairs: int = 0
    began: float = field(default_factory=time.monotonic)
    printed_at: float = field(default_factory=time.monotonic)


class WorkProgress:
    """Context manager whose value is called to report progress."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"))
        self._console = console
        self._progress = Progress(
            *columns, TimeRemainingColumn(), console=console, disable=not can_update(console)
        )
        self._tasks: dict[str, _Task] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self._report

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _report(self, what: str, done: int, of: int, pairs: int = 0) -> None:
        if what not in self._tasks:
            self._tasks[what] = _Task(shown=self._progress.add_task(what, total=of, speed=""), before=done)
        task, now = self._tasks[what], time.monotonic()
        task.pairs += pairs
        took = now - task.began
        speed = f"{task.pairs / took:,.0f} pairs/s" if took and task.pairs else ""
        self._progress.update(task.shown, completed=done, speed=speed)
        if can_update(self._console) or now - task.printed_at < _LINE_S:
            return
        task.printed_at = now
        new = done - task.before
        left = f", {format_seconds((of - done) * took / new)} left" if new > 0 else ""
        self._console.print(f"{what}: {done:,} of {of:,} parts, {speed or 'none new'}{left}")
