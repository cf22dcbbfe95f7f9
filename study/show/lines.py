"""Lines and tables as wide as a terminal or COLUMNS; words stay whole, and so do numbers with their units."""

import re
import shutil
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import zip_longest

_PIPE = 80  # width of tables without a terminal
_FIXED = "\u00a0"
_UNIT = re.compile(
    r"(?<=\d) (?=(?:%|\w?FLOPs?|points|pairs|h|min|s|d)\b|%)|(?<=\berror|.\bloss|..\btop) |, (?=[\d.]+\])"
)
_RANGE = re.compile(r"(?<!…)(?<!\bto) ")
_GAP = 2


def line_width() -> int:
    """Return the width of lines; 0 for a pipe, whose lines stay whole, unless COLUMNS is set."""
    return shutil.get_terminal_size((0, 0)).columns


def wrapped(line: str, width: int) -> list[str]:
    """Return a line, wrapped between words and with its further parts indented if it is wider than that."""
    if not width or len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + _GAP)
    kept = _UNIT.sub(lambda found: found[0].replace(" ", _FIXED), line)
    return [part.replace(_FIXED, " ") for part in _parts(kept, width, indent)]


def _parts(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def table_lines(
    rows: Sequence[Mapping[str, str]],
    *,
    words: Collection[str] = (),
    group: str = "",
    spare: Sequence[str] = (),
) -> Iterator[str]:
    """Yield a table, no wider than the terminal, COLUMNS, or for a pipe 80 columns.

    Columns that are the same in all rows become one line above. Others are wrapped between words, numbers
    only within ranges.

    Args:
        rows: The same columns each: heading → text.
        words: Columns of words, which are aligned left.
        group: Column whose values become lines above their rows.
        spare: Columns to leave out where the table would not fit, the first one first.
    """
    if not rows:
        return
    width = line_width() or _PIPE
    same = {
        name: rows[0][name] for name in rows[0] if len(rows) > 1 and len({row[name] for row in rows}) == 1
    }
    if any(same.values()):
        said = ", ".join(f"{name} {value}" for name, value in same.items() if value)
        yield from wrapped(f"every row: {said}", width)
    columns = {
        name: [name, *((_UNIT if name in words else _RANGE).sub(_FIXED, row[name]) for row in rows)]
        for name in rows[0]
        if name not in {*same, group}
    }
    widths = _widths(columns, width, spare)
    above = ""
    for place, row in enumerate([{}, *rows]):
        if group not in {"", *same} and place and row[group] != above:
            yield (above := row[group])
        cells = [_parts(columns[name][place], widths[name]) for name in widths]
        for parts in zip_longest(*cells, fillvalue=""):
            aligned = (
                part.ljust(widths[name]) if name in words else part.rjust(widths[name])
                for name, part in zip(widths, parts, strict=True)
            )
            yield (" " * _GAP).join(aligned).replace(_FIXED, " ").rstrip()
    if gone := [name for name in columns if name not in widths]:
        yield from wrapped(f"not shown at a width of {width}: {', '.join(gone)}", width)


def _widths(columns: Mapping[str, Sequence[str]], width: int, spare: Sequence[str]) -> dict[str, int]:
    """Return the widths of the columns that fit, the widest of them narrowed down to their longest words."""
    least = {
        name: max(len(word) for cell in cells for word in cell.split(" ")) for name, cells in columns.items()
    }
    for name in spare:
        if sum(least.values()) + _GAP * len(least) <= width + _GAP:
            break
        least.pop(name, None)
    widths = {name: max(map(len, columns[name])) for name in least}
    while sum(widths.values()) + _GAP * len(widths) > width + _GAP:
        wide = [name for name in widths if widths[name] > least[name]]
        if not wide:
            break
        widths[max(wide, key=lambda name: widths[name])] -= 1
    return widths
