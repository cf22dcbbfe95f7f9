"""Second step of a build: the tables of the scan become parts of an index, a group of tables each.

Duplicates, which DuckDB finds among all pairs, and images of evaluation sets are left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from runners.data.build.scan import NOT_INDEXED, OF_SCAN, damage_of, run
from runners.data.build.thumbnail import EvaluationImages
from runners.data.index.merge import find_duplicates
from runners.data.index.parts import ROWS_PER_PART
from runners.data.index.writing import write_part
from runners.host.workers import Report, Workers
from runners.store.files import new_file
from runners.store.shared_folder import SharedFolder

_LEFT_OUT = ".left-out.parquet"
_PART = (".words.parquet", ".parquet")
"""Endings of a part's files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """Options of merging the scan's tables; folders are below the shared one, with ``/`` at the end."""

    work: str
    parts: str
    in_place: bool  # the parts are those of the pool's index; else they keep `NOT_INDEXED` for new shards
    first: int = 0
    known: EvaluationImages | None = None
    before: Sequence[Path] = ()  # tables with the ``hash`` of pairs that the pool already has
    score: str = "score"  # column of the parts for the scores of the source


def merge_parts(
    files: Sequence[Path], how: Merge, shared: SharedFolder, workers: Workers, report: Report
) -> list[str]:
    """Write the parts, and return the names of those that have pairs, without ``.parquet``.

    The scan's tables lie in the shared folder, in the order of the source.
    """
    duplicates = shared.file(f"{how.work}duplicates.parquet")
    find_duplicates(files, how.before, duplicates)
    groups = groups_of([pq.read_metadata(file).num_rows for file in files])
    for number, group in enumerate(groups):
        within = [("part", ">=", group.start), ("part", "<", group.stop)]
        mine = shared.file(f"{how.work}{number:05d}.duplicates")
        pq.write_table(pq.read_table(duplicates, filters=within), mine)
    shared.keep_all(f"{how.work}{number:05d}.duplicates" for number in range(len(groups)))
    numbers = [f"{how.first + number:05d}" for number in range(len(groups))]
    # A group without pairs writes no part: one that a killed build left there would enter the pool.
    shared.delete(*(f"{how.parts}{number}{end}" for number in numbers for end in _PART))
    names = [file.relative_to(shared.path).as_posix() for file in files]
    run(
        partial(_merge_group, shared, how, names, groups),
        range(len(groups)),
        workers,
        partial(report, "merging"),
        "part {} of the index".format,
    )
    there = shared.names(how.parts)
    found = [number for number in numbers if f"{number}.parquet" in there]
    shared.fetch(f"{how.parts}{name}{end}" for name in found for end in _PART)
    shared.fetch(f"{how.work}{number:05d}{_LEFT_OUT}" for number in range(len(groups)))
    return [how.parts + name for name in found]


def left_out_of(work: Path) -> Iterator[pd.DataFrame]:
    """Yield what `merge_parts` left out, and what the scan found damaged, in the order of the source."""
    for file in sorted(work.glob(f"*{_LEFT_OUT}")):
        yield pd.read_parquet(file)


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


def _merge_group(
    shared: SharedFolder, how: Merge, names: Sequence[str], groups: Sequence[range], number: int
) -> int:
    stem, part, group = f"{how.work}{number:05d}", f"{how.parts}{how.first + number:05d}", groups[number]
    mine = names[group.start : group.stop]
    with shared.here() as here:
        damage = [f"{name.removesuffix('.parquet')}.jsonl" for name in mine]
        here.fetch([f"{stem}.duplicates", *mine, *damage])
        repeated = pq.read_table(here.path / f"{stem}.duplicates").to_pandas()
        files = {place: here.path / names[place] for place in group}
        rows, without = _merged(files, how, repeated)
        with new_file(here.file(stem + _LEFT_OUT)) as target:
            without.to_parquet(target, index=False)
        here.keep(stem + _LEFT_OUT)
        if len(rows):
            write_part(here.file(part), rows)
            here.keep(*(part + end for end in _PART))
    return len(rows)


def _merged(
    files: Mapping[int, Path], how: Merge, repeated: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the pairs of a group of tables by their places, and what is left out of it."""
    kept, left_out = [], []
    for place, file in files.items():
        found = pd.read_parquet(file)
        reasons = np.full(len(found), "", object)
        reasons[repeated["row"][repeated["part"] == place]] = "duplicate"
        if how.known is not None:
            alike = how.known.reasons(
                found["image_hash"].to_numpy(), found["pixels"].to_numpy(), found["thumbnail"]
            )
            reasons = np.where(alike == "", reasons, alike)
        out = reasons != ""
        left_out += [damage_of(file), found[["shard", "key"]].assign(reason=reasons)[out]]
        kept.append(found[~out])
    rows = pd.concat(kept, ignore_index=True).drop(columns=OF_SCAN)
    if how.in_place:
        rows = rows.drop(columns=NOT_INDEXED, errors="ignore")
    if how.score != "score":
        rows[how.score] = rows["score"]
        rows["score"] = np.full(len(rows), np.nan, np.float32)
    return rows, pd.concat(left_out, ignore_index=True).astype("str")
