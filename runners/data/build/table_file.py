"""The strict reader of tables in files: csv, tsv, jsonl and parquet; of results also logs in JSON."""

import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from budgets.names import unknown

T = TypeVar("T")
TableRow = tuple[int, dict[str, Any]]
"""First line of a row, and its values by column."""

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_TEXTS, _PACKED = (*_SEPARATORS, ".jsonl"), (".gz", ".zst")
MISSING = frozenset({"", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NULL", "null"})
"""Words for a missing value; ``None`` is one only in place of a number, else it may be a name."""
_ZERO_FIRST = r"[-+]?0\d"  # of a text such as 007, which is no number
_BLANKS = re.compile(r'(?<!")" +(?=[,\t\r\n])')  # after a quoted text
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_NO_NUMBER = re.compile(r"(?<=: )(nan|-?inf)(?=[,}])")  # of a dict's text, which literals don't have
_LONGEST_ROW = 1 << 24
"""Characters of the longest row, as many as DuckDB reads of an object of JSON; they fit into the memory."""
_OPEN = 'a quotation mark is not closed; close it, or write it as "" within a quoted text'
_NOT_UTF8 = "its text is not UTF-8 (perhaps UTF-16); save it as UTF-8"

csv.field_size_limit(_LONGEST_ROW)


def read_any_table(path: Path, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Read a csv, tsv or jsonl file, also packed (``.gz``, ``.zst``), or a parquet file.

    The index has the place of each row: ``table.csv:7``, the line that it starts at, or ``table.parquet: row
    7``. A column of a csv or tsv file holds numbers if it is none of ``texts`` and all of its values are
    numbers or missing, otherwise texts, of which an empty one is None: ``NA``, ``None`` and ``007`` are texts
    there. Quotation marks of a tsv file that don't close are read as they are: captions there are seldom
    quoted.

    Raises:
        ValueError: The file does not exist, is of another kind, or is damaged: two columns have one name, a
            row has more or fewer fields than the header or more than 16 MiB, a quotation mark is not closed,
            or the text is not UTF-8. The message names the file, and the line where there is one.
    """
    kind = _kind_of(path)
    if kind == ".parquet":
        table = read_rows(path, 0, columns_and_rows(path)[1])
        return table.set_axis([f"{path.name}: row {row}" for row in range(1, len(table) + 1)])
    rows = _with_all(path, kind, list)
    if not rows:
        raise ValueError(f"table {path} has no rows")
    places = [f"{path.name}:{line}" for line, _ in rows]
    frame = pd.DataFrame([row for _, row in rows], places, dtype=object)
    if kind == ".jsonl":
        return frame
    # Columns that are replaced one by one take minutes if there are thousands.
    return pd.DataFrame({
        name: column if name in texts else _numbers(column) for name, column in frame.items()
    })  # fmt: skip


def read_results(paths: Sequence[Path]) -> pd.DataFrame:
    """Read tables of results as one; fields of nested objects become columns by their paths, ``config.lr``.

    A ``.json`` file is the log of a run: an object with one list of objects, its rows, each of which gets the
    object's other fields. Its column ``run``, if it has none, is the file's folder, without a last part such
    as ``checkpoint-500``. An object may also be the text of a Python dict, as `pandas` writes it to a csv.

    Raises:
        ValueError: As `read_any_table`, or a log is no JSON, or has no list of rows.
    """
    frames = [_log_of_run(path) if path.suffix == ".json" else read_any_table(path) for path in paths]
    return pd.concat([_flattened(frame) for frame in frames])


def _log_of_run(path: Path) -> pd.DataFrame:
    try:
        log = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} can't be read as JSON: {error}") from None
    fields = dict(log) if isinstance(log, dict) else {"": log}
    lists = [name for name, value in fields.items() if value and _is_list_of_rows(value)]
    if len(lists) != 1:
        raise ValueError(f"{path} must have one list of objects, its rows; found {len(lists)}")
    rows = fields.pop(lists[0])
    folder = next((part for part in path.absolute().parts[-2::-1] if not _CHECKPOINT.fullmatch(part)), "")
    places = [f"{path.name}: {lists[0]}[{row}]" for row in range(len(rows))]
    return pd.DataFrame([{"run": folder, **fields, **row} for row in rows], places, dtype=object)


def _is_list_of_rows(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _flattened(frame: pd.DataFrame) -> pd.DataFrame:
    objects = {name: column.map(_object) for name, column in frame.items() if column.dtype == object}
    nested = {
        name: column
        for name, column in objects.items()
        if column.map(lambda value: type(value) is dict).any()
    }
    if not nested:
        return frame
    parts = [frame.drop(columns=list(nested))]
    for name, column in nested.items():
        fields = pd.DataFrame([_paths(value, f"{name}.") for value in column], frame.index, dtype=object)
        parts.append(fields.drop(columns=[path for path in fields if path in frame]))
    return pd.concat(parts, axis=1)


def _object(value: object) -> object:
    """Return a cell, which is a dict if its text is one."""
    if not (isinstance(value, str) and value.startswith("{") and value.endswith("}")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(_NO_NUMBER.sub("None", value))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value


def _paths(value: object, start: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {}
    fields = dict[str, Any]()
    for name, inner in value.items():
        fields |= _paths(inner, f"{start}{name}.") if isinstance(inner, dict) else {f"{start}{name}": inner}
    return fields


def _kind_of(path: Path) -> str:
    if not path.exists():
        raise ValueError(f"no such table: {path}")
    kind = Path(path.stem).suffix if path.suffix in _PACKED else path.suffix
    if kind not in _TEXTS and path.suffix != ".parquet":
        raise ValueError(
            f"{path} must be a .parquet, {', '.join(_TEXTS)} file, or a text packed as .gz or .zst"
        )
    return kind


def _with_all(path: Path, kind: str, use: Callable[[Iterator[TableRow]], T]) -> T:
    """Return what a function makes of all rows of a text."""
    if kind == ".jsonl":
        return use(_objects(path))
    try:
        return use(_fields(path, _SEPARATORS[kind], quoted=True))
    except ValueError:
        if kind != ".tsv":
            raise
    return use(_fields(path, _SEPARATORS[kind], quoted=False))


def _lines(path: Path) -> Iterator[str]:
    with _opened(path, pa.input_stream) as stream:
        next_line = partial(BufferedReader(stream).readline, _LONGEST_ROW + 1)
        for number, line in enumerate(iter(next_line, b""), start=1):
            if len(line) > _LONGEST_ROW:
                raise ValueError(f"{path}:{number}: a line of more than {_LONGEST_ROW:,} bytes")
            if number == 1 and b"\0" in line:  # UTF-16 of ASCII characters, without its mark
                raise ValueError(f"{path}:1: {_NOT_UTF8}")
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{path}:{number}: {_NOT_UTF8}") from None


def _fields(path: Path, sep: str, *, quoted: bool) -> Iterator[TableRow]:
    """Yield the first line of each row of a csv or tsv file, and its fields, None where empty, by column."""
    header, lines = list[str](), list[str]()  # the lines of the row

    def noted() -> Iterator[str]:
        size = 0
        for line in _lines(path):
            size = size + len(line) if lines else len(line)
            if size > _LONGEST_ROW:
                raise csv.Error(f"more than {_LONGEST_ROW:,} characters")
            lines.append(line)
            yield _BLANKS.sub('"', line)

    reader = csv.reader(
        noted(), delimiter=sep, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
    )
    try:
        for fields in reader:
            line = reader.line_num - len(lines) + 1
            if not header:
                _reject_repeated(fields, f"{path}:{line}")
            if header and fields:
                if len(fields) != len(header):
                    raise ValueError(f"{path}:{line}: {len(fields)} fields, but {len(header)} in the header")
                if len(lines) > 1 and _are_rows(lines, fields, sep):
                    raise ValueError(f"{path}:{line}: a text holds the rows after it, as after {_OPEN}")
                yield line, dict(zip(header, (field or None for field in fields), strict=True))
            header = header or fields
            lines.clear()
    except csv.Error as error:
        is_return = str(error).startswith("new-line character")
        reason = (
            "a carriage return amid a line; end lines with line feeds" if is_return else f"{_OPEN} ({error})"
        )
        raise ValueError(f"{path}:{reader.line_num - len(lines) + 1}: {reason}") from None


def _reject_repeated(columns: Iterable[str], place: str) -> None:
    if repeated := [name for name, count in Counter(columns).items() if count > 1]:
        raise ValueError(f"{place}: its header has two columns '{repeated[0]}'")


def _are_rows(lines: Sequence[str], fields: Sequence[str], sep: str) -> bool:
    """Return whether several lines of a row are rows by themselves: with a path or URL where the row has it.

    The text that took them ended at a quotation mark which happened to be the last character of a field.
    """
    kinds = list(map(_kind_of_text, fields))
    alone = csv.reader(lines, delimiter=sep, quoting=csv.QUOTE_NONE)
    alike = (
        len(row) == len(fields)
        and any(kind and kind == _kind_of_text(field) for kind, field in zip(kinds, row, strict=True))
        for row in alone
    )
    return sum(alike) > 1


def _kind_of_text(field: str) -> str:
    """Return the protocol of a URL or the ending of a path; empty for other texts, such as a number."""
    protocol, sep, _ = field.partition("://")
    ending = Path(field).suffix.lower()
    return "" if field.split() != [field] else protocol if sep else ending if ending[1:2].isalpha() else ""


def _numbers(texts: "pd.Series[str]") -> "pd.Series[Any]":
    """Return a column as numbers if all of its texts are; missing values become NaN."""
    there = ~(texts.isna() | texts.isin([*MISSING, "None"]))
    if not there.any() or texts[there].str.match(_ZERO_FIRST).any():
        return texts
    try:
        return pd.to_numeric(texts.where(there))
    except ValueError:
        return texts


def _objects(path: Path) -> Iterator[TableRow]:
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}:{number}: not valid JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{number}: not a JSON object")
            yield number, row


def columns_and_rows(path: Path) -> tuple[list[str], int]:
    """Return the names of a table's columns, and the number of its rows; errors as of `read_any_table`."""
    kind = _kind_of(path)
    if kind != ".parquet":
        return _with_all(path, kind, _counted)
    with _opened(path, pq.ParquetFile) as file:
        columns, rows = list(file.schema_arrow.names), int(file.metadata.num_rows)
    _reject_repeated(columns, str(path))
    return columns, rows


def _counted(rows: Iterator[TableRow]) -> tuple[list[str], int]:
    names, count = dict[str, None](), 0
    for _, row in rows:
        names |= dict.fromkeys(row)
        count += 1
    return list(names), count


def check_columns(columns: Iterable[str], path: Path, *names: str) -> None:
    """Raise ValueError, with the nearest name, if a column is missing."""
    columns = list(columns)
    for name in names:
        if name not in columns:
            raise ValueError(f"{path}: {unknown('column', name, columns)}")


def read_rows(path: Path, start: int, stop: int, texts: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read some rows, as `read_any_table`; a parquet file by row group, as it may exceed the memory."""
    kind, changed = _kind_of(path), path.stat().st_mtime_ns
    if kind != ".parquet":
        return _kept_table(path, changed, texts).iloc[start:stop]
    frames, begin = [], 0
    with _opened(path, pq.ParquetFile) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        for group, count in enumerate(sizes):
            first, last = max(start - begin, 0), min(stop - begin, count)
            if first < last:
                frames.append(_kept_group(path, changed, group).iloc[first:last])
            begin += count
        return pd.concat(frames) if frames else file.schema_arrow.empty_table().to_pandas()


# A process reads the parts of a table one after the other.
@lru_cache(maxsize=1)
def _kept_table(path: Path, _changed_ns: int, texts: tuple[str, ...]) -> pd.DataFrame:
    return read_any_table(path, texts)


@lru_cache(maxsize=1)
def _kept_group(path: Path, _changed_ns: int, group: int) -> pd.DataFrame:
    with _opened(path, pq.ParquetFile) as file:
        frame: pd.DataFrame = file.read_row_group(group).to_pandas()
        return frame


@contextmanager
def _opened(path: Path, opener: Callable[[str], Any]) -> Iterator[Any]:
    try:
        with opener(str(path)) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
