"""Building of a pool from shards or a table: read and checked part by part, then written best first.

Finished work is kept in a hidden folder beside the pool until the pool is complete: a build that was stopped
at any point continues there.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

import pandas as pd

from runners.data.build.in_place import name_in
from runners.data.build.merge_parts import Merge, left_out_of, merge_parts
from runners.data.build.new_shards import BuildFolders, number_of, write_index, write_shards
from runners.data.build.scan import scan
from runners.data.build.sources.source import Columns, SourcePart, parts_at, parts_of
from runners.data.build.sources.source_record import new_parts, write_record
from runners.data.evaluation.thumbnail import EvaluationImages
from runners.data.index.merge import join
from runners.data.index.selection import SCORE_PREFIX
from runners.data.index.writing import VERSIONS
from runners.data.places.copies import INDEX, SHARDS_AT, listed
from runners.data.places.place import size_of
from runners.data.places.shared_folder import SharedFolder
from runners.data.places.url_place import UrlPlace
from runners.data.pool.damage import damage_table
from runners.data.pool.describe import describe_pool
from runners.data.pool.pool import Origin, Pool, Scorer
from runners.data.pool.shards import as_utf8
from runners.host.files import locked
from runners.host.workers import Processes, Report, Workers

_WORKING_FILES = ("source", "order", "parts/", "merge/", "kept/", "index/", "pool/")


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """Source of a pool, and options of building it.

    Attributes:
        source: A folder of tars, or a table of image paths and captions.
        columns: Names of the columns or fields.
        evaluation: Folders of evaluation sets; pairs with one of their images are left out.
        workers: Workers that read the source and write shards.
        in_place: True to index the source's tars without writing shards; the pool's folder is then the
            source, unless ``url`` is set.
        url: URL of tars, instead of ``source``.
        to: URL that the pool is written to; its folder is then a copy (`runners.data.places.shared_folder`).
        provenance: Additional facts to record about the source.
        left_out: Samples left out before the build, for example because the download failed.
        scores: Table of columns by ``hash`` that replace the source's columns.
    """

    source: Path
    columns: Columns = field(default_factory=Columns)
    evaluation: Sequence[Path] = ()
    workers: Workers = field(default_factory=Processes)
    in_place: bool = False
    url: str = ""
    to: str = ""
    provenance: Mapping[str, object] = field(default_factory=dict)
    left_out: pd.DataFrame = field(default_factory=lambda: damage_table([]))
    scores: Path | None = None

    @property
    def recorded(self) -> bool:
        """True if the pool records the source's files, so that a later build can add new ones."""
        return not self.in_place and self.scores is None and "urls" not in self.provenance


def build_pool(path: Path, how: Build, report: Report) -> Pool:
    """Build a pool, or continue an interrupted build of the same pool from the same source.

    To an existing pool it adds the shards that its source has gained since, as a new version of the pool.

    Args:
        path: Path of the pool.
        how: Source and options.
        report: Called with the progress.

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
        _check_free(path, how)
    parts = parts_at(how.url) if how.url else parts_of(path if how.in_place else how.source)
    if before is not None:
        parts = _new_in_place(path, parts, before) if how.in_place else _new_in_source(how, parts, before)
        if not parts:
            _delete_leftovers(path, how)
            return before
    # Read before the scan, so that an unreadable set is reported before the long work.
    known = EvaluationImages(how.evaluation) if how.evaluation else None
    with _working_folder(path, how, parts, before) as folders:
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


def _check_free(path: Path, how: Build) -> None:
    """Raise ValueError unless the path is free or holds an interrupted build."""
    if not how.to:
        free = not path.exists()
    else:
        free = not listed("pool", how.to) or bool(
            SharedFolder(path=path, url=how.to).text(_work(path) + "source")
        )
    if not free:
        raise ValueError(f"{how.to or path} already exists; remove it or choose another path")


def _delete_leftovers(path: Path, how: Build) -> None:
    """Delete the working folder of a build that was killed when all but that was done."""
    if not how.in_place and not how.to and (path.parent / _work(path)).is_dir():
        shared = SharedFolder(path=path.parent)
        with locked(shared.file(f"{_work(path)}lock"), wait_s=0) as held:
            if held is not None:
                shared.delete(_work(path))


def _new_in_place(path: Path, parts: Sequence[SourcePart], before: Pool) -> list[SourcePart]:
    """Return the shards that a pool has not read, or read without finding a pair before they changed."""
    named = {_names(path, part)[1]: part for part in parts}
    changed = {
        name
        for name, part in named.items()
        if before.shards.get(name, part.size) != (part.size if part.url else size_of(part.file))
    }
    with_pairs = before.index.frames(["shard"], having=changed) if changed else ()
    changed -= {str(shard) for frame in with_pairs for shard in frame["shard"].unique()}
    return [part for name, part in named.items() if name not in before.shards or name in changed]


def _new_in_source(how: Build, parts: Sequence[SourcePart], before: Pool) -> list[SourcePart]:
    """Return the parts of its source that a pool has not read.

    Raises:
        ValueError: The pool has another source, or has no record of what it has read.
    """
    place = before.copy_of or before.path
    if not before.sources or before.origin.provenance.get("source") != _source(how):
        raise ValueError(
            f"{place} already exists"
            + ("" if before.sources else ", and does not record which shards it has read")
            + f"; to add later shards to this pool, put them below it, such as into {place}/later, and run "
            f"`python -m study data build {place} --in-place`; otherwise remove it or choose another path"
        )
    return new_parts(before.path / before.sources, how.source, parts, _options(how))


def _source(how: Build) -> str:
    return how.url or str(how.source.resolve())


def _options(how: Build) -> dict[str, object]:
    """Return the options that decide which pairs a part of the source has."""
    columns = {f"--{name}": value for name, value in asdict(how.columns).items()}
    return {**columns, "--without": sorted(path.resolve().name for path in how.evaluation)}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Built:
    """A build whose source has been read.

    Attributes:
        path: The pool's path.
        how: Source and options.
        folders: Folders that it writes to.
        parts: The parts that were read.
        files: Tables of these parts.
        before: The pool that they are added to; None for a new pool.
    """

    path: Path
    how: Build
    folders: BuildFolders
    parts: Sequence[SourcePart]
    files: Sequence[Path]
    before: Pool | None

    @property
    def first_part(self) -> int:
        """Number of the first new part of the index."""
        old = [part.file for part in self.before.index.parts] if self.before else []
        numbers = (int(file.removeprefix(INDEX)) for file in old if file.startswith(INDEX))
        return 1 + max(numbers, default=-1)

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
        return "score" if scorer is None or own == source else source

    def merged(self, merge: Merge, report: Report) -> list[Path]:
        """Merge the tables into parts of an index, and return the parts, without ``.parquet``.

        Raises:
            ValueError: Neither the source nor the pool has a pair.
        """
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
    if how.scores:
        tables = [join(tables, how.scores, shared.path / folders.work / "kept" / "joined.parquet")]
    if before is None:
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
            _options(how),
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
            "source": _source(how),
            **({"in_place": True} if how.in_place else {}),
            **({SHARDS_AT: how.url} if how.in_place and how.url != how.to else {}),
            **how.provenance,
        },
    )


def _work(path: Path) -> str:
    return f".{path.resolve().name}.building/"


@contextmanager
def _working_folder(
    path: Path, how: Build, parts: Sequence[SourcePart], before: Pool | None = None
) -> Iterator[BuildFolders]:
    """Context manager: lock this build's folder, and delete files in it that another source left."""
    work = _work(path)
    if how.in_place or how.to or before is not None:
        folders = BuildFolders(shared=SharedFolder(path=path, url=how.to), work=work, pool="")
    else:
        folders = BuildFolders(shared=SharedFolder(path=path.parent), work=work, pool=f"{work}pool/")
    shared = folders.shared
    facts = [
        (part.name if part.url else os.path.realpath(part.file), part.size, part.stamp) for part in parts
    ]
    columns = [how.columns.image, how.columns.caption, how.columns.score]
    scanned = json.dumps([facts, columns, bool(how.evaluation)])  # everything that the scan depends on
    mark = blake2b(scanned.encode(), digest_size=16).hexdigest()
    with locked(shared.file(f"{work}lock"), wait_s=0) as held:
        if held is None:
            raise ValueError(f"another build of the same pool is running in {shared.path / work}")
        if shared.text(f"{work}source") != mark:
            shared.delete(*(f"{work}{name}" for name in _WORKING_FILES))
            shared.write(f"{work}source", mark)
        try:
            yield folders
        except ValueError:
            if not any(name.endswith(".parquet") for name in shared.names(f"{work}parts/")):
                shared.delete(work)  # an error before any work
            raise


def _names(path: Path, part: SourcePart) -> tuple[str, str]:
    """Return a shard's name in the tables of the scan, and in the index."""
    if part.url:
        return str(part.file), str(part.file)
    # A shard may be a link to a file elsewhere.
    return as_utf8(os.path.realpath(part.file)), name_in(path, part.file)
