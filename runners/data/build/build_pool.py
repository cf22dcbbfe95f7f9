"""Building of a pool from shards or a table: read and checked part by part, then written best first.

Finished work is kept in a hidden folder beside the pool until the pool is complete: a build that was stopped
at any point continues there. The writing half reads each image's bytes from the source again.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from runners.data.build.in_place import SCORE_FIELD, name_in
from runners.data.build.scan import Scanned, run, scan
from runners.data.build.source import Columns, Part, parts_at, parts_of
from runners.data.build.write import PAIRS_PER_SHARD
from runners.data.evaluation.look import Known
from runners.data.places.copies import SHARDS_AT
from runners.data.pool.damage import damage_table
from runners.data.pool.describe import describe_pool
from runners.data.pool.index import bins_of
from runners.data.pool.pool import Origin, Pool, Scorer
from runners.data.pool.shards import close_shard, printable, write_sample
from runners.host.files import new_file
from runners.host.workers import Processes, Report, Workers

_WORKING = ["kind", "facts"]
_SHARDS_AT_ONCE = 64
"""Number of shards whose pairs are sorted at a time, so that memory does not grow with the pool."""


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
        scores: Columns of the index by ``hash``, which replace the source's.
    """

    source: Path
    columns: Columns = field(default_factory=Columns)
    evaluation: Sequence[Path] = ()
    workers: Workers = field(default_factory=Processes)
    in_place: bool = False
    url: str = ""
    provenance: Mapping[str, object] = field(default_factory=dict)
    left_out: pd.DataFrame = field(default_factory=lambda: damage_table([]))
    scores: pd.DataFrame | None = None


def build_pool(path: Path, how: Build, report: Report) -> Pool:
    """Build a pool, or continue an interrupted build of the same pool from the same source.

    Args:
        path: Path of the new pool; must not exist, unless the source is indexed in place.
        how: Source and options.
        report: Called with the progress.

    Raises:
        ValueError: The pool already exists, or the source cannot be read or holds no pair.
    """
    if (path if not how.in_place else path / "pool.json").exists():
        raise ValueError(f"{path} already exists; remove it or choose another path")
    if how.in_place and not how.url and how.source.resolve() != path.resolve():
        raise ValueError(f"--in-place indexes {path} itself; leave out --from, or copy the shards there")
    parts = parts_at(how.url) if how.url else parts_of(path if how.in_place else how.source)
    known = (
        Known(how.evaluation) if how.evaluation else None
    )  # first, to report unreadable sets before the work
    with _working_folder(path, how, parts) as work:
        return _build(path, how, parts, known, work, report)


def _build(  # noqa: PLR0913, PLR0917 - the parts of a build
    path: Path, how: Build, parts: Sequence[Part], known: Known | None, work: Path, report: Report
) -> Pool:
    found = scan(parts, how.columns, work / "parts", known=known, workers=how.workers, report=report)
    left_out = pd.concat([how.left_out, found.left_out], ignore_index=True)
    if not len(found.hash):
        reasons = ", ".join(sorted(left_out["reason"].unique())) or "it is empty"
        raise ValueError(f"{how.source} holds no pair: {reasons}")
    origin = Origin(
        name=path.resolve().name,
        scorer=Scorer(name=how.columns.score) if np.isfinite(found.score).any() else None,
        provenance={
            "source": how.url or str(how.source.resolve()),
            **({"in_place": True} if how.in_place else {}),
            **({SHARDS_AT: how.url} if how.url else {}),
            **how.provenance,
        },
    )
    carried = None if how.scores is None else how.scores.drop_duplicates("hash").set_index("hash")
    score = found.score if carried is None else carried["score"].reindex(found.hash).to_numpy(np.float32)
    bins = bins_of(score, found.hash)
    if how.in_place:
        _describe_in_place(path, found, left_out, bins, parts, origin)
    else:
        place = np.empty(len(bins), np.int64)
        # place[i] is the position of pair i in (bin, hash) order: the inverse of the sorting permutation.
        place[np.lexsort((found.hash, bins))] = np.arange(len(bins))
        ready = _with_numbers(found.parts(), carried, bin=bins, place=place)
        # The pairs and their order decide the content of each shard: shards of other pairs cannot be kept.
        mark = blake2b(found.hash[np.argsort(place)].tobytes() + bins.tobytes(), digest_size=8).hexdigest()
        _write(work, ready, len(bins), mark, how.workers, report)
        describe_pool(work / "pool", _indices(work), origin, left_out)
        for leftover in (work / "pool").rglob(".*.partial-*"):  # left by a killed process
            leftover.unlink()
        (work / "pool").rename(path)
    shutil.rmtree(work)
    return Pool.open(path)


def _with_numbers(
    parts: Iterable[pd.DataFrame], carried: pd.DataFrame | None, **numbers: NDArray[np.generic]
) -> Iterator[pd.DataFrame]:
    """Yield each part with its slice of ``numbers`` (known for all pairs) and the columns known by hash."""
    start = 0
    for part in parts:
        stretch = {name: each[start : start + len(part)] for name, each in numbers.items()}
        start += len(part)
        if carried is not None:
            found = carried.reindex(part["hash"]).reset_index(drop=True)
            part = pd.concat([part.drop(columns=[*carried.columns], errors="ignore"), found], axis="columns")  # noqa: PLW2901
        yield part.assign(**stretch)


def _describe_in_place(  # noqa: PLR0913, PLR0917 - the parts of a description
    path: Path,
    found: Scanned,
    left_out: pd.DataFrame,
    bins: NDArray[np.int8],
    parts: Sequence[Part],
    origin: Origin,
) -> None:
    names = dict(_names(path, part) for part in parts)
    sizes = {str(part.file): part.size for part in parts if part.url}
    index = (
        part.assign(shard=part["shard"].map(names).astype("str")).drop(columns=_WORKING)
        for part in _with_numbers(found.parts(), None, bin=bins)
    )
    told = left_out.assign(shard=left_out["shard"].map(names).astype("str"))
    describe_pool(path, index, origin, told, shards=names.values(), sizes=sizes or None)


@contextmanager
def _working_folder(path: Path, how: Build, parts: Sequence[Part]) -> Iterator[Path]:
    """Context manager: hold this build's folder exclusively, and remove another source's files from it."""
    work = (path if how.in_place else path.parent) / f".{path.resolve().name}.building"
    facts = [_version(part, path) for part in parts]
    columns = [how.columns.image, how.columns.caption, how.columns.score]
    told = json.dumps([facts, columns, bool(how.evaluation)])  # everything that the scan depends on
    mark = blake2b(told.encode(), digest_size=16).hexdigest()
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:  # the system releases the lock when the process dies
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another build of the same pool is running in {work}") from None
        source = work / "source"
        if not source.exists() or source.read_text(encoding="utf-8") != mark:
            for name in ("source", "order"):
                (work / name).unlink(missing_ok=True)
            for name in ("parts", "index", "pool", "sorting"):
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
    work: Path, pairs: Iterable[pd.DataFrame], count: int, mark: str, workers: Workers, report: Report
) -> None:
    """Write shards in (quality bin, hash) order, given by each pair's ``place``."""
    if (work / "order").exists() and (work / "order").read_text(encoding="utf-8") != mark:
        shutil.rmtree(work / "pool", ignore_errors=True)
        shutil.rmtree(work / "index", ignore_errors=True)
    (work / "order").write_text(mark, encoding="utf-8")
    (work / "pool" / "shards").mkdir(parents=True, exist_ok=True)
    (work / "index").mkdir(exist_ok=True)
    for number, rows in enumerate(_in_order(work / "sorting", pairs)):
        rows.to_parquet(work / "index" / f"{number:05d}.todo.parquet", index=False)
    shards = range(-(-count // PAIRS_PER_SHARD))
    run(
        partial(_write_shard, work, PAIRS_PER_SHARD),
        shards,
        workers,
        partial(report, "writing"),
        "new shard {}".format,
    )


def _in_order(folder: Path, pairs: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield the pairs of each shard in order of place, with at most some shards' pairs in memory."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    # External sort: distribute the pairs to one file per group of shards, then sort each file in memory.
    with ExitStack() as opened:
        files: dict[int, pa.RecordBatchStreamWriter] = {}
        for part in pairs:
            for group, some in part.groupby(part["place"] // (PAIRS_PER_SHARD * _SHARDS_AT_ONCE)):
                table = pa.Table.from_pandas(some, preserve_index=False)
                if group not in files:
                    file = opened.enter_context((folder / f"{group}").open("wb"))
                    files[group] = opened.enter_context(pa.ipc.new_stream(file, table.schema))
                files[group].write_table(table)
    for group in sorted(files):
        with (folder / f"{group}").open("rb") as written, pa.ipc.open_stream(written) as stream:
            rows = stream.read_pandas().sort_values("place", ignore_index=True).drop(columns="place")
        for start in range(0, len(rows), PAIRS_PER_SHARD):
            yield rows.iloc[start : start + PAIRS_PER_SHARD]
    shutil.rmtree(folder)


def _indices(work: Path) -> Iterator[pd.DataFrame]:
    for done in sorted((work / "index").glob("*[0-9].parquet")):
        yield pd.read_parquet(done)


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
    index = rows.drop(columns=list(_WORKING)).assign(key=keys, shard=name, offset=offsets)
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
