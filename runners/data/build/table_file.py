"""The strict reader of tables in files: csv, tsv, jsonl and parquet."""

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from budgets.names import unknown

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_TEXTS, _PACKED = (*_SEPARATORS, ".jsonl"), (".gz", ".zst")
_NONE = "\x01"  # no text contains it
MISSING = frozenset({"", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NULL", "null"})
"""Words for a missing value; ``None`` is one only in place of a number, else it may be a name."""
_ZERO_FIRST = r"[-+]?0\d"  # of a text such as 007, which is no number
_AT = re.compile(r"Error on Line: (\d+)\n")
_COUNTS = re.compile("Expected Number of Columns.*")
_OPEN = 'a quotation mark is not closed; close it, or write it as "" within a quoted text'
_ADVICE = {
    "not utf-8": "its text is not UTF-8 (perhaps UTF-16); save it as UTF-8",
    "unterminated quote": _OPEN,
    "invalid state": "its lines end in different ways; save it with one kind of line end",
}

csv.field_size_limit(sys.maxsize)  # a text may be long


def read_any_table(path: Path, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Read a csv, tsv or jsonl file, also packed (``.gz``, ``.zst``), or a parquet file.

    The index has the place of each row: ``table.csv:7``, the line that it starts at, or ``table.parquet: row
    7``. A column of a csv or tsv file holds numbers if it is none of ``texts`` and all of its values are
    numbers or missing, otherwise texts, of which an empty one is None: ``NA``, ``None`` and ``007`` are texts
    there. Quotation marks of a tsv file that don't close are read as they are: captions there are seldom
    quoted.

    Raises:
        ValueError: The file does not exist, is of another kind, or is damaged: two columns have one name, a
            row has more or fewer fields than the header, a quotation mark is not closed, or the text is not
            UTF-8. The message names the file, and the line where there is one.
    """
    import duckdb  # noqa: PLC0415 - most commands do not need it

    kind = _kind_of(path)
    if kind == ".parquet":
        table = read_rows(path, 0, count_rows(path))
        return table.set_axis([f"{path.name}: row {row}" for row in range(1, len(table) + 1)])
    lines: list[str | None] = []
    try:
        lines += [line for (line,) in _rows(path, 1, _NONE, quote="")]
        return _objects(path, lines) if kind == ".jsonl" else _fields(path, lines, _SEPARATORS[kind], texts)
    except duckdb.Error as error:
        what, at, counts = str(error), _AT.search(str(error)), _COUNTS.search(str(error))
        line = int(at[1]) if at else 0
        while 0 < line <= len(lines) and not lines[line - 1]:  # it counts from the blank lines before
            line += 1
        reason = next((text for key, text in _ADVICE.items() if key in what), what)
        where = f"{path}:{line}" if line else f"{path} can't be read"
        raise ValueError(f"{where}: {counts[0] if counts else reason}") from None


def _kind_of(path: Path) -> str:
    if not path.exists():
        raise ValueError(f"no such table: {path}")
    kind = Path(path.stem).suffix if path.suffix in _PACKED else path.suffix
    if kind not in _TEXTS and path.suffix != ".parquet":
        raise ValueError(
            f"{path} must be a .parquet, {', '.join(_TEXTS)} file, or a text packed as .gz or .zst"
        )
    return kind


def _rows(
    path: Path, count: int, sep: str, *, quote: str = '"', after: int = 0
) -> list[tuple[str | None, ...]]:
    """Read the fields of each row, or its whole line."""
    import duckdb  # noqa: PLC0415 - as above

    columns = {str(place): "VARCHAR" for place in range(count)}
    with duckdb.connect() as engine:
        return engine.execute(
            f"FROM read_csv(?, delim = ?, quote = ?, escape = ?, columns = {columns}, skip = {after}, "
            "header = false, auto_detect = false, strict_mode = true, null_padding = false)",
            [str(path), sep, quote, quote],
        ).fetchall()


def _fields(path: Path, lines: Sequence[str | None], sep: str, texts: Sequence[str]) -> pd.DataFrame:
    import duckdb  # noqa: PLC0415 - as above

    reader = csv.reader((f"{line or ''}\n" for line in lines), delimiter=sep)
    header = next((fields for fields in reader if fields), None)
    if header is None:
        raise ValueError(f"{path} is empty")
    for name in header:
        if name and header.count(name) > 1:
            raise ValueError(f"{path}:{reader.line_num}: its header has two columns '{name}'")
    first = reader.line_num
    try:
        rows = _rows(path, len(header), sep, after=first)
        places = _places(path, lines, rows, first, sep)
    except (duckdb.Error, ValueError):
        if sep == ",":
            raise
        rows = _rows(path, len(header), sep, quote="", after=first)
        places = _places(path, lines, rows, first, sep)
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    series = (pd.Series(column, index=places, dtype=object) for column in columns)
    found = (each if name in texts else _numbers(each) for name, each in zip(header, series, strict=True))
    return pd.DataFrame(dict(enumerate(found)), index=places).set_axis(header, axis=1)


def _places(
    path: Path, lines: Sequence[str | None], rows: Sequence[tuple[str | None, ...]], start: int, sep: str
) -> list[str]:
    """Return the file and line of each row; ValueError if a text has taken the rows after it."""
    at, places = start, []
    for row in rows:
        while len(row) > 1 and not lines[at]:
            at += 1
        places.append(f"{path.name}:{at + 1}")
        height = 1 + sum(text.count("\n") for text in row if text)
        if height > 1 and _are_rows(lines[at : at + height], row, sep):
            raise ValueError(f"{path}:{at + 1}: a text holds the rows after it, as after {_OPEN}")
        at += height
    return places


def _are_rows(lines: Sequence[str | None], fields: Sequence[str | None], sep: str) -> bool:
    """Return whether several lines of a row are rows by themselves: with a path or URL where the row has it.

    The text that took them ended at a quotation mark which happened to be the last character of a field.
    """
    kinds = [_kind_of_text(field or "") for field in fields]
    alone = csv.reader([line or "" for line in lines], delimiter=sep, quoting=csv.QUOTE_NONE)
    alike = (
        len(row) == len(fields)
        and any(kind and kind == _kind_of_text(field) for kind, field in zip(kinds, row, strict=True))
        for row in alone
    )
    return sum(alike) > 1


def _kind_of_text(field: str) -> str:
    """Return the protocol of a URL or the ending of a path; empty for other texts, such as a number."""
    protocol, found, _ = field.partition("://")
    ending = Path(field).suffix.lower()
    return "" if field.split() != [field] else protocol if found else ending if ending[1:2].isalpha() else ""


def _numbers(texts: "pd.Series[str]") -> "pd.Series[Any]":
    """Return a column as numbers if all of its texts are; missing values become NaN."""
    there = ~(texts.isna() | texts.isin([*MISSING, "None"]))
    if not there.any() or texts[there].str.match(_ZERO_FIRST).any():
        return texts
    try:
        return pd.to_numeric(texts.where(there))
    except ValueError:
        return texts


def _objects(path: Path, lines: Sequence[str | None]) -> pd.DataFrame:
    rows, places = [], []
    for number, line in enumerate(lines, start=1):
        if line and line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: not valid JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{number}: not a JSON object")
            rows.append(row)
            places.append(f"{path.name}:{number}")
    return pd.DataFrame(rows, index=places, dtype=object)


def count_rows(path: Path) -> int:
    """Return the number of a table's rows; errors are those of `read_any_table`."""
    if _kind_of(path) != ".parquet":
        return len(read_any_table(path))
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def table_columns(path: Path) -> list[str]:
    """Return the names of a table's columns; errors are those of `read_any_table`."""
    if _kind_of(path) != ".parquet":
        return list(read_any_table(path).columns)
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def check_columns(columns: Iterable[str], path: Path, *names: str) -> None:
    """Raise ValueError, with the nearest name, if a column is missing."""
    columns = list(columns)
    for name in names:
        if name not in columns:
            raise ValueError(f"{path}: {unknown('column', name, columns)}")


def read_rows(path: Path, start: int, stop: int, texts: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read some rows, as `read_any_table`; a parquet file by row group, as it may exceed the memory."""
    changed = path.stat().st_mtime_ns
    if _kind_of(path) != ".parquet":
        return _kept_table(path, changed, texts).iloc[start:stop]
    found, begin = [], 0
    with _opened(path) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        for group, count in enumerate(sizes):
            first, last = max(start - begin, 0), min(stop - begin, count)
            if first < last:
                found.append(_kept_group(path, changed, group).iloc[first:last])
            begin += count
        return pd.concat(found) if found else file.schema_arrow.empty_table().to_pandas()


# A process reads the parts of a table one after the other.
@lru_cache(maxsize=1)
def _kept_table(path: Path, _changed_ns: int, texts: tuple[str, ...]) -> pd.DataFrame:
    return read_any_table(path, texts)


@lru_cache(maxsize=1)
def _kept_group(path: Path, _changed_ns: int, group: int) -> pd.DataFrame:
    with _opened(path) as file:
        frame: pd.DataFrame = file.read_row_group(group).to_pandas()
        return frame


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
