"""Building blocks of the views: a table of levels with bars, lines of running trials, sparklines."""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from budgets.planning.price import Range
from budgets.quantity import between_seconds, format_count, format_flops, format_seconds
from study.state.status.running import Level, Running

_BLOCKS = "▁▂▃▄▅▆▇█"
_BAR = 24
_LEAST_WIDTH = 70  # of a terminal, for bars beside the numbers


def sparkline(values: Sequence[float]) -> str:
    """Return values as block characters, scaled from the lowest to the highest value."""
    if not values:
        return ""
    low, span = min(values), max(values) - min(values)
    if not span:
        return _BLOCKS[0] * len(values)
    return "".join(_BLOCKS[round((value - low) / span * (len(_BLOCKS) - 1))] for value in values)


def can_update(console: Console) -> bool:
    """Return whether what is shown can be updated in place."""
    return console.is_terminal and not console.is_dumb_terminal


def has_bars(console: Console) -> bool:
    """Return whether a table of levels gets bars: in a terminal that is wide enough."""
    return console.is_terminal and console.width >= _LEAST_WIDTH


def level_table(levels: Sequence[Level], *, bars: bool) -> Table:
    """Return a table with one row per level and one for the total.

    Args:
        levels: The levels.
        bars: True if each row has a progress bar, see `has_bars`.
    """
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
        bar = ProgressBar(total=max(1, level.total), completed=level.done, width=_BAR)
        counts = [f"{getattr(level, name):,}" for name in names]
        table.add_row(level.name, *([bar] if bars else []), *counts, style="bold" if level is every else None)
    return table


def running_lines(running: Sequence[Running]) -> Iterator[str]:
    """Yield one line per running trial."""
    for each in running:
        parts = [f"{each.samples_seen / each.samples_planned:.0%}"]
        if each.loss is not None:
            parts.append(f"loss {each.loss:.3f} {sparkline(each.losses)}".rstrip())
        if each.samples_per_s is not None and each.flops_per_s is not None and each.left_s is not None:
            parts.append(f"{format_count(round(each.samples_per_s))} samples/s")
            parts.append(f"{format_flops(each.flops_per_s)}/s")
            parts.append(f"{format_seconds(each.left_s)} left")
        # The changing values come first, because a narrow terminal cuts the end of the line.
        yield f"running {each.trial} {', '.join(parts)}: {each.what}"


def live_lines(running: Iterable[str], others: Iterable[str]) -> Iterator[Text]:
    """Yield the lines of a view that is updated in place: those of running trials cut, the others wrapped."""
    for line in running:
        yield Text(line, overflow="ellipsis", no_wrap=True)
    for line in others:
        yield Text(line, overflow="fold", no_wrap=False)


def range_words(left: Range) -> str:
    """Return a forecast in seconds as words."""
    return between_seconds(left.low, left.high)
