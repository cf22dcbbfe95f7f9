"""Progress of long work: a bar with time left, and pairs per second, in a terminal, nothing in a pipe."""

from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Bars(Protocol):
    """Takes a kind of work, its finished steps, all of them, and the pairs that the last step processed."""

    def __call__(self, what: str, done: int, of: int, pairs: int = 0) -> None:
        """Draw the bar of the work."""


class PoolProgress:
    """Context manager whose value is called to report progress.

    Args:
        console: The console to draw on.
    """

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"))
        self._progress = Progress(
            *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
        )
        self._tasks: dict[str, tuple[TaskID, int]] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self._report

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _report(self, what: str, done: int, of: int, pairs: int = 0) -> None:
        if what not in self._tasks:
            self._tasks[what] = (self._progress.add_task(what, total=of, speed=""), 0)
        task, before = self._tasks[what]
        self._tasks[what] = (task, before + pairs)
        took = self._progress.tasks[task].elapsed or 0
        speed = f"{(before + pairs) / took:,.0f} pairs/s" if took and pairs else ""
        self._progress.update(task, completed=done, speed=speed)
