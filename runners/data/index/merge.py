"""Passes over all pairs of a build that need more than one part at a time, by DuckDB.

DuckDB holds at most a gigabyte in memory and the rest in files of a working folder.
"""

import errno
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from runners.data.index.parts import Index
from runners.data.index.selection import score_of, tenths

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# ruff: noqa: S608 - no text of SQL comes from outside: paths and names are quoted
_MEMORY = "1GB"
_ROWS_AT_ONCE = 2**26  # of windows and joins; a quarter of the memory is enough for a quarter of them
_THREADS = 2  # each takes a part of the memory


def find_duplicates(files: Sequence[Path], known: Sequence[Path], target: Path) -> None:
    """Write ``part`` and ``row`` of each pair that repeats an earlier one, in their order.

    A part is a position in ``files``, tables with ``hash`` (of the whole pair) and ``image_hash``. A
    duplicate has both hashes of an earlier pair: 128 bits, so false ones are negligible. The pairs of
    ``known``, tables with ``hash``, come before all of them.
    """

    def repeated(mine: str) -> str:
        query = f"""
            SELECT file_index AS part, file_row_number AS row FROM {_read("files")} WHERE {mine}
            QUALIFY row_number() OVER (PARTITION BY hash, image_hash ORDER BY part, row) > 1
        """
        if known:
            query += f"""
                UNION SELECT file_index, file_row_number FROM {_read("files")}
                WHERE {mine} AND hash IN (SELECT hash FROM {_read("known")} WHERE {mine})
            """
        return query

    _by_shares(repeated, "hash", {"files": files, "known": known}, target, "part, row")


def most_frequent(files: Sequence[Path], most: int) -> list[str]:
    """Return the words of several tables of ``word`` and ``count``, by falling count, then alphabetically."""
    with _engine(files[0].parent) as engine:
        rows = engine.execute(
            f"SELECT word FROM {_read('files')} GROUP BY word ORDER BY sum(count) DESC, word LIMIT $most",
            {"files": _paths(files), "most": most},
        ).fetchall()
    return [word for (word,) in rows]


def look_up(  # noqa: PLR0913 - two groups of tables, and the column
    files: Sequence[Path], by: str, others: Sequence[Path], column: str, folder: Path, *, kind: str = "DOUBLE"
) -> Iterator[NDArray[Any]]:
    """Yield for each row of some tables, in order, the value of a column in the row of others with its id.

    Values come some rows at a time: float64, NaN where there is none; or, of another ``kind`` (a type of
    SQL), objects, None where there is none. ``by`` is the column of ids in both groups of tables. Ids of a
    column ``uid`` are compared in lower case. In any other column an id that several rows of ``files`` share
    is ambiguous, and finds nothing; an empty id finds nothing either. Of rows of ``others`` with the same id
    the first counts. Temporary files go into ``folder``.
    """
    name = _quoted([by])
    known = f"nullif(CAST({name} AS VARCHAR), '')"
    known = f"lower({known})" if by == "uid" else known
    clear = "TRUE" if by == "uid" else f"count(*) OVER (PARTITION BY {known}) = 1"

    def values(mine: str) -> str:
        return f"""
            SELECT part, row, CASE WHEN own.clear THEN other.value END AS value FROM (
                SELECT {known} AS id, file_index AS part, file_row_number AS row, {clear} AS clear
                FROM {_read("files")} WHERE {mine}
            ) AS own LEFT JOIN (
                SELECT {known} AS id, CAST({_quoted([column])} AS {kind}) AS value
                FROM {_read("others")} WHERE {mine}
                QUALIFY row_number() OVER (PARTITION BY {known} ORDER BY file_index, file_row_number) = 1
            ) AS other USING (id)
        """

    with TemporaryDirectory(prefix=".merge-", dir=folder) as temporary:
        target = Path(temporary) / "found.parquet"
        _by_shares(values, known, {"files": files, "others": others}, target, "value")
        parquet = pq.ParquetFile(target, pre_buffer=False)
        for group in range(parquet.num_row_groups):  # batches would read ahead
            some = parquet.read_row_group(group)["value"].to_numpy()
            yield some.astype(np.float64) if kind == "DOUBLE" else some


def in_order(files: Sequence[Path], order: str, folder: Path, rows: int) -> Iterator[pa.Table]:
    """Yield the rows of several tables in an order, in tables of ``rows`` rows; the last may be shorter.

    ``order`` are SQL expressions over their columns; rows that are equal in them keep their order. Temporary
    files go into ``folder``.
    """
    with TemporaryDirectory(prefix=".merge-", dir=folder) as temporary:
        target = Path(temporary) / "sorted.parquet"
        with _engine(folder) as engine:
            engine.execute(
                f"COPY (SELECT * FROM {_read('files')} ORDER BY {order}, file_index, file_row_number) "
                f"TO {_text(target)} (FORMAT parquet)",
                {"files": _paths(files)},
            )
        for batch in pq.ParquetFile(target, pre_buffer=False).iter_batches(rows):
            yield pa.Table.from_batches([batch])


def order_of_shards(index: Index) -> str:
    """Return the order of a pool's shards (tenth of the score, hash) as SQL; pairs without score first."""
    # The tenth of a pair is the number of borders between tenths that it lies behind: by its score, or, among
    # pairs with the score of the border, by its hash.
    unscored = "coalesce(isnan(score), true)"
    behind = ["0"]
    for border in tenths(index, "score"):
        score = f"'{score_of(border)!r}'::FLOAT"
        if not math.isnan(score_of(border)):
            behind.append(f"(score < {score} OR (score = {score} AND hash > {border.hash}))::INT")
    return f"CASE WHEN {unscored} THEN -1 ELSE {' + '.join(behind)} END, hash"


def _by_shares(
    query: Callable[[str], str], by: str, tables: Mapping[str, Sequence[Path]], target: Path, columns: str
) -> None:
    """Write the rows of a query in the order of ``part`` and ``row``, after running it share by share.

    A window or join of DuckDB fails if its rows exceed the memory, although it spills. Rows of one id are in
    one share, so windows and joins by the id may run share by share.

    ``query`` is given the SQL condition that rows are in a share, ``by`` is the SQL expression of the id, and
    the keys of ``tables`` are parameters of the query.
    """
    rows = sum(pq.read_metadata(table).num_rows for some in tables.values() for table in some)
    count = max(1, -(-rows // _ROWS_AT_ONCE))
    paths = {name: _paths(some) for name, some in tables.items() if some}
    with _engine(target.parent) as engine, TemporaryDirectory(prefix=".merge-", dir=target.parent) as folder:
        for number in range(count):
            statement = query(f"coalesce(hash({by}), 0) % {count} = {number}")
            share = Path(folder) / f"{number:06d}.parquet"
            engine.execute(f"COPY ({statement}) TO {_text(share)} (FORMAT parquet)", paths)
        engine.execute(
            f"COPY (SELECT {columns} FROM {_read('shares')} ORDER BY part, row) "
            f"TO {_text(target)} (FORMAT parquet)",
            {"shares": _paths([*Path(folder).iterdir()])},
        )


def _read(parameter: str) -> str:
    """Return the SQL that reads tables whose paths are a parameter.

    DuckDB would take a folder called ``score=9`` for a column.
    """
    return f"read_parquet(${parameter}, hive_partitioning = false)"


def _paths(files: Sequence[Path]) -> list[str]:
    """Return paths for `read_parquet`, which would expand ``*``, ``?`` and ``[``."""
    return [re.sub(r"([*?[])", r"[\1]", str(file)) for file in files]


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join('"' + name.replace('"', '""') + '"' for name in names)


@contextmanager
def _engine(folder: Path) -> Iterator["DuckDBPyConnection"]:
    """Context manager: a connection with a temporary folder below the given one.

    A table with other values than expected or too small a memory is a ValueError, a full disk an OSError.
    """
    import duckdb  # noqa: PLC0415 - trials do not need it

    with TemporaryDirectory(prefix=".merge-", dir=folder) as spilled:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": _MEMORY,
            "threads": _THREADS,
            "temp_directory": spilled,
        }
        with duckdb.connect(config=settings) as engine:
            engine.execute("SET enable_progress_bar = false")  # it would go to the command's output
            try:
                yield engine
            except duckdb.Error as error:
                if re.search("No space left on device|max_temp_directory_size", str(error)):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
                raise ValueError(f"can't merge tables in {folder}: {str(error).splitlines()[0]}") from error
