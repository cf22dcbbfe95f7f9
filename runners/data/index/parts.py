"""The parts of an index: parquet files, each with the pairs of a group of shards.

A column that was added later, such as a further score, is a file of its own beside each part; what was
written is never changed. Parts of a pool below a URL are fetched when they are first read.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from runners.store.copies import fetched

ROWS_PER_GROUP = 16_384
"""Rows of a row group: small, so that reading a window of a large pool reads little else."""

ROWS_PER_PART = 64 * ROWS_PER_GROUP
"""Largest number of rows of a part."""

_FILES_OPEN = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part of an index.

    ``shards`` has the bytes of each shard that its pairs lie in, and of shards without pairs.
    """

    file: str  # below the pool's folder, without ``.parquet``
    group_rows: Sequence[int]
    first_group: int = 0
    shards: Mapping[str, int] = field(default_factory=dict)
    added: Sequence[str] = ()  # columns that were added to it

    @property
    def rows(self) -> int:
        """Number of pairs."""
        return sum(self.group_rows)


class Index:
    """The parts of a pool's index as one table.

    ``columns`` are those in the parts themselves, kept as ``stored``; the attribute ``columns`` has all
    names. ``added`` is the name of an added column → suffix of its files; ``named`` a further name of a
    column → its name in the files, such as ``score`` for the score in force. Files that the folder lacks are
    fetched from the URL, if any. ``starts`` has the first row of each part, and the number of pairs, int64
    (parts + 1,).
    """

    def __init__(  # noqa: PLR0913 - the fields of a manifest
        self,
        folder: Path,
        parts: Sequence[Part],
        columns: Sequence[str],
        *,
        added: Mapping[str, str] | None = None,
        named: Mapping[str, str] | None = None,
        url: str = "",
    ) -> None:
        self.folder, self.parts, self._url = folder, parts, url
        self.stored, self.added, self.named = tuple(columns), dict(added or {}), dict(named or {})
        self.columns = tuple(dict.fromkeys([*columns, *self.named, *self.added]))
        self.starts = np.cumsum([0, *(part.rows for part in parts)])
        groups = [
            (number, group) for number, part in enumerate(parts) for group in range(len(part.group_rows))
        ]
        self._groups = np.array(groups, np.int64).reshape(-1, 2)
        self._group_starts = np.cumsum([0, *(rows for part in parts for rows in part.group_rows)])
        self._file = lru_cache(maxsize=_FILES_OPEN)(self._open)

    def __reduce__(self) -> tuple[Callable[..., "Index"], tuple[object, ...]]:
        # Another process starts without open files.
        index = partial(Index, added=self.added, named=self.named, url=self._url)
        return index, (self.folder, self.parts, self.stored)

    @property
    def count(self) -> int:
        """Number of pairs."""
        return int(self.starts[-1])

    @property
    def files(self) -> list[Path]:
        """The parts' own files, in the order of the pairs; from below the URL where the folder lacks them."""
        names = dict.fromkeys(f"{part.file}.parquet" for part in self.parts)
        return [fetched(self.folder / name, self._url, name) for name in names]

    def spans(self) -> Iterator[tuple[Part, int]]:
        """Yield each part and its first row."""
        return zip(self.parts, self.starts[:-1].tolist(), strict=True)

    def read(self, part: Part, name: str) -> NDArray[Any]:
        """Return a column of numbers of one part."""
        column: NDArray[Any] = self._read(part, [name], range(len(part.group_rows)))[name].to_numpy()
        return column

    def chunks(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield a column of numbers part by part."""
        for part in self.parts:
            yield self.read(part, name)

    def cut(self, values: Iterable[NDArray[Any]], *, by_group: bool = False) -> Iterator[NDArray[Any]]:
        """Cut a column that comes in stretches of any length into those of the parts, or of their row groups.

        A number of values other than that of the pairs is a ValueError.
        """
        stretches, some = iter(values), list[NDArray[Any]]()
        for rows in [rows for part in self.parts for rows in (part.group_rows if by_group else [part.rows])]:
            while sum(map(len, some)) < rows and (each := next(stretches, None)) is not None:
                some.append(each)
            joined = np.concatenate(some or [np.empty(0)])
            if len(joined) < rows:
                raise ValueError(f"{self.count:,} pairs need a value each, but there are fewer")
            yield joined[:rows]
            some = [joined[rows:]]
        if any(map(len, chain(some, stretches))):
            raise ValueError(f"{self.count:,} pairs need a value each, but there are more")

    def frames(
        self, columns: Sequence[str] | None = None, *, file: str = "", having: Collection[str] = ()
    ) -> Iterator[pd.DataFrame]:
        """Yield the table, or some columns of it, row group by row group.

        With ``file``, parts that are not in that file are left out; with ``having``, parts that have none of
        these shards.
        """
        for part in self.parts:
            if file and part.file != file:
                continue
            if having and part.shards.keys().isdisjoint(having):
                continue
            for group in range(len(part.group_rows)):
                yield self._read(part, self.columns if columns is None else columns, [group]).to_pandas()

    def rows(self, rows: NDArray[np.int64], columns: Sequence[str]) -> pd.DataFrame:
        """Return rows in the requested order; only their row groups are read."""
        order = np.argsort(rows)
        groups = np.searchsorted(self._group_starts, rows[order], "right") - 1
        needed, firsts = np.unique(groups, return_index=True)
        found = []
        for group, mine in zip(needed.tolist(), np.split(rows[order], firsts[1:]), strict=True):
            part, within = self._groups[group]
            table = self._read(self.parts[part], columns, [int(within)])
            found.append(table.take(mine - self._group_starts[group]))  # few rows become Python objects
        frame: pd.DataFrame = pa.concat_tables(found).to_pandas().iloc[np.argsort(order)]
        return frame

    def _read(self, part: Part, columns: Sequence[str], groups: Sequence[int]) -> pa.Table:
        """Read some row groups of a part; a column that was not added to it is empty."""
        stored = {name: self.named.get(name, name) for name in columns}
        own = [each for each in dict.fromkeys(stored.values()) if each not in self.added]
        numbers = [part.first_group + group for group in groups]
        found = self._read_file(f"{part.file}.parquet", numbers, own) if own else None
        columns_found = {}
        for name, each in stored.items():
            # Scores of the shards of an earlier build and subsets of a copy are columns of some parts alone.
            if found is not None and each in own and (":" not in each or each in found.column_names):
                columns_found[name] = found[each]
            elif each in part.added:
                file = f"{part.file}.{self.added[each]}.parquet"
                columns_found[name] = self._read_file(file, numbers, [each])[each]
            else:
                rows = sum(part.group_rows[group] for group in groups)
                columns_found[name] = pa.array(np.full(rows, missing_of(each)))
        return pa.table(columns_found, schema=None)

    def _read_file(self, name: str, groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
        try:
            # Without threads: loader workers are forked, and Arrow's threads do not survive a fork.
            return self._file(name).read_row_groups(groups, columns, use_threads=False)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise ValueError(
                f"{self.folder / name}, a part of the pool's index, is damaged ({error}); restore it, or "
                f"index the pool again without {self.folder / 'pool.json'}"
            ) from error

    def _open(self, name: str) -> pq.ParquetFile:
        path = fetched(self.folder / name, self._url, name)
        # Not memory-mapped: mapped pages count as memory of each process. Not pre-buffered: the buffers
        # would stay as long as the file is open.
        return pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)


def missing_of(column: str) -> np.generic:
    """Return the value of pairs that lack an added column: no score, or not in the subset."""
    return np.bool_(False) if column.startswith("in:") else np.float32(np.nan)  # noqa: FBT003 - a value
