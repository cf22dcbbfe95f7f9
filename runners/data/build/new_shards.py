"""Last step of a build that writes a pool: the pairs as shards, best first, and the parts of their index.

Each image's bytes are read from the source again.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from runners.data.build.build import BuildFolders
from runners.data.build.merge_parts import WORKING, with_scores_as
from runners.data.build.scan import run
from runners.data.build.write import PAIRS_PER_SHARD
from runners.data.index.merge import in_order, order_of_shards
from runners.data.index.parts import ROWS_PER_PART, Index
from runners.data.index.writing import index_of_files, write_part
from runners.data.pool.shards import close_shard, write_sample
from runners.host.workers import Report, Workers
from runners.store.copies import INDEX
from runners.store.files import new_file
from runners.store.place import ranges_at

_SHARDS_PER_PART = ROWS_PER_PART // PAIRS_PER_SHARD
_SHARD, _TABLE = re.compile(r"shards/(\d+)\.tar"), re.compile(r"\d+\.parquet")


def number_of(shard: str) -> int:
    """Return the number of a shard from its name in the index; -1 if it was not written by a build."""
    found = _SHARD.fullmatch(shard)
    return int(found[1]) if found else -1


def write_shards(  # noqa: PLR0913 - independent options
    tables: Sequence[Path], folders: BuildFolders, *, url: str, first: int, workers: Workers, report: Report
) -> None:
    """Write shards, and tables of their pairs for `write_index`.

    ``url`` is that of the source's tars; empty if they are on this machine. ``first`` is the number of the
    first shard. Without tables there is nothing to write.
    """
    shared, work, shards = folders.shared, folders.work, f"{folders.pool}shards/"
    todo = f"{work}index/"
    table = index_of_files(tables) if tables else None
    mark = "" if table is None else _mark(table)
    written = {name for name in shared.names(shards) if number_of(f"shards/{name}") >= first}
    if shared.text(f"{work}order") != mark:
        shared.delete(todo, *(shards + name for name in written))
        written.clear()
        shared.write(f"{work}order", mark)
    shared.file(f"{shards}x")
    if table is None:
        return
    numbers = range(first, first - (-table.count // PAIRS_PER_SHARD))
    rows = in_order(tables, order_of_shards(table), shared.path / work, PAIRS_PER_SHARD)
    for number, mine in zip(numbers, rows, strict=True):
        pq.write_table(mine, shared.file(f"{todo}{number:05d}.todo.parquet"))
    shared.keep_all(f"{todo}{number:05d}.todo.parquet" for number in numbers)
    done = shared.names(todo)
    run(
        partial(_write_shard, folders, url, PAIRS_PER_SHARD),
        [n for n in numbers if f"{n:05d}.parquet" not in done or f"{n:05d}.tar" not in written],
        workers,
        partial(report, "writing"),
        "new shard {}".format,
        of=len(numbers),
    )


def _mark(table: Index) -> str:
    """Return a hash of everything that is written besides the samples: shards of another are not kept."""
    digest = blake2b(digest_size=16)
    for name in table.columns:
        digest.update(name.encode())
        for chunk in table.chunks(name):
            digest.update(pd.Series(chunk, dtype=None if name == "hash" else "float64").to_numpy().tobytes())
    return digest.hexdigest()


def write_index(
    folders: BuildFolders, *, first: int, score: str, workers: Workers, report: Report
) -> list[str]:
    """Write the parts of the index of new shards, and return the parts' files as in `Part`.

    ``first`` is the number of the first part, ``score`` the index's column for the scores of the source.
    """
    tables = sorted(name for name in folders.shared.names(f"{folders.work}index/") if _TABLE.fullmatch(name))
    numbers = range(first, first - (-len(tables) * PAIRS_PER_SHARD // ROWS_PER_PART))
    starts = {number: tables[(number - first) * _SHARDS_PER_PART :][:_SHARDS_PER_PART] for number in numbers}
    run(partial(_write_index_part, folders, starts, score), numbers, workers, partial(report, "indexing"))
    files = [f"{INDEX}{number:05d}" for number in numbers]
    folders.shared.fetch(
        f"{folders.pool}{file}{end}" for file in files for end in (".parquet", ".words.parquet")
    )
    return files


def _write_index_part(
    folders: BuildFolders, tables: Mapping[int, Sequence[str]], score: str, number: int
) -> int:
    with folders.shared.here() as here:
        names = [f"{folders.work}index/{name}" for name in tables[number]]
        here.fetch(names)
        rows = pd.concat([pd.read_parquet(here.path / name) for name in names], ignore_index=True)
        part = f"{folders.pool}{INDEX}{number:05d}"
        write_part(here.file(part), with_scores_as(score, rows))
        here.keep(f"{part}.words.parquet", f"{part}.parquet")
    return len(rows)


def _write_shard(folders: BuildFolders, url: str, most: int, number: int) -> int:
    name, table = f"shards/{number:05d}.tar", f"{folders.work}index/{number:05d}"
    with folders.shared.here() as here:
        here.fetch([f"{table}.todo.parquet"])
        rows = pd.read_parquet(here.path / f"{table}.todo.parquet")
        with new_file(here.file(folders.pool + name)) as partial_file:
            index = _write_tar(partial_file, rows, url, number * most).assign(shard=name)
        here.keep(folders.pool + name)
        with new_file(here.file(f"{table}.parquet")) as file_name:
            index.to_parquet(file_name, index=False)
        here.keep(f"{table}.parquet")
    return len(rows)


def _write_tar(path: Path, rows: pd.DataFrame, url: str, first_key: int) -> pd.DataFrame:
    """Write the pairs of a shard, and return their rows of the index, without the shard's name."""
    images = _read_all(rows, url)
    offsets, keys = [], []
    with path.open("wb") as file:
        for place, row in enumerate(rows.to_dict("records")):
            key = f"{first_key + place:09d}"
            facts = {"key": key, **{name: row[name] for name in ("caption", "width", "height")}}
            members = {
                row["kind"]: images[place],
                "txt": row["caption"].encode(),
                "json": json.dumps(json.loads(row["facts"]) | facts).encode(),
            }
            offsets.append(write_sample(file, key, members)[row["kind"]])
            keys.append(key)
        close_shard(file)
    return rows.drop(columns=WORKING).assign(key=keys, offset=offsets)


def _read_all(rows: pd.DataFrame, url: str) -> list[bytes]:
    """Read images from the source; those of tars on this machine file by file and front to back."""
    order = rows.sort_values(["shard", "offset"])
    ranges = list(zip(order["shard"], order["offset"], order["length"], strict=True))
    images = [b""] * len(rows)
    read = ranges_at(url, ranges) if url else _ranges_in(ranges)
    for place, (shard, _, length), content in zip(order.index, ranges, read, strict=True):
        images[place] = content
        if len(content) != length:
            raise ValueError(f"{shard} changed during the build; start the build again")
    return images


def _ranges_in(ranges: Iterable[tuple[str, int, int]]) -> Iterator[bytes]:
    for shard, some in groupby(ranges, itemgetter(0)):
        with Path(shard).open("rb") as file:
            for _, offset, length in some:
                file.seek(offset)
                yield file.read(length)
