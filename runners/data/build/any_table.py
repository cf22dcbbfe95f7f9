"""Strict reader of tables of any kind, by DuckDB, which knows the line of each row."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from runners.data.build.table_file import ZERO_FIRST, json_row

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_TEXTS, _PACKED = (*_SEPARATORS, ".jsonl"), (".gz", ".zst")
_NONE = "\x01"  # no text contains it
MISSING = frozenset({"", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NULL", "null"})
"""Words for a missing value; ``None`` is one only in place of a number, else it may be a name."""
_AT = re.compile(r"Error on Line: (\d+)\n")
_COUNTS = re.compile("Expected Number of Columns.*")
_ADVICE = {
    "not utf-8": "its text is not UTF-8 (perhaps UTF-16); save it as UTF-8",
    "unterminated quote": 'a quotation mark is not closed; close it, or write it as "" within a quoted text',
    "invalid state": "its lines end in different ways; save it with one kind of line end",
}


def read_any_table(path: Path) -> pd.DataFrame:
    """Read a csv, tsv or jsonl file, also packed (``.gz``, ``.zst``), or a parquet file.

    The index has the place of each row: ``table.csv:7``, the line that it starts at, or ``table.parquet: row
    7``. A column of a csv or tsv file holds numbers if all of its values are numbers or missing, otherwise
    texts, of which an empty one is None: ``NA``, ``None`` and ``007`` are texts there.

    Raises:
        ValueError: The file does not exist, is of another kind, or is damaged: two columns have one name, a
            row has more or fewer fields than the header, a quotation mark is not closed, or the text is not
            UTF-8. The message names the file, and the line where there is one.
    """
    import duckdb  # noqa: PLC0415 - most commands do not need it

    if not path.exists():
        raise ValueError(f"no such table: {path}")
    kind = Path(path.stem).suffix if path.suffix in _PACKED else path.suffix
    if kind not in _TEXTS and path.suffix != ".parquet":
        raise ValueError(
            f"{path} must be a .parquet, {', '.join(_TEXTS)} file, or a text packed as .gz or .zst"
        )
    lines: Sequence[str | None] = ()
    with duckdb.connect() as engine:
        try:
            if kind == ".parquet":
                table: pd.DataFrame = engine.execute("FROM read_parquet(?)", [str(path)]).df()
                return table.set_axis([f"{path.name}: row {row}" for row in range(1, len(table) + 1)])
            lines = [line for (line,) in _read(engine, path, 1, _NONE)]
            if kind == ".jsonl":
                return _objects(path, lines)
            return _fields(engine, path, lines, _SEPARATORS[kind])
        except duckdb.Error as error:
            what, found = str(error), _AT.search(str(error))
            line = int(found[1]) if found else 0
            while 0 < line <= len(lines) and not lines[line - 1]:  # it counts from the blank lines before
                line += 1
            reason = next((text for key, text in _ADVICE.items() if key in what), what)
            counts = _COUNTS.search(what)
            where = f"{path}:{line}" if line else f"{path} can't be read"
            raise ValueError(f"{where}: {counts[0] if counts else reason}") from None


def _read(
    engine: "DuckDBPyConnection", path: Path, count: int, sep: str, after: int = 0
) -> list[tuple[str | None, ...]]:
    """Read the fields of each row, or its whole line."""
    quote, columns = "" if sep == _NONE else '"', {str(place): "VARCHAR" for place in range(count)}
    return engine.execute(
        f"FROM read_csv(?, delim = ?, quote = ?, escape = ?, columns = {columns}, skip = {after}, "
        "header = false, auto_detect = false, strict_mode = true, null_padding = false)",
        [str(path), sep, quote, quote],
    ).fetchall()


def _fields(engine: "DuckDBPyConnection", path: Path, lines: Sequence[str | None], sep: str) -> pd.DataFrame:
    reader = csv.reader((f"{line or ''}\n" for line in lines), delimiter=sep)
    header = next((fields for fields in reader if fields), None)
    if header is None:
        raise ValueError(f"{path} is empty")
    for name in header:
        if name and header.count(name) > 1:
            raise ValueError(f"{path}:{reader.line_num}: its header has two columns '{name}'")
    rows = _read(engine, path, len(header), sep, reader.line_num)
    at, places = reader.line_num, []
    for row in rows:
        while len(header) > 1 and not lines[at]:
            at += 1
        places.append(f"{path.name}:{at + 1}")
        at += 1 + sum(text.count("\n") for text in row if text)
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    table = pd.DataFrame(
        dict(enumerate(_numbers(pd.Series(column, index=places, dtype=object)) for column in columns))
    )
    return table.set_axis(header, axis=1)


def _numbers(texts: "pd.Series[str]") -> "pd.Series[Any]":
    """Return a column as numbers if all of its texts are; missing values become NaN."""
    there = ~(texts.isna() | texts.isin([*MISSING, "None"]))
    if not there.any() or texts[there].str.match(ZERO_FIRST).any():
        return texts
    try:
        return pd.to_numeric(texts.where(there))
    except ValueError:
        return texts


def _objects(path: Path, lines: Sequence[str | None]) -> pd.DataFrame:
    rows, places = [], []
    for number, line in enumerate(lines, start=1):
        if line:
            try:
                rows.append(json_row(line))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
            places.append(f"{path.name}:{number}")
    return pd.DataFrame(rows, index=places, dtype=object)
