"""Parts of what a terminal shows: the console, the table of levels, running trials, and bars of long work."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from rich.console import Console, Group
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from budgets.quantity import format_count, format_flops, format_number, format_seconds, format_share
from study.show.terminal import PlainConsole, can_update, text_lines
from study.state.running import Level, Running

_BLOCKS = "▁▂▃▄▅▆▇█"
_BAR = 24
_LEAST_WIDTH = 70  # of a terminal, for bars beside the numbers
_LINE_S = 60.0


def sparkline(values: Sequence[float]) -> str:
    """Return values as block characters, scaled from the lowest to the highest value."""
    if not values:
        return ""
    low, span = min(values), max(values) - min(values)
    if not span:
        return _BLOCKS[0] * len(values)
    return "".join(_BLOCKS[round((value - low) / span * (len(_BLOCKS) - 1))] for value in values)


def study_view(
    levels: Sequence[Level],
    running: Sequence[Running],
    lines: Iterable[str],
    console: Console,
    *,
    live: bool = False,
) -> Group:
    """Return a table of the levels, a line of each running trial and further lines.

    In a ``live`` view, which is updated in place, the line of a running trial is cut at the terminal's width.
    """
    trials = list(running_lines(running))
    cut = [Text(line, overflow="ellipsis", no_wrap=True) for line in trials] if live else []
    whole = text_lines((*([] if live else trials), *lines), console, live=live)
    return Group(*([level_table(levels, console)] if levels else []), *cut, *whole)


def level_table(levels: Sequence[Level], console: Console) -> Table:
    """Return a table with one row per level and one for the total, with bars in a terminal that has room."""
    bars = console.is_terminal and console.width >= _LEAST_WIDTH
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ["done", "running", "failed", "waiting"]
    if any(level.left_out for level in levels):
        names.append("left_out")
    table.add_column("level", justify="right", no_wrap=True)
    if bars:
        table.add_column("", width=_BAR)
    for name in names:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    every = Level(name="all", **{name: sum(getattr(level, name) for level in levels) for name in names})
    for level in (*levels, every):
        counts = [getattr(level, name) for name in names]
        bar = ProgressBar(total=max(1, sum(counts)), completed=level.done, width=_BAR)
        style = "bold" if level is every else None
        table.add_row(level.name, *([bar] if bars else []), *(f"{count:,}" for count in counts), style=style)
    return table


def running_lines(running: Sequence[Running]) -> Iterator[str]:
    """Yield one line per running trial."""
    for trial in running:
        parts = [format_share(trial.samples_seen / trial.samples_planned)]
        if trial.loss is not None:
            parts.append(f"loss {format_number(trial.loss, '.3f')} {sparkline(trial.losses)}".rstrip())
        if trial.samples_per_s is not None and trial.flops_per_s is not None and trial.left_s is not None:
            parts.append(f"{format_count(round(trial.samples_per_s))} samples/s")
            parts.append(f"{format_flops(trial.flops_per_s)}/s")
            parts.append(f"{format_seconds(trial.left_s)} left")
        # The changing values come first, because a narrow terminal cuts the end of the line.
        yield f"running {trial.trial} {', '.join(parts)}: {trial.what}"


class WorkProgress:
    """Context manager that shows kinds of work: as bars in a terminal, elsewhere as a line each minute."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"))
        self._console = console = PlainConsole()
        self._progress = Progress(
            *columns, TimeRemainingColumn(), console=console, disable=not can_update(console)
        )
        self._tasks: dict[str, Task] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, of: int, pairs: int = 0) -> None:
        """Show how many steps of a kind of work are done, and the pairs of the last step."""
        if what not in self._tasks:  # the first report may already count parts of an earlier run
            self._progress.add_task(what, total=of, speed="", before=done, pairs=0, printed_s=0.0)
            self._tasks[what] = self._progress.tasks[-1]
        task = self._tasks[what]
        fields, took = task.fields, task.elapsed or 0.0
        fields["pairs"] += pairs
        speed = f"{fields['pairs'] / took:,.0f} pairs/s" if took and fields["pairs"] else ""
        self._progress.update(task.id, completed=done, speed=speed)
        if can_update(self._console) or took - fields["printed_s"] < _LINE_S:
            return
        fields["printed_s"] = took
        new = done - fields["before"]
        left = f", {format_seconds((of - done) * took / new)} left" if new > 0 else ""
        self._console.print(f"{what}: {done:,} of {of:,} parts, {speed or 'none new'}{left}")
