"""Building a pool from others' shards or a table: read and checked part by part, then written best first.

What is done is kept in a hidden folder beside the pool until the pool is whole: a build that is stopped at
any point goes on where it was. The second half reads each image's bytes from where the source has them.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd

from runners.data.damage import Damage
from runners.data.describe import describe_pool
from runners.data.in_place import SCORE_FIELD
from runners.data.index import bins_of
from runners.data.pool import Origin, Pool
from runners.data.scan import Report, Scanned, run, scan
from runners.data.shards import close_shard, write_sample
from runners.data.source import Columns, Part, parts_of
from runners.data.write import PAIRS_PER_SHARD
from runners.files import new_file

_WORKING = ("kind", "facts")


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """What to build a pool from, and how.

    Attributes:
        source: A folder of tars, or a table of image paths and captions.
        columns: What is where in it.
        evaluation: Folders of evaluation sets; pairs with an image that is in one are left out.
        workers: Processes.
        in_place: Whether to index the source's tars where they lie and write no shards; the pool's folder is
            then the source.
        provenance: What else to record of where the pairs came from.
        left_out: What was left out before, as when it could not be downloaded.
        scores: Columns of the index that are known by ``hash``, to take the place of the source's.
    """

    source: Path
    columns: Columns = field(default_factory=Columns)
    evaluation: Sequence[Path] = ()
    workers: int = 1
    in_place: bool = False
    provenance: Mapping[str, object] = field(default_factory=dict)
    left_out: Sequence[Damage] = ()
    scores: pd.DataFrame | None = None


def build_pool(path: Path, how: Build, report: Report) -> Pool:
    """Builds a pool; goes on with a build of the same pool from the same source that was stopped.

    Args:
        path: Where; nothing may be there, unless the source is indexed in place.
        how: What from.
        report: Told of progress.

    Raises:
        ValueError: If there is a pool already, the source cannot be read, or holds no pair.
    """
    if (path if not how.in_place else path / "pool.json").exists():
        raise ValueError(f"{path} exists already; remove it or choose another path")
    if how.in_place and how.source.resolve() != path.resolve():
        raise ValueError(f"--in-place indexes {path} itself; leave out --from, or copy the shards there")
    parts = parts_of(how.source)
    work = _working_folder(path, how, parts)
    found = scan(
        parts, how.columns, work / "parts", evaluation=how.evaluation, workers=how.workers, report=report
    )
    found.left_out[:0] = how.left_out
    if found.pairs.empty:
        reasons = ", ".join(sorted({each.reason for each in found.left_out})) or "it is empty"
        raise ValueError(f"{how.source} holds no pair: {reasons}")
    origin = Origin(
        name=path.resolve().name, provenance={"source": str(how.source.resolve()), **how.provenance}
    )
    pairs = found.pairs
    if how.scores is not None:
        known = [name for name in how.scores if name in pairs and name != "hash"]
        pairs = pairs.drop(columns=known).merge(how.scores.drop_duplicates("hash"), on="hash", how="left")
    pairs = pairs.assign(bin=bins_of(pairs["score"].to_numpy(), pairs["hash"].to_numpy()))
    if how.in_place:
        root = path.resolve()
        names = {shard: Path(shard).relative_to(root).as_posix() for shard in pairs["shard"].unique()}
        index = pairs.assign(shard=pairs["shard"].map(names)).drop(columns=list(_WORKING))
        describe_pool(path, [index], origin, found.left_out)
    else:
        _write(work, pairs, found, how.workers, report, origin)
        for leftover in (work / "pool").rglob(".*.partial-*"):  # of a process that was killed
            leftover.unlink()
        (work / "pool").rename(path)
    shutil.rmtree(work)
    return Pool.open(path)


def _working_folder(path: Path, how: Build, parts: Sequence[Part]) -> Path:
    """Gives the folder of this build, what others from another source left there removed."""
    work = (path if how.in_place else path.parent) / f".{path.resolve().name}.building"
    facts = [(str(part.file.resolve()), part.start, part.file.stat().st_size) for part in parts]
    told = json.dumps([facts, [how.columns.image, how.columns.caption, how.columns.score]])
    mark = blake2b(told.encode(), digest_size=16).hexdigest()
    with suppress(FileNotFoundError):
        if (work / "source").read_text(encoding="utf-8") != mark:
            shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    with new_file(work / "source") as file:
        file.write_text(mark, encoding="utf-8")
    return work


def _write(  # noqa: PLR0913, PLR0917 - the parts of a build
    work: Path, pairs: pd.DataFrame, found: Scanned, workers: int, report: Report, origin: Origin
) -> None:
    """Writes shards in (quality bin, hash) order, then what stands beside them."""
    ordered = pairs.iloc[np.lexsort((pairs["hash"].to_numpy(), pairs["bin"].to_numpy()))]
    # Which pairs there are decides what is in a shard: shards for others are of no use.
    mark = blake2b(ordered["hash"].to_numpy().tobytes(), digest_size=8).hexdigest()
    folder = work / "pool"
    if (work / "order").exists() and (work / "order").read_text(encoding="utf-8") != mark:
        shutil.rmtree(folder, ignore_errors=True)
    (work / "order").write_text(mark, encoding="utf-8")
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    (work / "index").mkdir(exist_ok=True)
    count = -(-len(ordered) // PAIRS_PER_SHARD)
    for number in range(count):
        rows = ordered.iloc[number * PAIRS_PER_SHARD : (number + 1) * PAIRS_PER_SHARD]
        rows.to_parquet(work / "index" / f"{number:05d}.todo.parquet", index=False)
    run(partial(_write_shard, work), range(count), workers, partial(report, "writing"))
    describe_pool(folder, _indices(work, count), origin, found.left_out)


def _indices(work: Path, count: int) -> Iterator[pd.DataFrame]:
    for number in range(count):
        yield pd.read_parquet(work / "index" / f"{number:05d}.parquet")


def _write_shard(work: Path, number: int) -> int:
    name, done = f"shards/{number:05d}.tar", work / "index" / f"{number:05d}.parquet"
    if done.exists() and (work / "pool" / name).exists():
        return 0
    rows = pd.read_parquet(work / "index" / f"{number:05d}.todo.parquet")
    images = _read_all(rows)
    offsets, keys = [], []
    with new_file(work / "pool" / name) as partial_file, partial_file.open("wb") as file:
        for place, row in enumerate(rows.to_dict("records")):
            key = f"{number * PAIRS_PER_SHARD + place:09d}"
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
    """Reads images from the source, file by file and front to back."""
    images = [b""] * len(rows)
    order = rows.sort_values(["shard", "offset"])
    for shard, some in order.groupby("shard", sort=False):
        with Path(str(shard)).open("rb") as file:
            for place, offset, length in zip(some.index, some["offset"], some["length"], strict=True):
                file.seek(offset)
                images[place] = file.read(length)
                if len(images[place]) != length:
                    raise ValueError(f"{shard} changed while the pool was built; start the build again")
    return images
