"""The writer of shards: rows of an index become shards, some rows each, and then the parts of an index.

Builds (`runners.data.build.build_pool`) and copies of subsets (`runners.data.build.subset_copy`) use it. A
table of a shard's pairs is written after the shard: a writer that was stopped at any point continues with the
shards that lack theirs.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from runners.data.build.build import NOT_INDEXED, PoolFolders, ReportPart, make_files
from runners.data.index.parts import ROWS_PER_PART, SCORE
from runners.data.index.selection import SCORE_PREFIX
from runners.data.index.writing import write_part
from runners.data.pool.shards import close_shard, write_sample
from runners.host.workers import Workers
from runners.store.copies import INDEX
from runners.store.files import new_file

PAIRS_PER_SHARD = 4096

Fill = Callable[[IO[bytes], pd.DataFrame, int], pd.DataFrame]
"""Writes the pairs of a shard, given its file, their rows and its number; returns their rows of the index.

These may have columns `NOT_INDEXED`."""


def plan_shards(folders: PoolFolders, mark: str, rows: Iterable[pa.Table], first: int) -> dict[int, int]:
    """Write the rows of each shard for `write_shards`; return the pairs of each, by number from the first on.

    Of an earlier plan with the same mark nothing is done again; shards of another one are deleted.
    """
    shared, plan = folders.shared, f"{folders.work}plan.json"
    known, counts = json.loads(shared.text(plan) or "[0, 0]")
    if known != mark:
        below = f"{folders.pool}shards/"
        written = {name: name.removesuffix(".tar") for name in shared.names(below)}
        later = [name for name, stem in written.items() if stem.isdigit() and int(stem) >= first]
        shared.delete(plan, f"{folders.work}shards/", *(below + name for name in later))
        counts = []
        for number, mine in enumerate(rows, first):
            pq.write_table(mine, shared.file(folders.table(number, ".todo")))
            counts.append(len(mine))
        shared.keep_all(folders.table(number, ".todo") for number in range(first, first + len(counts)))
        shared.write(plan, json.dumps([mark, counts]))
    return dict(enumerate(counts, first))


def write_shards(
    folders: PoolFolders, plan: Collection[int], fill: Fill, workers: Workers, report: ReportPart
) -> None:
    """Write the shards of a plan that are not written yet."""
    task, tables = partial(_write_shard, folders, fill), {number: folders.table(number) for number in plan}
    make_files(task, tables, folders.shared, workers, report, "new shard {}".format)


def _write_shard(folders: PoolFolders, fill: Fill, number: int) -> int:
    name, table, todo = f"shards/{number:05d}.tar", folders.table(number), folders.table(number, ".todo")
    with folders.shared.here() as local:
        local.fetch([todo])
        rows = pd.read_parquet(local.path / todo)
        with new_file(local.file(folders.pool + name)) as path, path.open("wb") as file:
            index = fill(file, rows, number).assign(shard=name)
            close_shard(file)
        local.keep(folders.pool + name)
        with new_file(local.file(table)) as path:
            index.to_parquet(path, index=False)
        local.keep(table)
    return len(rows)


def write_pairs(
    file: IO[bytes], rows: pd.DataFrame, images: Iterable[bytes], keys: Sequence[str]
) -> pd.DataFrame:
    """Append pairs to a tar, and return their rows with these keys and with offsets.

    The rows have the columns of an index, ``kind`` (the ending of the image) and, for a json of each sample,
    ``facts`` (JSON).
    """
    offsets = []
    for row, image, key in zip(rows.to_dict("records"), images, keys, strict=True):
        members = {row["kind"]: image, "txt": row["caption"].encode()}
        if "facts" in row:
            facts = {"key": key, **{name: row[name] for name in ("caption", "width", "height")}}
            members["json"] = json.dumps(json.loads(row["facts"]) | facts).encode()
        offsets.append(write_sample(file, key, members)[row["kind"]])
    return rows.assign(key=keys, offset=offsets)


def keys_of(rows: pd.DataFrame, first: int) -> list[str]:
    """Return the keys of rows of pairs that are counted from the first on."""
    return [f"{number:09d}" for number in range(first, first + len(rows))]


def groups_of(counts: Iterable[int]) -> list[range]:
    """Return the tables that become one part each, given the number of pairs in every table."""
    starts = np.cumsum([0, *counts])
    _, firsts = np.unique(starts[:-1] // ROWS_PER_PART, return_index=True)
    return [range(*ends) for ends in pairwise([*firsts.tolist(), len(starts) - 1])]


def write_index(  # noqa: PLR0913 - a step of a build
    folders: PoolFolders,
    tables: Mapping[str, int],
    first: int,
    workers: Workers,
    report: ReportPart,
    *,
    score: str = "",
) -> list[str]:
    """Write the parts of an index, numbered from the first; return them as in `Part`.

    ``tables`` has the names of tables of pairs, and their number of pairs. Their column ``score`` becomes
    that of the named score; without a name or values it is left out.
    """
    names = [*tables]
    groups = [names[group.start : group.stop] for group in groups_of(tables.values())]
    parts = [f"{INDEX}{number:05d}" for number in range(first, first + len(groups))]
    files = {number: f"{folders.pool}{part}.parquet" for number, part in enumerate(parts)}
    folders.shared.delete(*files.values())  # of a build that was killed
    task = partial(_write_index_part, folders, groups, files, score)
    make_files(task, files, folders.shared, workers, report, "part {} of the index".format)
    folders.shared.fetch(f"{folders.pool}{part}.words.parquet" for part in parts)
    return parts


def _write_index_part(
    folders: PoolFolders, groups: Sequence[Sequence[str]], files: Mapping[int, str], score: str, number: int
) -> int:
    part = files[number].removesuffix(".parquet")
    with folders.shared.here() as local:
        local.fetch(groups[number])
        rows = pd.concat([pd.read_parquet(local.path / name) for name in groups[number]], ignore_index=True)
        if score and rows[SCORE].notna().any():
            rows = rows.rename(columns={SCORE: SCORE_PREFIX + score})
        write_part(local.file(part), rows.drop(columns=[*NOT_INDEXED, SCORE], errors="ignore"))
        local.keep(f"{part}.words.parquet", f"{part}.parquet")
    return len(rows)
