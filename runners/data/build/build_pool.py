"""Building of a pool from shards or a table: read and checked part by part, then written best first.

A build that was stopped at any point continues where it stopped (`runners.data.build.build`).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from budgets.quality import check_score_name
from runners.data.build.build import Build, PoolFolders, ReportPart, folders_of, scan, working
from runners.data.build.new_shards import (
    PAIRS_PER_SHARD,
    groups_of,
    keys_of,
    plan_shards,
    write_index,
    write_pairs,
    write_shards,
)
from runners.data.build.source import SourcePart, parts_at, parts_of
from runners.data.build.thumbnail import EvaluationImages
from runners.data.index.merge import find_duplicates, in_order, order_of_shards
from runners.data.index.parts import ROWS_PER_GROUP, Index
from runners.data.index.selection import SCORE_PREFIX
from runners.data.index.writing import VERSIONS, read_part, write_table
from runners.data.pool.describe import describe_pool
from runners.data.pool.pool import Pool, Scorer
from runners.data.pool.reader import read_once
from runners.data.pool.shards import as_utf8
from runners.host.workers import Report
from runners.store.copies import INDEX, SHARDS_AT, listed, pool_at
from runners.store.location import Location
from runners.store.shard_reader import shard_reader

_SHARD = re.compile(r"shards/(\d+)\.tar")

_OPTIONS = "options"
"""Field of a pool's provenance."""


def build_pool(path: Path, how: Build, report: Report) -> Pool:
    """Build a pool, or continue an interrupted build of the same pool from the same source.

    To an existing pool it adds the shards that its source has gained since, as a new version of the pool.

    Raises:
        ValueError: Something else is at the path, the source has changed, cannot be read or holds no pair.
    """
    before = Pool.open(path) if (path / "pool.json").exists() else None
    folders = folders_of(path, how, adding=before is not None)
    shared, work = folders.shared, folders.work
    _check(path, how, before, folders)
    parts = parts_at(how.url) if how.url else parts_of(how.source)
    if before is not None and not (parts := _new_parts(how, parts, before)):
        shared.delete(work)  # which a build left that was killed after its last other step
        return before
    # Read before the scan, so that an unreadable set is reported before the long work.
    known = EvaluationImages(how.evaluation) if how.evaluation else None
    with working(folders, how, parts, known.digest if known else ""):
        tables = scan(parts, how, folders, known, report)
        if before is None:  # parts that a killed build left would be described as parts of this pool
            shared.delete(f"{folders.pool}{INDEX}", f"{folders.pool}{VERSIONS}/")
        counts = _keep_pairs(tables, folders, before)
        if not counts and before is None:
            firsts: dict[str, str] = {}
            for table in _left_out_of(folders):
                for shard, key, reason in table[["shard", "key", "reason"]].itertuples(index=False):
                    firsts.setdefault(reason, f"{reason} ({f'{shard} {key}'.rstrip()})")
            shared.delete(work)
            why = ", ".join(sorted(firsts.values())) or "it is empty"
            raise ValueError(f"{how.url or how.source} holds no pair: {why}")
        if how.in_place:
            shared.keep_all(counts)
        else:
            counts = _new_shards(how, folders, counts, before, partial(report, "writing"))
        parts_before = before.index.parts if before else ()
        first = 1 + max((int(part.file.removeprefix(INDEX)) for part in parts_before), default=-1)
        score = how.columns.score
        if before is not None and SCORE_PREFIX + score in before.index.added:
            score = ""  # a score that was given to the pool hides the source's of its name, also of new pairs
        written = write_index(folders, counts, first, how.workers, partial(report, "indexing"), score=score)
        _describe(path, how, folders, parts, written, before)
        shared.publish()
        shared.delete(work)
    return Pool.open(path)


def _check(path: Path, how: Build, before: Pool | None, folders: PoolFolders) -> None:
    """Raise ValueError unless the path is free, or holds what the build can continue or add to."""
    name, place = how.to or path, before.place if before else None
    if before is None:
        check_score_name(how.columns.score, "--score")
    if not how.in_place:
        there = bool(listed("pool", how.to)) if how.to else path.exists()
        if before is None and there and not (how.to and folders.shared.text(f"{folders.work}source")):
            raise ValueError(f"{name} already exists; remove it or choose another path")
    elif place is not None and place.location != Location(how.url or path):
        raise ValueError(f"{name} is the index of other shards; choose another path")
    elif not how.url and how.source.is_file():
        raise ValueError(f"--in-place indexes a folder of tar shards; {how.source} is a file")
    elif not how.url and how.source.resolve() != path.resolve():
        raise ValueError(f"--in-place indexes {name} itself; leave out --from, or copy the shards there")


def _new_parts(how: Build, parts: Sequence[SourcePart], before: Pool) -> list[SourcePart]:
    """Return the parts of its source that a pool has not read; in place also those that now may have pairs.

    A file of another size is an error, unless it is read in place and had no pair.
    """
    place, made = before.copy_of or before.path, before.provenance
    rebuild = (
        f"to index {place} from scratch, delete its pool.json and index"
        if how.in_place
        else "build another pool"
    )
    if not how.in_place and (not before.sources or made.get("source") != how.source_text):
        raise ValueError(
            f"{place} already exists; to add later shards to this pool, put them below it, such as into "
            f"{place}/later, and run `python -m study data build {place} --in-place`; otherwise remove it or "
            "choose another path"
        )
    for name, value in how.options.items():
        if (was := made.get(_OPTIONS, {}).get(name, value)) != value:
            raise ValueError(
                f"{place} was built with {name} {_words(was)}, not {_words(value)}: repeat the first "
                f"command, or {rebuild}"
            )
    known = before.shards if how.in_place else _recorded(before)
    named = [(as_utf8(part.shard), part) for part in parts]
    changed = {name: part for name, part in named if known.get(name, part.size) != part.size}
    read = set(changed)
    if changed and how.in_place:
        frames = before.index.frames(["shard"], having=changed)
        read &= {str(shard) for frame in frames for shard in frame["shard"].unique()}
    if read:
        part = changed[name := min(read)]
        raise ValueError(
            f"{part.name if part.url else part.file} has changed since the pool read it ({known[name]:,} "
            f"bytes, now {part.size:,}). New pairs must come in further tars: restore this file, or {rebuild}"
        )
    return [part for name, part in named if name not in known or name in changed]


def _recorded(pool: Pool | None) -> dict[str, int]:
    """Return the bytes of each file of its source that a pool has read into shards of its own."""
    if pool is None or not pool.sources:
        return {}
    table = pq.read_table(pool.path / pool.sources)
    return dict(zip(*(table[name].to_pylist() for name in ("name", "size")), strict=True))


def _words(value: object) -> str:
    return (", ".join(map(str, value)) if isinstance(value, list) else str(value)) or "none"


def _keep_pairs(names: Sequence[str], folders: PoolFolders, before: Pool | None) -> dict[str, int]:
    """Write the pairs of the scan's tables, in their order, as tables of about `ROWS_PER_PART` pairs.

    Return the names of those that are not empty, and their number of pairs. What is left out is written
    beside them, for `_left_out_of`. Duplicates are left out, which DuckDB finds among all pairs, and what the
    scan has a reason for.
    """
    shared, work, pair_tables = folders.shared, f"{folders.work}kept/", dict[str, int]()
    shared.delete(work)
    files, duplicates = [shared.path / name for name in names], shared.file(f"{work}duplicates")
    find_duplicates(files, before.index.files if before else (), duplicates)
    counts = [pq.read_metadata(file).num_rows for file in files]
    starts = np.cumsum([0, *counts])
    for number, group in enumerate(groups_of(counts)):
        within = [("part", ">=", group.start), ("part", "<", group.stop)]
        repeated = pq.read_table(duplicates, filters=within).to_pandas()
        some = [pq.read_table(files[place]) for place in group]
        samples, name = pa.concat_tables(some, promote_options="permissive"), f"{work}{number:05d}"
        left_out = samples.select(["shard", "key", "reason"]).to_pandas().astype("str")
        again = left_out.index.isin(starts[repeated["part"]] - starts[group.start] + repeated["row"])
        left_out.loc[again & (left_out["reason"] == ""), "reason"] = "duplicate"
        is_pair = left_out["reason"] == ""
        pairs = samples.filter(pa.array(is_pair))
        left_out[~is_pair].to_parquet(shared.file(f"{name}.left-out"), index=False)
        if len(pairs):
            # Small row groups: DuckDB holds several of them while it sorts.
            pq.write_table(pairs, shared.file(f"{name}.parquet"), row_group_size=ROWS_PER_GROUP)
            pair_tables[f"{name}.parquet"] = len(pairs)
    return pair_tables


def _left_out_of(folders: PoolFolders) -> Iterator[pd.DataFrame]:
    """Yield what `_keep_pairs` left out, in the order of the source."""
    for file in sorted((folders.shared.path / folders.work).glob("kept/*.left-out")):
        yield pd.read_parquet(file).astype("str")


def _new_shards(
    how: Build, folders: PoolFolders, names: Iterable[str], before: Pool | None, report: ReportPart
) -> dict[str, int]:
    """Write pairs as new shards, in order; return the tables of their pairs with the number of these."""
    tables = [folders.shared.path / name for name in names]

    def rows() -> Iterator[pa.Table]:
        if tables:
            folder = tables[0].parent
            order = order_of_shards(Index(folder, [read_part(folder, table.stem)[0] for table in tables], ()))
            yield from in_order(tables, order, folder.parent, PAIRS_PER_SHARD)

    mark = blake2b(b"".join(blake2b(table.read_bytes()).digest() for table in tables)).hexdigest()
    numbers = (_SHARD.fullmatch(name) for name in (before.shards if before else ()))
    first = 1 + max((int(match[1]) for match in numbers if match), default=-1)
    plan = plan_shards(folders, mark, rows(), first)
    source = Location(how.url or (how.source if how.source.is_dir() else how.source.parent))
    write_shards(folders, plan, partial(_fill, source, PAIRS_PER_SHARD), how.workers, report)
    return {folders.table(number): pairs for number, pairs in plan.items()}


def _fill(source: Location, most: int, file: IO[bytes], rows: pd.DataFrame, number: int) -> pd.DataFrame:
    """Write the pairs of a shard of up to so many, with images from the source; see `Fill`."""
    images, damage = read_once(shard_reader(source, {}), rows)
    for damaged in damage.values():
        raise ValueError(f"{damaged.shard} changed during the build; start the build again")
    return write_pairs(file, rows, images, keys_of(rows, number * most))


def _describe(  # noqa: PLR0913, PLR0917 - all that a build knows
    path: Path,
    how: Build,
    folders: PoolFolders,
    parts: Sequence[SourcePart],
    written: Sequence[str],
    before: Pool | None,
) -> None:
    """Describe the parts of an index that were written, and move a new pool to its path."""
    pool, sources = folders.shared.path / folders.pool, ""
    of_source = {as_utf8(part.shard): part.size for part in parts}
    if not how.in_place and "urls" not in how.provenance:
        sizes = _recorded(before) | of_source
        columns = {"name": pa.array(sizes, pa.string()), "size": pa.array(sizes.values(), pa.int64())}
        sources = write_table(pool, "sources", pa.table(columns))
    at_url = of_source if how.in_place and how.url else listed("pool", how.to) if how.to else None
    describe_pool(
        before or _new_pool(pool, path, how),
        written,
        chain([how.left_out], _left_out_of(folders)),
        shards=of_source if how.in_place else (),
        sizes=at_url,
        sources=sources,
        scorer=Scorer(name=how.columns.score) if before else _scorer(how),
    )
    if pool != path:
        for leftover in pool.rglob(".*.partial-*"):  # left by a killed process
            leftover.unlink()
        pool.rename(path)


def _scorer(how: Build) -> Scorer:
    """Return the scorer of the source's scores, with its cost if the source is a pool that records it."""
    place = Location(how.url or how.source)
    with suppress(KeyError, OSError, ValueError):  # no pool, or one that can't be opened
        if place.read("pool.json") is not None:
            pool, name = Pool.open(pool_at(place), tolerance=1), how.columns.score
            if SCORE_PREFIX + name not in pool.index.added:  # else the shards have another of its name
                return pool.scores[name].scorer
    return Scorer(name=how.columns.score)


def _new_pool(folder: Path, path: Path, how: Build) -> Pool:
    return Pool.without_pairs(
        folder,
        path.resolve().name,
        {
            "source": how.source_text,
            **({"in_place": True} if how.in_place else {}),
            **({SHARDS_AT: how.url} if how.in_place and how.url != how.to else {}),
            _OPTIONS: how.options,
            **how.provenance,
        },
    )
