"""A pool of image-text pairs: webdataset tar shards with description files beside them.

    <pool>/shards/00000.tar …   as img2dataset writes them: <key>.png or .jpg, <key>.txt, <key>.json
    <pool>/index.parquet        one row per pair, in the order of the shards (``runners.data.pool.index``)
    <pool>/vocabulary.txt       words by falling frequency, one per line
    <pool>/left-out.parquet     shard, key and reason of each sample that is not a pair; absent if none
    <pool>/pool.json            facts about the pool and its origin; written last: without it there is no pool

Existing shards are indexed in place, in their own order (`runners.data.build.in_place`);
`runners.data.build.build_pool` and `runners.data.build.write` write new ones.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from runners.data.places.copies import SHARDS_AT
from runners.data.places.piece_cache import piece_cache
from runners.data.places.place import FolderPlace, Place
from runners.data.places.url_place import UrlPlace
from runners.data.pool.damage import DAMAGE_TOLERANCE, damage_table
from runners.data.pool.subset import SUBSET_PREFIX
from runners.host.files import finish_files

FORMAT = 1

_ROWS_IN_MEMORY = 2_000_000
_GROUPS_KEPT = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """The scorer of a pool's pairs, and its cost.

    Attributes:
        name: Name of the scorer.
        train_flops: Training FLOPs spent on the scorer.
        scoring_flops: Forward FLOPs spent on scoring the pool.
        convention: Counting convention of these FLOPs.
    """

    name: str
    train_flops: int = 0
    scoring_flops: int = 0
    convention: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Facts about a pool that do not follow from its pairs.

    Attributes:
        name: Name in reports.
        scorer: The scorer whose scores rank the pool; ``None`` if there is none or it is unknown.
        provenance: Source of the pairs, as JSON.
    """

    name: str
    scorer: Scorer | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


# Without slots: cached_property stores its value in the instance's dict.
@dataclass(frozen=True, kw_only=True)
class Pool:
    """An opened pool.

    Attributes:
        path: The pool's folder.
        origin: Its name, scorer and the source of its pairs.
        count: Number of pairs.
        scored: Number of pairs with a quality score.
        fingerprint: A hash of all pairs, scores and their order.
        shards: Path below the folder → bytes of the shard.
        left_out: Reason → number of samples that are not pairs.
        scorers: Name → scorer of each score with a column of its own; the one in ``origin`` ranks the pool.
        unranked: The fingerprint that the pool had before further scores, which do not change it.
        rankings: Name of a score → fingerprint that the pool has, and number of pairs with this score, when
            it ranks the pool.
    """

    path: Path
    origin: Origin
    count: int
    scored: int
    fingerprint: str
    shards: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    unranked: str = ""
    rankings: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name in reports."""
        return self.origin.name

    @cached_property
    def subsets(self) -> dict[str, int]:
        """Number of pairs in each named subset."""
        names = [column for column in self.columns if column.startswith(SUBSET_PREFIX)]
        chosen = pq.read_table(self.index_file, columns=names) if names else None
        return (
            {name.removeprefix(SUBSET_PREFIX): int(np.sum(chosen[name])) for name in names} if chosen else {}
        )

    @cached_property
    def place(self) -> Place:
        """The place of the shards: the folder itself, or the URL that `data build --in-place` was given."""
        url = self.origin.provenance.get(SHARDS_AT)
        return UrlPlace(url, self.shards, piece_cache()) if url else FolderPlace(self.path)

    @property
    def index_file(self) -> Path:
        """Path of the index."""
        return self.path / "index.parquet"

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row per pair: the columns of ``runners.data.pool.index``; for up to some million pairs."""
        return pd.read_parquet(self.index_file)

    def warm(self) -> None:
        """Read the index of a small pool now, so that forked processes share it."""
        if self.count <= _ROWS_IN_MEMORY:
            _ = self.index

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The index's columns."""
        return tuple(self._file.schema_arrow.names)

    def column(self, name: str) -> NDArray[Any]:
        """Return a whole column of numbers."""
        values: NDArray[Any] = pq.read_table(self.index_file, columns=[name])[name].to_numpy()
        return values

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """Yield the index, or some columns of it, row group by row group."""
        for group in range(self._file.num_row_groups):
            yield self._file.read_row_group(group, columns).to_pandas()

    def left_out_table(self) -> pd.DataFrame:
        """Return shard, key and reason of each sample that is not a pair."""
        path = self.path / "left-out.parquet"
        return pd.read_parquet(path) if path.exists() else damage_table([])

    def rows(self, rows: NDArray[np.int64], columns: Sequence[str], *, keep: bool = True) -> pd.DataFrame:
        """Return rows of the index in the requested order; of a large one, only their row groups are read.

        Args:
            rows: The rows.
            columns: The columns.
            keep: False if these columns of the row groups are not soon needed again.
        """
        if self.count <= _ROWS_IN_MEMORY:
            frame: pd.DataFrame = self.index[list(columns)].iloc[rows]
            return frame
        groups = np.searchsorted(self._group_starts, rows, "right") - 1
        needed, which = np.unique(groups, return_inverse=True)
        read = self._group if keep else self._read_group
        parts = [read(int(group), tuple(columns)) for group in needed]
        sizes = np.array([len(part) for part in parts])
        inside = rows - self._group_starts[groups]
        found: pd.DataFrame = pd.concat(parts).iloc[(np.cumsum(sizes) - sizes)[which] + inside]
        return found

    @cached_property
    def _group(self) -> Callable[[int, tuple[str, ...]], pd.DataFrame]:
        """Reader of row groups with a cache: the batches of a window lie in the same few groups."""
        return lru_cache(maxsize=_GROUPS_KEPT)(self._read_group)

    def _read_group(self, group: int, columns: tuple[str, ...]) -> pd.DataFrame:
        # Without threads: loader workers are forked, and Arrow's threads do not survive a fork.
        frame: pd.DataFrame = self._file.read_row_group(group, list(columns), use_threads=False).to_pandas()
        return frame

    @cached_property
    def _file(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.index_file, memory_map=True)

    @cached_property
    def _group_starts(self) -> NDArray[np.int64]:
        facts = self._file.metadata
        sizes = [facts.row_group(group).num_rows for group in range(facts.num_row_groups)]
        return np.cumsum([0, *sizes[:-1]])

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The captions' words by falling frequency, then alphabetically."""
        return tuple((self.path / "vocabulary.txt").read_text(encoding="utf-8").split())

    @classmethod
    def open(cls, path: str | Path, *, tolerance: float = DAMAGE_TOLERANCE) -> "Pool":
        """Open a pool that has an index.

        Args:
            path: The pool's folder.
            tolerance: Share of the pairs that may lie in missing or changed shards; reading reports each of
                them.

        Raises:
            ValueError: The folder does not exist, is not a pool, or its files have changed.
        """
        path = Path(path)
        if not path.is_dir():
            raise ValueError(f"no such pool: {path} is not a folder")
        finish_files(path)
        try:
            facts = json.loads((path / "pool.json").read_text(encoding="utf-8"))
            found = facts["format"]
        except FileNotFoundError:
            raise ValueError(f"{path} is not a pool: it has no pool.json") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path / 'pool.json'} does not describe a pool: {error!r}") from error
        if found != FORMAT:
            raise ValueError(f"{path} is a pool of format {found}; this version reads format {FORMAT}")
        rows = pq.read_metadata(path / "index.parquet").num_rows
        if rows != facts["count"]:
            raise ValueError(f"{path / 'index.parquet'} has {rows} rows, pool.json says {facts['count']}")
        scorer = Scorer(**facts["scorer"]) if facts["scorer"] else None
        pool = cls(
            path=path,
            origin=Origin(name=facts["name"], scorer=scorer, provenance=facts["provenance"]),
            count=rows,
            # Pools of earlier versions record only whether there are scores.
            scored=facts.get("scored_pairs", rows if facts["scored"] else 0),
            fingerprint=facts["fingerprint"],
            shards=facts["shards"],
            left_out=facts["left_out"],
            scorers={name: Scorer(**scorer) for name, scorer in facts.get("scorers", {}).items()},
            # Pools of earlier versions know only the order in force.
            unranked=facts.get("unranked", facts["fingerprint"]),
            rankings={
                name: (each["fingerprint"], each["scored_pairs"])
                for name, each in facts.get("rankings", {}).items()
            },
        )
        _check_shards(pool, tolerance)
        return pool


def _check_shards(pool: Pool, tolerance: float) -> None:
    """Raise ValueError if more pairs than tolerated lie in shards that have changed since indexing."""
    found = pool.place.sizes(list(pool.shards))
    changed = [shard for shard, size in pool.shards.items() if found[shard] != size]
    if not changed:
        return
    column = pq.read_table(pool.index_file, columns=["shard"])["shard"].value_counts()
    pairs = {each["values"]: each["counts"] for each in column.to_pylist()}
    lost = sum(pairs.get(shard, 0) for shard in changed)
    if lost > tolerance * pool.count:
        raise ValueError(
            f"shard {pool.place.path(changed[0])} is missing or not as it was indexed "
            f"({pool.shards[changed[0]]} bytes)"
            f"{f', and so are {len(changed) - 1} more' if len(changed) > 1 else ''}: {lost:,} of "
            f"{pool.count:,} pairs, more than the tolerated {tolerance:.2%}; "
            f"to index the folder as it is now, delete {pool.path / 'pool.json'}"
        )


def tree_name(path: Path, declared: str) -> str:
    """Return a name for copies of a pool, which differs between copies with different scores.

    Args:
        path: The pool's folder.
        declared: The pool's id in a trial, which is the name as long as the pool has one score.
    """
    facts = json.loads((path / "pool.json").read_text(encoding="utf-8"))
    names, found = sorted(facts.get("rankings", {})), facts["fingerprint"]
    if len(names) <= 1 and facts.get("unranked", found) == found:
        return declared
    return f"{found}-{blake2b(json.dumps(names).encode(), digest_size=4).hexdigest()}"
