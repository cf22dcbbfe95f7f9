"""Aligned columns of text, fast enough for hundreds of rows in a few milliseconds."""

from collections.abc import Collection, Iterator, Mapping, Sequence


def text_table(rows: Sequence[Mapping[str, str]], *, left_aligned: Collection[str] = ()) -> Iterator[str]:
    """Yield a heading and one line per row, with two spaces between columns.

    Args:
        rows: Rows with the same columns.
        left_aligned: Columns to align left; the others are aligned right.
    """
    if not rows:
        return
    lines = [dict(zip(rows[0], rows[0], strict=True)), *rows]
    widths = {name: max(len(line[name]) for line in lines) for name in rows[0]}
    for line in lines:
        cells = [
            line[name].ljust(width) if name in left_aligned else line[name].rjust(width)
            for name, width in widths.items()
        ]
        yield "  ".join(cells).rstrip()
