"""The parts of an index: parquet files, each with the pairs of a group of shards.

A column that was added later, such as a further score, is a file of its own beside each part; what was
written is never changed. Parts of a pool below a URL are fetched when they are first read.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property, lru_cache
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

SCORE = "score"
"""Name of the score that ranks the pairs, beside its own (`Index.ranked_by`)."""

_FILES_OPEN = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part of an index.

    ``shards`` has the bytes of each shard that its pairs lie in, and of shards without pairs.
    """

    file: str  # below the pool's folder, without ``.parquet``
    rows: int
    group: int = ROWS_PER_GROUP  # rows of each of its row groups but the last, which may be smaller
    shards: Mapping[str, int] = field(default_factory=dict)
    added: Sequence[str] = ()  # columns that were added to it
    score: str = ""  # column that its file calls ``score``, as those of pools of format 1 do

    def sized(self, sizes: Mapping[str, int]) -> "Part":
        """Return the part with other sizes of its shards."""
        return replace(self, shards={shard: sizes[shard] for shard in self.shards})

    @property
    def group_rows(self) -> list[int]:
        """Number of rows of each row group."""
        return [min(self.group, self.rows - start) for start in range(0, self.rows, self.group)]


@dataclass(frozen=True, eq=False)
class Index:
    """The parts of a pool's index as one table.

    ``stored`` are the columns in the parts themselves, ``added`` is the name of an added column → suffix of
    its files. ``ranked_by`` is the column of the score that ranks the pairs, which is also read as `SCORE`.
    Files that the folder lacks are fetched from the URL, if any.
    """

    folder: Path
    parts: Sequence[Part]
    stored: Sequence[str]
    _: KW_ONLY
    added: dict[str, str] = field(default_factory=dict)
    ranked_by: str = SCORE
    url: str = ""

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """All names of columns."""
        return tuple(dict.fromkeys([*self.stored, SCORE, *self.added]))

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each part, and the number of pairs, int64 (parts + 1,)."""
        return np.cumsum([0, *(part.rows for part in self.parts)])

    @cached_property
    def _groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The number of the first row group of each part, and the first row of each row group."""
        rows = [part.group_rows for part in self.parts]
        return np.cumsum([0, *map(len, rows)]), np.cumsum([0, *chain(*rows)])

    @property
    def count(self) -> int:
        """Number of pairs."""
        return int(self.starts[-1])

    @property
    def files(self) -> list[Path]:
        """The parts' own files, in the order of the pairs; from below the URL where the folder lacks them."""
        names = dict.fromkeys(f"{part.file}.parquet" for part in self.parts)
        return [fetched(self.folder / name, self.url, name) for name in names]

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
            while sum(map(len, some)) < rows and (stretch := next(stretches, None)) is not None:
                some.append(stretch)
            joined = np.concatenate(some or [np.empty(0)])
            if len(joined) < rows:
                raise ValueError(f"{self.count:,} pairs need a value each, but there are fewer")
            yield joined[:rows]
            some = [joined[rows:]]
        if any(map(len, chain(some, stretches))):
            raise ValueError(f"{self.count:,} pairs need a value each, but there are more")

    def frames(
        self, columns: Sequence[str] | None = None, *, having: Collection[str] = ()
    ) -> Iterator[pd.DataFrame]:
        """Yield the table, or some columns of it, row group by row group.

        With ``having``, parts that have none of these shards are left out.
        """
        for part in self.parts:
            if not having or not part.shards.keys().isdisjoint(having):
                for group in range(len(part.group_rows)):
                    yield self._read(part, columns or self.columns, [group]).to_pandas()

    def rows(self, rows: NDArray[np.int64], columns: Sequence[str]) -> pd.DataFrame:
        """Return rows in the requested order; only their row groups are read."""
        first_groups, group_starts = self._groups
        order = np.argsort(rows)
        groups = np.searchsorted(group_starts, rows[order], "right") - 1
        needed, firsts = np.unique(groups, return_index=True)
        tables = []
        for group, mine in zip(needed.tolist(), np.split(rows[order], firsts[1:]), strict=True):
            part = int(np.searchsorted(first_groups, group, "right")) - 1
            table = self._read(self.parts[part], columns, [group - int(first_groups[part])])
            tables.append(table.take(mine - group_starts[group]))  # few rows become Python objects
        frame: pd.DataFrame = pa.concat_tables(tables).to_pandas().iloc[np.argsort(order)]
        return frame

    def _read(self, part: Part, columns: Sequence[str], groups: Sequence[int]) -> pa.Table:
        """Read some row groups of a part."""
        names = {name: self.ranked_by if name == SCORE else name for name in columns}
        return pa.table({name: self._column(part, column, groups) for name, column in names.items()})

    def _column(self, part: Part, name: str, groups: Sequence[int]) -> pa.Array | pa.ChunkedArray:
        """Read a column of some row groups; of a part without it no scores, and no pair in the subset."""
        added = name in part.added
        stored = SCORE if name == part.score and not added else name  # its name in the file
        file = f"{part.file}.{self.added[name]}.parquet" if added else f"{part.file}.parquet"
        try:
            opened = _opened(self, file)
            # Scores of the shards of an earlier build and subsets of a copy are columns of some parts alone.
            optional = ":" in name or name == SCORE
            if not added and (name in self.added or (optional and stored not in opened.schema_arrow.names)):
                rows = sum(part.group_rows[group] for group in groups)
                no_scores = np.full(rows, np.nan, np.float32)
                return pa.array(np.zeros(rows, np.bool_) if name.startswith("in:") else no_scores)
            # Without threads: loader workers are forked, and Arrow's threads do not survive a fork.
            return opened.read_row_groups(groups, [stored], use_threads=False)[stored]
        except (pa.ArrowException, OSError, KeyError) as error:
            raise ValueError(
                f"{self.folder / file}, a part of the pool's index, is damaged ({error}); restore it, or "
                f"index the pool again without {self.folder / 'pool.json'}"
            ) from error


@lru_cache(maxsize=_FILES_OPEN)
def _opened(index: Index, file: str) -> pq.ParquetFile:
    path = fetched(index.folder / file, index.url, file)
    # Not memory-mapped: mapped pages count as memory of each process. Not pre-buffered: the buffers would
    # stay as long as the file is open.
    return pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
