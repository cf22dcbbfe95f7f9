"""First step of building a pool: find, check and hash every pair, into one table per part."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from functools import partial
from operator import methodcaller
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from runners.data.build.source import Columns, SourcePart, pairs_of
from runners.data.build.thumbnail import file_hash, thumbnail_of
from runners.data.pool.damage import Damage, damage_table
from runners.data.pool.shards import frame_of
from runners.host.workers import Report, Workers, part_name
from runners.store.files import new_file
from runners.store.shared_folder import SharedFolder

OF_SCAN = ["image_hash", "pixels", "thumbnail"]
"""Columns of the tables that serve to find duplicates and images of evaluation sets."""

NOT_INDEXED = ["kind", "facts", "damage"]
"""Columns of the tables of pairs that an index does not have."""

ReportPart = Callable[[int, int, int], None]
"""Called with the number of finished parts, the total, and the number of pairs just processed."""


def scan(  # noqa: PLR0913 - independent options
    parts: Sequence[SourcePart],
    columns: Columns,
    shared: SharedFolder,
    below: str,
    *,
    thumbnails: bool,
    workers: Workers,
    report: Report,
) -> list[Path]:
    """Read a source's parts in parallel; return a table for each part, in the order of the source.

    Parts that were read before are not read again. The tables go into the folder ``below`` in the shared one.
    They have the columns of the index, those of `OF_SCAN`, ``kind`` and ``facts`` (JSON). ``thumbnails``
    serve to compare images with evaluation sets.
    """
    names = [f"{number:06d}.parquet" for number in range(len(parts))]
    done = shared.names(below)
    run(
        partial(_scan_part, parts, columns, shared, below, thumbnails),
        [number for number, name in enumerate(names) if name not in done],
        workers,
        partial(report, "reading"),
        lambda number: parts[number].name,
        of=len(parts),
    )
    shared.fetch(below + name for name in names)
    return [shared.path / below / name for name in names]


def run(  # noqa: PLR0913 - what workers need, and options
    task: Callable[[int], int],
    items: Sequence[int],
    workers: Workers,
    done: ReportPart,
    name: Callable[[int], str] = part_name,
    *,
    of: int = 0,
) -> None:
    """Let workers call a task for each item, and report progress; errors are those of `Workers.map`.

    The task returns a number of pairs. ``items`` are those that are not finished, ``of`` is the number of all
    of them (by default the same).
    """
    of = of or len(items)
    for finished, (_, pairs) in enumerate(workers.map(task, items, name), 1 + of - len(items)):
        done(finished, of, pairs)


def _scan_part(  # noqa: PLR0913, PLR0917 - what a scan needs
    parts: Sequence[SourcePart],
    columns: Columns,
    shared: SharedFolder,
    below: str,
    thumbnails: bool,  # noqa: FBT001 - private
    number: int,
) -> int:
    part, entries, kinds, facts, hashes = parts[number], [], [], [], []
    left_out: list[Damage] = []
    made: list[tuple[int, bytes]] = []
    last = 0, b""

    def inspect(image: Image.Image) -> None:
        nonlocal last
        last = thumbnail_of(image)

    for each in pairs_of(part, columns, inspect if thumbnails else methodcaller("load")):
        if isinstance(each, Damage):
            left_out.append(each)
            continue
        entries.append(each.entry)
        kinds.append(each.kind)
        facts.append(_json(each.facts))
        hashes.append(file_hash(each.image))
        made.append(last)
    frame = frame_of(entries).assign(
        kind=pd.Series(kinds, dtype="str"),
        facts=pd.Series(facts, dtype="str"),
        image_hash=pd.Series(hashes, dtype="uint64"),
        pixels=pd.Series([pixels for pixels, _ in made], dtype="uint64"),
        thumbnail=pd.Series([thumbnail for _, thumbnail in made], dtype="object"),
    )
    name = f"{below}{number:06d}"
    with shared.here() as here:
        # The table is written last: its existence marks the part as done.
        here.write(f"{name}.jsonl", "".join(json.dumps(asdict(each)) + "\n" for each in left_out))
        with new_file(here.file(f"{name}.parquet")) as file:
            frame.to_parquet(file, index=False)
        here.keep(f"{name}.parquet")
    return len(entries) + len(left_out)


def _json(facts: Mapping[str, object]) -> str:
    try:
        return json.dumps(dict(facts), default=_plain)
    except RecursionError:  # nested almost too deeply to be read
        return "{}"


def _plain(value: object) -> object:
    """Return a value of a parquet file as JSON has it: bytes are left out, dates and the like are texts."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return None if isinstance(value, bytes) else float(value) if isinstance(value, Decimal) else str(value)


def damage_of(file: Path) -> pd.DataFrame:
    """Return shard, key and reason of the samples of a part that are not pairs."""
    lines = file.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    return damage_table(Damage(**json.loads(line)) for line in lines)
