"""Lines and tables as wide as a terminal or COLUMNS; words stay whole, and so do numbers with their units."""

import re
import shutil
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from analysis.answers.answer_text import parts_of
from budgets.names import printable

_PIPE = 80  # width of tables without a terminal
_FIXED = "\u00a0"
_UNIT = re.compile(
    r"(?<=\d) (?=(?:%|\w?FLOPs?|points|pairs|h|min|s|d)\b|%)|(?<=\berror|.\bloss|..\btop) |, (?=[\d.]+\])"
)
_GAP = 2


class PlainConsole(Console):
    """Console that passes on only rich's own escape codes; those in names and messages are written out.

    Brackets and colons in them are no markup. In a pipe it has 80 columns unless COLUMNS is set.
    """

    def __init__(
        self, *, file: IO[str] | None = None, force_terminal: bool | None = None, width: int | None = None
    ) -> None:
        super().__init__(
            file=file, force_terminal=force_terminal, width=width,
            markup=False, emoji=False, highlight=False, soft_wrap=True,
        )  # fmt: skip

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield the pieces of a renderable."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else Segment(printable(piece.text), piece.style)

    def on_broken_pipe(self) -> None:
        """Raise the error, as for any other stream; rich would exit."""
        raise BrokenPipeError


def can_update(console: Console) -> bool:
    """Return whether what is shown can be updated in place."""
    return console.is_terminal and not console.is_dumb_terminal


def line_width() -> int:
    """Return the width of lines; 0 for a pipe, whose lines stay whole, unless COLUMNS is set."""
    return shutil.get_terminal_size((0, 0)).columns


def wrapped(line: str, width: int) -> list[str]:
    """Return a line, wrapped between words and with its further parts indented if it is wider than that."""
    if not width or len(line) <= width:
        return [line]
    parts = textwrap.wrap(
        _UNIT.sub(lambda blank: blank[0].replace(" ", _FIXED), line),
        width,
        subsequent_indent=" " * (len(line) - len(line.lstrip()) + _GAP),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [part.replace(_FIXED, " ") for part in parts]


def text_lines(lines: Iterable[str], console: Console, *, live: bool = False) -> Iterator[Text]:
    """Yield lines, wrapped between words, with the error of an answer in bold.

    In a ``live`` view, which is updated in place, a word longer than the line is broken.
    """
    width = console.width if console.is_terminal else line_width()
    rows = (row for line in lines for row in printable(line).split("\n"))
    for part in (part for row in rows for part in wrapped(row, width)):
        before, number, after = parts_of(part)
        text = Text.assemble(before, (number, "bold"), after)
        if live:
            text.overflow, text.no_wrap = "fold", False
        yield text


def say(console: Console, line: str) -> None:
    """Print a line now, above a live view if there is one."""
    console.print(*text_lines([line], console), sep="\n", soft_wrap=True)


def table_lines(
    rows: Sequence[Mapping[str, str]],
    *,
    words: Collection[str] = (),
    group: str = "",
    spare: Sequence[str] = (),
) -> Iterator[str]:
    """Yield a table, each row on one line, no wider than the terminal, COLUMNS, or for a pipe 80 columns.

    Columns that are the same in all rows become one line above.

    Args:
        rows: The same columns each: heading → text.
        words: Columns of words, which are aligned left.
        group: Column whose values become rows above theirs.
        spare: Columns to leave out where the table would not fit, the first one first.
    """
    if not rows:
        return
    width = line_width() or _PIPE
    same = {
        name: rows[0][name] for name in rows[0] if len(rows) > 1 and len({row[name] for row in rows}) == 1
    }
    if any(same.values()):
        values = ", ".join(f"{name} {value}" for name, value in same.items() if value)
        yield from wrapped(f"every row: {values}", width)
    columns = [name for name in rows[0] if name not in {*same, group}]
    widths = {name: max(len(row[name]) for row in rows) for name in columns}
    for name in columns[:1]:
        widths[name] = max(widths[name], *(len(row.get(group, "")) for row in rows))
    widths = _fitting(widths, width, spare)
    table, title = Table(box=None, pad_edge=False), same.get(group, "")
    for name, most in widths.items():
        table.add_column(name, justify="left" if name in words else "right", width=most)
    for row in rows:
        if row.get(group, "") != title:
            table.add_row(Text(title := row[group], justify="left"))
        table.add_row(*(row[name] for name in widths))
    for line in PlainConsole(width=sum(widths.values()) + _GAP * len(widths)).render_lines(table, pad=False):
        yield "".join(segment.text for segment in line).rstrip()
    if len(widths) < len(columns):
        hidden = ", ".join(name for name in columns if name not in widths)
        yield from wrapped(f"columns hidden at {width} characters: {hidden}", width)


def _fitting(widths: Mapping[str, int], width: int, spare: Sequence[str]) -> dict[str, int]:
    """Return the widths of the columns that fit, with their headings, which are wrapped only if necessary."""

    def fits(widths: Mapping[str, int]) -> bool:
        return sum(widths.values()) + _GAP * (len(widths) - 1) <= width

    narrow = {name: max(most, *map(len, name.split())) for name, most in widths.items()}
    for name in spare:
        if not fits(narrow):
            narrow.pop(name, None)
    whole = {name: max(most, len(name)) for name, most in narrow.items()}
    return whole if fits(whole) else narrow
