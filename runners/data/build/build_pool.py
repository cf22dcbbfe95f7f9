"""Building of a pool from shards or a table: read and checked part by part, then written best first.

Finished work is kept in a hidden folder beside the pool until the pool is complete: a build that was stopped
at any point continues there. The writing half reads each image's bytes from the source again.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from runners.data.build.in_place import SCORE_FIELD, name_in
from runners.data.build.merge_parts import WORKING, Merge, left_out_of, merge_parts
from runners.data.build.scan import run, scan
from runners.data.build.source import Columns, Part, parts_at, parts_of
from runners.data.build.write import PAIRS_PER_SHARD
from runners.data.evaluation.look import Known
from runners.data.index.merge import in_order, join, order_of_shards
from runners.data.index.parts import ROWS_PER_PART
from runners.data.index.writing import discard_index, index_of_files, write_part
from runners.data.places.copies import INDEX, SHARDS_AT
from runners.data.pool.damage import damage_table
from runners.data.pool.describe import describe_pool, fingerprints
from runners.data.pool.pool import Origin, Pool, Scorer
from runners.data.pool.shards import close_shard, printable, write_sample
from runners.host.files import locked, new_file
from runners.host.workers import Processes, Report, Workers

_SHARDS_PER_PART = ROWS_PER_PART // PAIRS_PER_SHARD


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """Source of a pool, and options of building it.

    Attributes:
        source: A folder of tars, or a table of image paths and captions.
        columns: Names of the columns or fields.
        evaluation: Folders of evaluation sets; pairs with one of their images are left out.
        workers: What reads the source and writes shards.
        in_place: True to index the source's tars without writing shards; the pool's folder is then the
            source, unless ``url`` is set.
        url: URL of tars to index in place, instead of ``source``.
        provenance: Additional facts to record about the source.
        left_out: Samples that were left out before, for example because the download failed.
        scores: Table of columns by ``hash``, which replace the source's.
    """

    source: Path
    columns: Columns = field(default_factory=Columns)
    evaluation: Sequence[Path] = ()
    workers: Workers = field(default_factory=Processes)
    in_place: bool = False
    url: str = ""
    provenance: Mapping[str, object] = field(default_factory=dict)
    left_out: pd.DataFrame = field(default_factory=lambda: damage_table([]))
    scores: Path | None = None


def build_pool(path: Path, how: Build, report: Report) -> Pool:
    """Build a pool, or continue an interrupted build of the same pool from the same source.

    A pool in place takes up the shards that have come since, as a new version.

    Args:
        path: Path of the pool; must not exist, unless the source is indexed in place.
        how: Source and options.
        report: Called with the progress.

    Raises:
        ValueError: The pool already exists, or the source cannot be read or holds no pair.
    """
    before = None
    if how.in_place and (path / "pool.json").exists():
        before = Pool.open(path)
        if before.origin.provenance.get(SHARDS_AT, "") != how.url:
            raise ValueError(f"{path} is the index of other shards; choose another path")
    elif not how.in_place and path.exists():
        raise ValueError(f"{path} already exists; {_instead(path)}remove it or choose another path")
    if how.in_place and not how.url and how.source.resolve() != path.resolve():
        raise ValueError(f"--in-place indexes {path} itself; leave out --from, or copy the shards there")
    parts = parts_at(how.url) if how.url else parts_of(path if how.in_place else how.source)
    if before is not None:
        parts = [part for part in parts if _names(path, part)[1] not in before.shards]
        if not parts:
            return before
    known = (
        Known(how.evaluation) if how.evaluation else None
    )  # first, to report unreadable sets before the work
    with _working_folder(path, how, parts) as work:
        files = scan(
            parts, how.columns, work / "parts", looking=known is not None, workers=how.workers, report=report
        )
        if how.in_place:
            _index_in_place(path, how, parts, files, known, before, work, report)
        else:
            _write_new(path, how, files, known, work, report)
        shutil.rmtree(work)
    return Pool.open(path)


def _instead(path: Path) -> str:
    """Return what to do for later shards if the path is a pool, which --from does not add to."""
    if not (path / "pool.json").exists():
        return ""
    return (
        f"to add later shards to this pool, put them into a folder in it, such as {path / 'later'}, and run "
        f"`python -m study data build {path} --in-place`; otherwise "
    )


def _index_in_place(  # noqa: PLR0913, PLR0917 - the parts of a build
    path: Path,
    how: Build,
    parts: Sequence[Part],
    files: Sequence[Path],
    known: Known | None,
    before: Pool | None,
    work: Path,
    report: Report,
) -> None:
    names = [_names(path, part) for part in parts]
    if before is None:
        discard_index(path)
    old = [part.file for part in before.table.parts] if before else []
    merge = Merge(
        work=work / "merge",
        parts=path / INDEX,
        names=names,
        first=1 + max((int(file.removeprefix(INDEX)) for file in old if file.startswith(INDEX)), default=-1),
        known=known,
        before=[path / f"{file}.parquet" for file in dict.fromkeys(old)],
    )
    written = merge_parts(files, merge, how.workers, report)
    left_out = partial(_left_out, how, merge.work)
    _check_pairs(how, [*old, *written], left_out)
    describe_pool(
        path,
        [f"{INDEX}{part.name}" for part in written],
        before.origin if before else _origin(path, how),
        left_out(),
        shards=[name for _, name in names],
        sizes={str(part.file): part.size for part in parts} if how.url else None,
        before=before,
    )


def _write_new(  # noqa: PLR0913, PLR0917 - the parts of a build
    path: Path, how: Build, files: Sequence[Path], known: Known | None, work: Path, report: Report
) -> None:
    merge = Merge(work=work / "merge", parts=work / "kept", known=known)
    kept = merge_parts(files, merge, how.workers, report)
    left_out = partial(_left_out, how, merge.work)
    _check_pairs(how, kept, left_out)
    tables = [part.with_name(f"{part.name}.parquet") for part in kept]
    if how.scores:
        tables = [join(tables, how.scores, work / "kept" / "joined.parquet")]
    table = index_of_files(tables)
    # The pairs and their order decide the content of each shard: shards of other pairs cannot be kept.
    mark = next(fingerprints(table, ["score"]))
    rows = in_order(tables, order_of_shards(table), work, PAIRS_PER_SHARD)
    _write(work, rows, table.count, mark, how.workers, report)
    describe_pool(work / "pool", _index_parts(work, how.workers, report), _origin(path, how), left_out())
    for leftover in (work / "pool").rglob(".*.partial-*"):  # left by a killed process
        leftover.unlink()
    (work / "pool").rename(path)


def _origin(path: Path, how: Build) -> Origin:
    return Origin(
        name=path.resolve().name,
        scorer=Scorer(name=how.columns.score),
        provenance={
            "source": how.url or str(how.source.resolve()),
            **({"in_place": True} if how.in_place else {}),
            **({SHARDS_AT: how.url} if how.url else {}),
            **how.provenance,
        },
    )


def _left_out(how: Build, work: Path) -> Iterator[pd.DataFrame]:
    yield how.left_out
    yield from left_out_of(work)


def _check_pairs(how: Build, parts: Sequence[object], left_out: Callable[[], Iterator[pd.DataFrame]]) -> None:
    """Raise ValueError, with the reasons, if no pair was found."""
    if not parts:
        reasons = sorted({reason for table in left_out() for reason in table["reason"].unique()})
        raise ValueError(f"{how.url or how.source} holds no pair: {', '.join(reasons) or 'it is empty'}")


@contextmanager
def _working_folder(path: Path, how: Build, parts: Sequence[Part]) -> Iterator[Path]:
    """Context manager: hold this build's folder exclusively, and remove another source's files from it."""
    work = (path if how.in_place else path.parent) / f".{path.resolve().name}.building"
    facts = [_version(part, path) for part in parts]
    columns = [how.columns.image, how.columns.caption, how.columns.score]
    told = json.dumps([facts, columns, bool(how.evaluation)])  # everything that the scan depends on
    mark = blake2b(told.encode(), digest_size=16).hexdigest()
    work.mkdir(parents=True, exist_ok=True)
    with locked(work / "lock", wait=False) as held:
        if not held:
            raise ValueError(f"another build of the same pool is running in {work}")
        source = work / "source"
        if not source.exists() or source.read_text(encoding="utf-8") != mark:
            for name in ("source", "order"):
                (work / name).unlink(missing_ok=True)
            for name in ("parts", "merge", "kept", "index", "pool"):
                shutil.rmtree(work / name, ignore_errors=True)
        with new_file(source) as file:
            file.write_text(mark, encoding="utf-8")
        try:
            yield work
        except ValueError:
            if not any((work / "parts").glob("*.parquet")):  # an error before any work
                shutil.rmtree(work)
            raise


def _names(path: Path, part: Part) -> tuple[str, str]:
    """Return a shard's name in the tables of the scan, and in the index."""
    if part.url:
        return str(part.file), str(part.file)
    # A shard may be a link to a file elsewhere.
    return printable(os.path.realpath(part.file)), name_in(path, part.file)


def _version(part: Part, path: Path) -> tuple[str, int, int]:
    """Return numbers that change with a part's content."""
    if part.url:
        return part.name, part.size, 0
    # A link that leads nowhere is left out later, as one of the shards.
    facts = (part.file if part.file.exists() else path.parent).stat()
    return os.path.realpath(part.file), facts.st_size, facts.st_mtime_ns


def _write(  # noqa: PLR0913, PLR0917 - the parts of a build
    work: Path, shards: Iterable[pa.Table], count: int, mark: str, workers: Workers, report: Report
) -> None:
    """Write shards from the pairs of each."""
    if (work / "order").exists() and (work / "order").read_text(encoding="utf-8") != mark:
        shutil.rmtree(work / "pool", ignore_errors=True)
        shutil.rmtree(work / "index", ignore_errors=True)
    (work / "order").write_text(mark, encoding="utf-8")
    (work / "pool" / "shards").mkdir(parents=True, exist_ok=True)
    (work / "index").mkdir(exist_ok=True)
    for number, rows in enumerate(shards):
        pq.write_table(rows, work / "index" / f"{number:05d}.todo.parquet")
    numbers = range(-(-count // PAIRS_PER_SHARD))
    run(
        partial(_write_shard, work, PAIRS_PER_SHARD),
        numbers,
        workers,
        partial(report, "writing"),
        "new shard {}".format,
    )


def _index_parts(work: Path, workers: Workers, report: Report) -> list[str]:
    """Write the parts of the index from the tables of the shards, and return their files."""
    count = len(list((work / "index").glob("*[0-9].parquet")))
    numbers = range(-(-count * PAIRS_PER_SHARD // ROWS_PER_PART))
    run(partial(_write_index_part, work), numbers, workers, partial(report, "indexing"))
    return [f"{INDEX}{number:05d}" for number in numbers]


def _write_index_part(work: Path, number: int) -> int:
    shards = range(number * _SHARDS_PER_PART, (number + 1) * _SHARDS_PER_PART)
    files = (work / "index" / f"{shard:05d}.parquet" for shard in shards)
    rows = pd.concat([pd.read_parquet(file) for file in files if file.exists()], ignore_index=True)
    write_part(work / "pool" / INDEX / f"{number:05d}", rows)
    return len(rows)


def _write_shard(work: Path, most: int, number: int) -> int:
    name, done = f"shards/{number:05d}.tar", work / "index" / f"{number:05d}.parquet"
    if done.exists() and (work / "pool" / name).exists():
        return 0
    rows = pd.read_parquet(work / "index" / f"{number:05d}.todo.parquet")
    images = _read_all(rows)
    offsets, keys = [], []
    with new_file(work / "pool" / name) as partial_file, partial_file.open("wb") as file:
        for place, row in enumerate(rows.to_dict("records")):
            key = f"{number * most + place:09d}"
            facts = {"key": key, **{name: row[name] for name in ("caption", "width", "height")}}
            if not np.isnan(row["score"]):
                facts[SCORE_FIELD] = row["score"]
            members = {
                row["kind"]: images[place],
                "txt": row["caption"].encode(),
                "json": json.dumps(json.loads(row["facts"]) | facts).encode(),
            }
            offsets.append(write_sample(file, key, members)[row["kind"]])
            keys.append(key)
        close_shard(file)
    index = rows.drop(columns=WORKING).assign(key=keys, shard=name, offset=offsets)
    with new_file(done) as file_name:
        index.to_parquet(file_name, index=False)
    return len(rows)


def _read_all(rows: pd.DataFrame) -> list[bytes]:
    """Read images from the source, file by file and front to back."""
    images = [b""] * len(rows)
    order = rows.sort_values(["shard", "offset"])
    for shard, some in order.groupby("shard", sort=False):
        with Path(str(shard)).open("rb") as file:
            for place, offset, length in zip(some.index, some["offset"], some["length"], strict=True):
                file.seek(offset)
                images[place] = file.read(length)
                if len(images[place]) != length:
                    raise ValueError(f"{shard} changed during the build; start the build again")
    return images
