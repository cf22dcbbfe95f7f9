"""Tables in files: parquet, csv, tsv and jsonl, read whole or some rows at a time."""

import codecs
import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow.parquet as pq

from budgets.names import unknown

_ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl")

NOT_UTF8 = "\ufdd0"
"""Character that replaces bytes that are not UTF-8; no text contains it."""

_MARKING = "mark-not-utf8"
_SEPARATORS = {",": "comma", "\t": "tab"}
ZERO_FIRST = r"[-+]?0\d"
"""Start of a text such as ``007``, which is no number."""
_CLOSE = 'close it, or write it as "" within a quoted text'


def count_rows(path: Path) -> int:
    """Return the number of a table's rows; errors are those of `read_table`."""
    if path.suffix != ".parquet":
        return len(read_table(path))
    with _readable(path):
        return int(pq.read_metadata(path).num_rows)


def table_columns(path: Path) -> list[str]:
    """Return the names of a table's columns; errors are those of `read_table`."""
    if path.suffix != ".parquet":
        return list(read_table(path).columns)
    with _readable(path):
        return list(pq.read_schema(path).names)


def read_table(path: Path, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table; ValueError if the file is not one, or cannot be read.

    ``texts`` are columns of a csv or tsv file that hold texts, even if all of them look like numbers.
    """
    with _readable(path):
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix in {".csv", ".tsv", ".jsonl"}:
            try:
                return _read_text(path, texts, "strict")
            except UnicodeDecodeError:
                return _read_text(path, texts, _MARKING)
    raise ValueError(
        f"{path} is not a valid source; use a folder of .tar shards, or a table ({', '.join(_ENDINGS)})"
    )


def _read_text(
    path: Path,
    texts: Sequence[str],
    errors: Any,  # noqa: ANN401 - a handler that we registered
) -> pd.DataFrame:
    """Read a table with its texts as they are: ``NA``, ``007`` and ``true`` may be captions or ids."""
    if path.suffix == ".jsonl":
        _refuse_utf_16(path)
        rows: list[dict[str, Any]] = []
        with path.open(encoding="utf-8-sig", errors=errors) as file:
            for number, line in enumerate(file, start=1):
                try:
                    rows += [json_row(line)] if line.strip() else []
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None
        return pd.DataFrame(rows, dtype=object)
    table = read_separated(path, errors)
    for name in table.columns.difference(list(texts)):
        if not table[name].str.match(ZERO_FIRST).any():
            with suppress(ValueError):
                table[name] = pd.to_numeric(table[name])
    return table


def json_row(line: str) -> dict[str, Any]:
    """Return the row of a line of a jsonl file; ValueError if it is no JSON object."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - of a file
    return row


def read_separated(path: Path, errors: Any = "strict") -> pd.DataFrame:  # noqa: ANN401 - as above
    """Read a csv or tsv file as texts.

    A quotation mark that is not closed takes the rows after it into its text. In a tsv file it is then read
    as it is, since captions there are seldom quoted.

    Raises:
        ValueError: The text is UTF-16; in a csv file, a text has taken other rows; or a row has more fields
            than the header.
    """
    _refuse_utf_16(path)
    sep = "\t" if path.suffix == ".tsv" else ","

    def read(quoting: Literal[0, 3] = csv.QUOTE_MINIMAL) -> pd.DataFrame:
        table = pd.read_csv(
            path, sep=sep, encoding_errors=errors, dtype=str, keep_default_na=False, quoting=quoting
        )
        if len(table) and not isinstance(table.index, pd.RangeIndex):  # pandas takes surplus fields for it
            raise pd.errors.ParserError(
                f"row 1 has more fields than the header; quote texts that hold a {_SEPARATORS[sep]}"
            )
        return table

    try:
        table = read()
    except pd.errors.ParserError as error:
        if sep == "\t":
            return read(csv.QUOTE_NONE)
        _check_quotes(path, sep, errors)
        if "EOF inside string" in str(error):
            raise ValueError(f"the last row has a quotation mark that is not closed; {_CLOSE}") from None
        raise
    # Only a text of several lines can have taken other rows.
    if any(table[name].str.contains(r"[\r\n]", na=False).any() for name in table.columns):
        try:
            _check_quotes(path, sep, errors)
        except ValueError:
            if sep == ",":
                raise
            return read(csv.QUOTE_NONE)
    return table


def _refuse_utf_16(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
            raise ValueError("its text is UTF-16; save it as UTF-8")


def _check_quotes(path: Path, sep: str, errors: Any) -> None:  # noqa: ANN401 - as above
    """Raise ValueError, with the row, if a text has taken other rows; the file is read row by row."""
    lines: list[str] = []  # of the row
    with path.open(encoding="utf-8-sig", errors=errors, newline="") as file:
        rows = csv.reader(_kept_in(lines, file), delimiter=sep)
        count = -1  # the header is not a row
        width = 0
        for fields in rows:
            width = width or len(fields)
            if len(lines) > 1 and (_has_open_quote(lines, sep) or _are_rows(lines, fields, width, sep)):
                raise ValueError(
                    f"row {count + 1}: a text holds the rows after it, as after a quotation mark that is not "
                    f"closed; {_CLOSE}"
                )
            count += bool(fields)
            lines.clear()


def _kept_in(lines: list[str], file: Iterable[str]) -> Iterator[str]:
    for line in file:
        lines.append(line)
        yield line


def _has_open_quote(lines: Sequence[str], sep: str) -> bool:
    """Return whether a quoted text of a row ends in the middle of a field, or never."""
    # Blanks between a quotation mark and the end of its field do no harm.
    stripped = (re.sub(rf'" +(?={sep}|[\r\n]|$)', '"', line) for line in lines)
    try:
        list(csv.reader(stripped, delimiter=sep, strict=True))
    except csv.Error:
        return True
    return False


def _are_rows(lines: Sequence[str], fields: Sequence[str], width: int, sep: str) -> bool:
    """Return whether several lines of a row are rows by themselves: with a path or URL where the row has it.

    The text that took them ended at a quotation mark which happened to be the last character of a field.
    """
    kinds = [_kind(field) for field in fields]
    alone = csv.reader(lines, delimiter=sep, quoting=csv.QUOTE_NONE)
    alike = (
        len(row) == width
        and any(kind and kind == _kind(field) for kind, field in zip(kinds, row, strict=False))
        for row in alone
    )
    return sum(alike) > 1


def _kind(field: str) -> str:
    """Return the protocol of a URL or the ending of a path; empty for other texts, such as a number."""
    if field.split() != [field]:
        return ""
    protocol, found, _ = field.partition("://")
    ending = Path(field).suffix.lower()
    return protocol if found else ending if ending[1:2].isalpha() else ""


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return NOT_UTF8, error.end


codecs.register_error(_MARKING, _mark)
csv.field_size_limit(sys.maxsize)  # a text may be long


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # readers of tables raise many types of errors
        raise ValueError(f"cannot read table {path}: {error}") from error


def check_columns(columns: Iterable[str], path: Path, *names: str) -> None:
    """Raise ValueError, with the nearest name, if a column is missing."""
    columns = list(columns)
    for name in names:
        if name not in columns:
            raise ValueError(f"{path}: {unknown('column', name, columns)}")


def read_rows(path: Path, start: int, stop: int, texts: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read some rows, as `read_table`; a parquet file is read by row group, as it may exceed the memory."""
    changed = path.stat().st_mtime_ns
    if path.suffix != ".parquet":
        return _kept_table(path, changed, texts).iloc[start:stop]
    groups, begin = [], 0
    for group, count in enumerate(_group_sizes(path, changed)):
        first, last = max(start - begin, 0), min(stop - begin, count)
        if first < last:
            groups.append(_kept_group(path, changed, group).iloc[first:last])
        begin += count
    return pd.concat(groups)


# A process reads the parts of a table one after the other.
@lru_cache(maxsize=1)
def _kept_table(path: Path, _changed_ns: int, texts: tuple[str, ...]) -> pd.DataFrame:
    return read_table(path, texts)


@lru_cache(maxsize=1)
def _kept_group(path: Path, _changed_ns: int, group: int) -> pd.DataFrame:
    with _readable(path):
        frame: pd.DataFrame = pq.ParquetFile(path).read_row_group(group).to_pandas()
    return frame


@lru_cache(maxsize=1)
def _group_sizes(path: Path, _changed_ns: int) -> list[int]:
    with _readable(path):
        facts = pq.read_metadata(path)
        return [facts.row_group(group).num_rows for group in range(facts.num_row_groups)]
