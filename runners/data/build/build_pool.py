"""Building of a pool from shards or a table: read and checked part by part, then written best first.

A build that was stopped at any point continues where it stopped (`runners.data.build.build`).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from runners.data.build.build import Build, BuildFolders, check_free, delete_leftovers, working_folder
from runners.data.build.in_place import name_in
from runners.data.build.merge_parts import Merge, left_out_of, merge_parts
from runners.data.build.new_shards import number_of, write_index, write_shards
from runners.data.build.scan import scan
from runners.data.build.source import (
    SourcePart,
    new_parts,
    options_of,
    other_option,
    parts_at,
    parts_of,
    write_record,
)
from runners.data.build.thumbnail import EvaluationImages
from runners.data.index.selection import SCORE_PREFIX
from runners.data.index.writing import VERSIONS
from runners.data.pool.describe import describe_pool
from runners.data.pool.pool import Origin, Pool, Scorer
from runners.data.pool.shards import as_utf8
from runners.host.workers import Report
from runners.store.copies import INDEX, SHARDS_AT, listed
from runners.store.place import UrlPlace, size_of

_OPTIONS = "options"
"""Field of the provenance of a pool whose shards `build_pool` indexed in place."""


def build_pool(path: Path, how: Build, report: Report) -> Pool:
    """Build a pool, or continue an interrupted build of the same pool from the same source.

    To an existing pool it adds the shards that its source has gained since, as a new version of the pool.

    Raises:
        ValueError: Something else is at the path, the source has changed, cannot be read or holds no pair.
    """
    before = Pool.open(path) if (path / "pool.json").exists() else None
    here = before.place if before is not None else None
    if how.in_place and here is not None and (here.url if isinstance(here, UrlPlace) else "") != how.url:
        raise ValueError(f"{how.to or path} is the index of other shards; choose another path")
    if how.in_place and not how.url and how.source.is_file():
        raise ValueError(f"--in-place indexes a folder of tar shards; {how.source} is a file")
    if how.in_place and not how.url and how.source.resolve() != path.resolve():
        raise ValueError(
            f"--in-place indexes {how.to or path} itself; leave out --from, or copy the shards there"
        )
    if not how.in_place and before is None:
        check_free(path, how)
    parts = parts_at(how.url) if how.url else parts_of(path if how.in_place else how.source)
    if before is not None:
        parts = (
            _new_in_place(path, how, parts, before) if how.in_place else _new_in_source(how, parts, before)
        )
        if not parts:
            delete_leftovers(path, how)
            return before
    # Read before the scan, so that an unreadable set is reported before the long work.
    known = EvaluationImages(how.evaluation) if how.evaluation else None
    with working_folder(path, how, parts, before) as folders:
        files = scan(
            parts,
            how.columns,
            folders.shared,
            f"{folders.work}parts/",
            thumbnails=known is not None,
            recorded=how.recorded,
            workers=how.workers,
            report=report,
        )
        built = _Built(path=path, how=how, folders=folders, parts=parts, files=files, before=before)
        (_index_in_place if how.in_place else _write_new)(built, known, report)
        folders.shared.publish()
        folders.shared.delete(folders.work)
    return Pool.open(path)


def _new_in_place(path: Path, how: Build, parts: Sequence[SourcePart], before: Pool) -> list[SourcePart]:
    """Return the shards that a pool has not read, or read without finding a pair before they changed.

    A changed shard with pairs is an error: its pairs are not read again.
    """
    named = {_names(path, part)[1]: part for part in parts}
    changed = {
        name
        for name, part in named.items()
        if before.shards.get(name, part.size) != (part.size if part.url else size_of(part.file))
    }
    with_pairs = before.index.frames(["shard"], having=changed) if changed else ()
    read = sorted(changed & {str(shard) for frame in with_pairs for shard in frame["shard"].unique()})
    new = [part for name, part in named.items() if name not in before.shards or name in changed]
    made, place = before.origin.provenance, before.copy_of or path
    anew = f"; to index {place} anew, delete its pool.json and index"
    if read:
        raise ValueError(
            f"{place}/{read[0]} has changed since its pairs were read, perhaps before it was complete. New "
            f"pairs must come in further tars: restore it{anew}"
        )
    recorded: object = {"--without": []}  # of a folder that was indexed on opening
    if before.sources:
        recorded = options_of(before.path / before.sources)
    elif made:
        recorded = made.get(_OPTIONS, {})  # none, if the pool was built from a table
    assert isinstance(recorded, dict), "it was written so"
    difference = other_option(recorded, how.options)
    if difference:
        raise ValueError(
            f"{place} was indexed with {difference}: repeat the first command{'' if before.sources else anew}"
        )
    return new


def _new_in_source(how: Build, parts: Sequence[SourcePart], before: Pool) -> list[SourcePart]:
    """Return the parts of its source that a pool has not read."""
    place = before.copy_of or before.path
    if not before.sources or before.origin.provenance.get("source") != how.source_text:
        raise ValueError(
            f"{place} already exists"
            + ("" if before.sources else ", and does not record which shards it has read")
            + f"; to add later shards to this pool, put them below it, such as into {place}/later, and run "
            f"`python -m study data build {place} --in-place`; otherwise remove it or choose another path"
        )
    return new_parts(before.path / before.sources, how.source, parts, how.options)


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
    names = [_names(path, part) for part in built.parts]
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
    sources = (
        write_record(
            pool,
            how.source,
            built.parts,
            built.files,
            how.options,
            before.path / before.sources if before else None,
        )
        if how.recorded
        else ""
    )
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
            **({_OPTIONS: how.options} if how.in_place else {}),
            **how.provenance,
        },
    )


def _names(path: Path, part: SourcePart) -> tuple[str, str]:
    """Return a shard's name in the tables of the scan, and in the index."""
    if part.url:
        return str(part.file), str(part.file)
    # A shard may be a link to a file elsewhere.
    return as_utf8(os.path.realpath(part.file)), name_in(path, part.file)
