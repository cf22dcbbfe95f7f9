"""Second step of a build: the tables of the scan become parts of an index, a group of tables each.

Duplicates, which DuckDB finds among all pairs, are left out, and what the scan found to be no pair.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from runners.data.build.build import Build, PoolFolders
from runners.data.build.scan import NOT_INDEXED, make_files
from runners.data.index.merge import find_duplicates
from runners.data.index.parts import ROWS_PER_PART
from runners.data.index.selection import SCORE_PREFIX
from runners.data.index.writing import write_part
from runners.data.pool.pool import Pool
from runners.host.workers import Report
from runners.store.copies import INDEX
from runners.store.files import new_file
from runners.store.shared_folder import SharedFolder

PART = (".words.parquet", ".parquet")
"""Endings of a part's files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Merge:
    """Merges each group of the scan's tables; names are below the shared folder."""

    shared: SharedFolder
    tables: Sequence[Sequence[str]]  # of each group
    parts: Sequence[str]  # without ``.parquet``
    left_out: Mapping[int, str]
    dropped: Sequence[str]  # columns that the parts do not have
    score: str  # column of the parts for the scores of the source

    def __call__(self, number: int) -> int:
        part, left_out = self.parts[number], self.left_out[number]
        with self.shared.here() as here:
            here.fetch([_repeated(left_out), *self.tables[number]])
            repeated = pq.read_table(here.path / _repeated(left_out))["row"].to_numpy()
            found = pd.concat(
                [pd.read_parquet(here.path / name) for name in self.tables[number]], ignore_index=True
            )
            is_pair = found["reason"] == ""
            found.loc[is_pair & found.index.isin(repeated), "reason"] = "duplicate"
            pairs = found["reason"] == ""
            if len(rows := found[pairs].drop(columns=self.dropped, errors="ignore")):
                if self.score != "score":
                    rows[self.score], rows["score"] = rows["score"], np.float32("nan")
                write_part(here.file(part), rows)
                here.keep(*(part + end for end in PART))
            with new_file(here.file(left_out)) as target:
                found.loc[~pairs, ["shard", "key", "reason"]].to_parquet(target, index=False)
            here.keep(left_out)
        return len(rows)


def merge_parts(
    names: Sequence[str], how: Build, folders: PoolFolders, before: Pool | None, report: Report
) -> list[str]:
    """Write the parts, and return the names of those that have pairs, without ``.parquet``.

    ``names`` are the scan's tables in the order of the source. The parts are those of the index in place, or
    else working files, which keep the columns that new shards need.
    """
    shared, work = folders.shared, f"{folders.work}merge/"
    shared.delete(work)
    duplicates = shared.file(f"{work}duplicates.parquet")
    files = [shared.path / name for name in names]
    find_duplicates(files, before.index.files if before else (), duplicates)
    counts = [pq.read_metadata(file).num_rows for file in files]
    starts = np.cumsum([0, *counts])
    groups = groups_of(counts)
    left_out = {number: f"{work}{number:05d}.left-out.parquet" for number in range(len(groups))}
    for number, group in enumerate(groups):
        within = [("part", ">=", group.start), ("part", "<", group.stop)]
        some = pq.read_table(duplicates, filters=within).to_pandas()
        rows = starts[some["part"]] - starts[group.start] + some["row"]
        pd.DataFrame({"row": rows}).to_parquet(shared.file(_repeated(left_out[number])), index=False)
    shared.keep_all(map(_repeated, left_out.values()))
    first, below = first_part(before), INDEX if how.in_place else f"{folders.work}kept/"
    parts = [f"{below}{first + number:05d}" for number in range(len(groups))]
    # A group without pairs writes no part: one that a killed build left there would enter the pool.
    shared.delete(*(part + end for part in parts for end in PART))
    merge = _Merge(
        shared=shared,
        tables=[names[group.start : group.stop] for group in groups],
        parts=parts,
        left_out=left_out,
        dropped=NOT_INDEXED if how.in_place else ["image_hash", "reason"],
        score=_column_of_scores(how, before),
    )
    make_files(
        merge, left_out, shared, how.workers, partial(report, "merging"), "part {} of the index".format
    )
    there = shared.names(below)
    found = [part for part in parts if f"{part.removeprefix(below)}.parquet" in there]
    shared.fetch(part + end for part in found for end in PART)
    return found


def left_out_of(folders: PoolFolders) -> Iterator[pd.DataFrame]:
    """Yield what `merge_parts` left out, in the order of the source."""
    for file in sorted((folders.shared.path / folders.work).glob("merge/*.left-out.parquet")):
        yield pd.read_parquet(file)


def _repeated(left_out: str) -> str:
    return left_out.replace("left-out", "repeated")


def first_part(before: Pool | None) -> int:
    """Return the number of the first new part of an index."""
    old = before.index.parts if before else ()
    return 1 + max((int(part.file.removeprefix(INDEX)) for part in old), default=-1)


def own_score(pool: Pool) -> str:
    """Return the column of the score that a pool's shards had when they were indexed; empty if replaced."""
    named, scorer = pool.index.named, pool.origin.scorer
    in_force = SCORE_PREFIX + scorer.name if scorer and "score" not in named else ""
    return next((name for name, column in named.items() if column == "score"), in_force)


def _column_of_scores(how: Build, before: Pool | None) -> str:
    """Return the index's column for scores of the source.

    It is ``score`` unless the pool is ranked by another scorer, whose scores then are in that column.
    """
    source = SCORE_PREFIX + how.columns.score
    # A given score of the source's name hides the source's, also those of new pairs.
    own = (
        before is None
        or before.origin.scorer is None
        or own_score(before) == source
        or source in before.index.added
    )
    return "score" if own else source


def groups_of(counts: Iterable[int]) -> list[range]:
    """Return the tables that become one part each, given the number of pairs in every table."""
    groups, rows = list[range](), 0
    for number, count in enumerate(counts):
        if not groups or (rows and rows + count > ROWS_PER_PART):
            groups.append(range(number, number))
            rows = 0
        groups[-1] = range(groups[-1].start, number + 1)
        rows += count
    return groups
