"""First step of building a pool: find, check and hash every pair, into one table per part."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd
from PIL import Image

from runners.data.build.source import Columns, Part, pairs_of
from runners.data.evaluation.look import Thumbnail, file_hash, look_of
from runners.data.pool.damage import Damage
from runners.data.pool.index import frame_of
from runners.host.files import new_file
from runners.host.workers import Report, Workers, part_name

OF_SCAN = ["image_hash", "pixels", "thumbnail"]
"""Columns of the tables that serve to find duplicates and images of evaluation sets."""


def scan(  # noqa: PLR0913 - independent options
    parts: Sequence[Part],
    columns: Columns,
    folder: Path,
    *,
    looking: bool,
    workers: Workers,
    report: Report,
) -> list[Path]:
    """Read a source's parts in parallel; parts that were read before are not read again.

    Args:
        parts: Parts of the source.
        columns: Names of the columns or fields.
        folder: Folder for the tables of the parts.
        looking: True to make thumbnails, for comparison with evaluation sets.
        workers: What reads the parts.
        report: Called after each part.

    Returns:
        A table for each part, in the order of the source: the columns of the index, those of `OF_SCAN`,
        ``kind`` and ``facts`` (JSON).
    """
    folder.mkdir(parents=True, exist_ok=True)
    task = partial(_scan_part, parts, columns, folder, looking)
    run(task, range(len(parts)), workers, partial(report, "reading"), lambda number: parts[number].name)
    return [folder / f"{number:06d}.parquet" for number in range(len(parts))]


def run(
    task: Callable[[int], int],
    items: Sequence[int],
    workers: Workers,
    done: Callable[[int, int, int], None],
    name: Callable[[int], str] = part_name,
) -> None:
    """Let workers call a task that returns numbers of pairs for each item; ``done`` as the end of `Report`.

    Raises:
        ValueError: As `Workers.map`.
    """
    for finished, (_, pairs) in enumerate(workers.map(task, items, name), 1):
        done(finished, len(items), pairs)


def _scan_part(
    parts: Sequence[Part],
    columns: Columns,
    folder: Path,
    looking: bool,  # noqa: FBT001 - private
    number: int,
) -> int:
    target = folder / f"{number:06d}.parquet"
    if target.exists():
        return 0
    entries, kinds, facts, hashes = [], [], [], []
    left_out: list[Damage] = []
    looks: list[Thumbnail] = []
    last = Thumbnail(pixels=0, thumbnail=b"")

    def look(image: Image.Image) -> None:
        nonlocal last
        last = look_of(image)

    for each in pairs_of(parts[number], columns, look if looking else None):
        if isinstance(each, Damage):
            left_out.append(each)
            continue
        entries.append(each.entry)
        kinds.append(each.kind)
        facts.append(_json(each.facts))
        hashes.append(file_hash(each.image))
        looks.append(last)
    frame = frame_of(entries).assign(
        kind=pd.Series(kinds, dtype="str"),
        facts=pd.Series(facts, dtype="str"),
        image_hash=pd.Series(hashes, dtype="uint64"),
        pixels=pd.Series([each.pixels for each in looks], dtype="uint64"),
        thumbnail=pd.Series([each.thumbnail for each in looks], dtype="object"),
    )
    # The table is written last: its existence marks the part as done.
    with new_file(target.with_suffix(".jsonl")) as file:
        file.write_text("".join(json.dumps(asdict(each)) + "\n" for each in left_out), encoding="utf-8")
    with new_file(target) as file:
        frame.to_parquet(file, index=False)
    return len(entries) + len(left_out)


def _json(facts: Mapping[str, object]) -> str:
    try:
        return json.dumps(dict(facts))
    except RecursionError:  # nested almost too deeply to be read
        return "{}"


def damage_of(file: Path) -> pd.DataFrame:
    """Return shard, key and reason of the samples of a part that are not pairs."""
    lines = file.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    return pd.DataFrame(map(json.loads, lines), columns=["shard", "key", "reason"], dtype="str")
