"""Building of a pool from shards or a table: read and checked part by part, then written best first.

A build that was stopped at any point continues where it stopped (`runners.data.build.build`).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from runners.data.build.build import Build, BuildFolders, folders_of, working
from runners.data.build.merge_parts import Merge, left_out_of, merge_parts
from runners.data.build.new_shards import number_of, write_index, write_shards
from runners.data.build.scan import scan
from runners.data.build.source import SourcePart, name_of, parts_at, parts_of
from runners.data.build.thumbnail import EvaluationImages
from runners.data.index.selection import SCORE_PREFIX
from runners.data.index.writing import VERSIONS, write_table
from runners.data.pool.describe import describe_pool
from runners.data.pool.pool import Origin, Pool, Scorer
from runners.data.pool.shards import as_utf8
from runners.host.workers import Report
from runners.store.copies import INDEX, SHARDS_AT, listed
from runners.store.location import Location

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
    _check(path, how, before, folders)
    parts = parts_at(how.url) if how.url else parts_of(how.source)
    if before is not None and not (parts := _new_parts(how, parts, before)):
        folders.shared.delete(folders.work)  # which a build left that was killed after its last other step
        return before
    # Read before the scan, so that an unreadable set is reported before the long work.
    known = EvaluationImages(how.evaluation) if how.evaluation else None
    with working(folders, how, parts):
        files = scan(
            parts,
            how.columns,
            folders.shared,
            f"{folders.work}parts/",
            thumbnails=known is not None,
            workers=how.workers,
            report=report,
        )
        built = _Built(path=path, how=how, folders=folders, parts=parts, files=files, before=before)
        (_index_in_place if how.in_place else _write_new)(built, known, report)
        folders.shared.publish()
        folders.shared.delete(folders.work)
    return Pool.open(path)


def _check(path: Path, how: Build, before: Pool | None, folders: BuildFolders) -> None:
    """Raise ValueError unless the path is free, or holds what the build can continue or add to."""
    name, place = how.to or path, before.place if before else None
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
    place, made = before.copy_of or before.path, before.origin.provenance
    anew = f"to index {place} anew, delete its pool.json and index" if how.in_place else "build another pool"
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
                f"command, or {anew}"
            )
    known = before.shards if how.in_place else _recorded(before)
    named = [(name_of(how.source, part), part) for part in parts]
    changed = {name: part for name, part in named if known.get(name, part.size) != part.size}
    read = set(changed)
    if changed and how.in_place:
        frames = before.index.frames(["shard"], having=changed)
        read &= {str(shard) for frame in frames for shard in frame["shard"].unique()}
    if read:
        part = changed[name := min(read)]
        raise ValueError(
            f"{part.name if part.url else part.file} has changed since the pool read it ({known[name]:,} "
            f"bytes, now {part.size:,}). New pairs must come in further tars: restore this file, or {anew}"
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Built:
    """A build whose source has been read."""

    path: Path
    how: Build
    folders: BuildFolders
    parts: Sequence[SourcePart]
    files: Sequence[Path]
    before: Pool | None  # the pool that the pairs are added to; None for a new pool

    @property
    def first_part(self) -> int:
        """Number of the first new part of the index."""
        old = self.before.index.parts if self.before else ()
        return 1 + max((int(part.file.removeprefix(INDEX)) for part in old), default=-1)

    @property
    def first_shard(self) -> int:
        """Number of the first new shard."""
        return 1 + max(map(number_of, self.before.shards if self.before else ()), default=-1)

    @property
    def score(self) -> str:
        """The index's column for scores of the source.

        It is ``score`` unless the pool is ranked by another scorer, whose scores then are in that column.
        """
        if self.before is None:
            return "score"
        named, scorer = self.before.index.named, self.before.origin.scorer
        in_force = SCORE_PREFIX + scorer.name if scorer and "score" not in named else ""
        own = next((name for name, column in named.items() if column == "score"), in_force)
        source = SCORE_PREFIX + self.how.columns.score
        # A given score of the source's name hides the source's, also those of new pairs.
        hidden = source in self.before.index.added
        return "score" if scorer is None or own == source or hidden else source

    def merged(self, merge: Merge, report: Report) -> list[Path]:
        """Merge the tables into parts of an index, and return the parts, without ``.parquet``."""
        before = self.before.index.files if self.before else []
        merge = replace(merge, work=f"{self.folders.work}merge/", before=before)
        found = merge_parts(self.files, merge, self.folders.shared, self.how.workers, report)
        if not found and not before:
            reasons = sorted({reason for table in self.left_out() for reason in table["reason"].unique()})
            self.folders.shared.delete(self.folders.work)
            raise ValueError(
                f"{self.how.url or self.how.source} holds no pair: {', '.join(reasons) or 'it is empty'}"
            )
        return found

    def left_out(self) -> Iterator[pd.DataFrame]:
        """Yield the samples that are not pairs, in tables."""
        yield self.how.left_out
        yield from left_out_of(self.folders.shared.path / self.folders.work / "merge")


def _index_in_place(built: _Built, known: EvaluationImages | None, report: Report) -> None:
    path, how, before = built.path, built.how, built.before
    # A shard may be a link to a file elsewhere.
    names = [
        (str(part.file) if part.url else as_utf8(os.path.realpath(part.file)), name_of(how.source, part))
        for part in built.parts
    ]
    if before is None:
        built.folders.shared.delete(INDEX, f"{VERSIONS}/")
    merge = Merge(work="", parts=INDEX, names=names, first=built.first_part, known=known, score=built.score)
    written = built.merged(merge, report)
    describe_pool(
        path,
        [f"{INDEX}{part.name}" for part in written],
        before.origin if before else _origin(path, how),
        built.left_out(),
        shards=[name for _, name in names],
        sizes={str(part.file): part.size for part in built.parts} if how.url else None,
        before=before,
    )


def _write_new(built: _Built, known: EvaluationImages | None, report: Report) -> None:
    folders, how, before = built.folders, built.how, built.before
    shared, pool = folders.shared, folders.shared.path / folders.pool
    kept = built.merged(Merge(work="", parts=f"{folders.work}kept/", known=known), report)
    tables = [part.with_name(f"{part.name}.parquet") for part in kept]
    if before is None:  # parts that a killed build left would be described as parts of this pool
        shared.delete(f"{folders.pool}{INDEX}", f"{folders.pool}{VERSIONS}/")
    write_shards(tables, folders, url=how.url, first=built.first_shard, workers=how.workers, report=report)
    files = write_index(
        folders, first=built.first_part, score=built.score, workers=how.workers, report=report
    )
    sources = ""
    if "urls" not in how.provenance:
        sizes = _recorded(before) | {name_of(how.source, part): part.size for part in built.parts}
        columns = {"name": pa.array(sizes, pa.string()), "size": pa.array(sizes.values(), pa.int64())}
        sources = write_table(pool, "sources", pa.table(columns))
    describe_pool(
        pool,
        files,
        before.origin if before else _origin(built.path, how),
        built.left_out(),
        sizes=listed("pool", how.to) if how.to else None,
        before=before,
        sources=sources,
    )
    if pool != built.path:
        for leftover in pool.rglob(".*.partial-*"):  # left by a killed process
            leftover.unlink()
        pool.rename(built.path)


def _origin(path: Path, how: Build) -> Origin:
    return Origin(
        name=path.resolve().name,
        scorer=Scorer(name=how.columns.score),
        provenance={
            "source": how.source_text,
            **({"in_place": True} if how.in_place else {}),
            **({SHARDS_AT: how.url} if how.in_place and how.url != how.to else {}),
            _OPTIONS: how.options,
            **how.provenance,
        },
    )
