"""The first half of building a pool: every pair of the source found, checked and hashed, in a file a part."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from runners.data.damage import Damage
from runners.data.evaluation_set import image_files
from runners.data.index import frame_of
from runners.data.source import Columns, Found, Part, pairs_of
from runners.files import new_file

Report = Callable[[str, int, int, int], None]
"""Told what is being done, how many parts are done, of how many, and how many pairs went by just now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scanned:
    """All pairs of a source, and what was left out.

    Attributes:
        pairs: The index's columns without bins, and ``kind`` and ``facts`` (JSON).
        left_out: What is no pair, a duplicate, or in an evaluation set.
    """

    pairs: pd.DataFrame
    left_out: list[Damage]


def scan(  # noqa: PLR0913 - each is a choice of its own
    parts: Sequence[Part],
    columns: Columns,
    folder: Path,
    *,
    evaluation: Sequence[Path] = (),
    workers: int,
    report: Report,
) -> Scanned:
    """Reads a source's parts side by side; a part that was read before is not read again.

    Args:
        parts: Of the source.
        columns: What is where.
        folder: Where parts are kept.
        evaluation: Evaluation sets (or pools) whose images are left out.
        workers: Processes.
        report: Told of each part.

    Returns:
        Pairs in the order of the source. Of exact duplicates (image and caption) the first stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run(partial(_scan_part, parts, columns, folder), range(len(parts)), workers, partial(report, "reading"))
    pairs = pd.concat(
        [
            pd.read_parquet(folder / f"{number:06d}.parquet").assign(part=number)
            for number in range(len(parts))
        ],
        ignore_index=True,
    )
    left_out = [
        Damage(**json.loads(line))
        for number in range(len(parts))
        for line in (folder / f"{number:06d}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    seen = np.array([image_hash(image) for path in evaluation for image in image_files(path)], np.uint64)
    duplicate = pairs.duplicated(["hash", "image_hash"]).to_numpy()
    known = np.isin(pairs["image_hash"].to_numpy(), seen)
    for reason, rows in (("in an evaluation set", known), ("duplicate", duplicate & ~known)):
        out = pairs[rows]
        left_out += [
            Damage(shard=shard, key=key, reason=reason)
            for shard, key in zip(out["shard"], out["key"], strict=True)
        ]
    kept = pairs[~(known | duplicate)].drop(columns="image_hash").reset_index(drop=True)
    return Scanned(pairs=kept, left_out=left_out)


def run(
    task: Callable[[int], int], numbers: Sequence[int], workers: int, done: Callable[[int, int, int], None]
) -> None:
    """Runs a task for each number, in processes of their own where there are to be more than one."""
    for finished, pairs in enumerate(_results(task, numbers, workers), 1):
        done(finished, len(numbers), pairs)


def image_hash(image: bytes) -> int:
    """A stable 64-bit hash of an image file's bytes."""
    return int.from_bytes(blake2b(image, digest_size=8).digest(), "little")


def _results(task: Callable[[int], int], numbers: Sequence[int], workers: int) -> Iterator[int]:
    if workers <= 1:
        yield from map(task, numbers)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as processes:
        for future in as_completed([processes.submit(task, number) for number in numbers]):
            yield future.result()


def _scan_part(parts: Sequence[Part], columns: Columns, folder: Path, number: int) -> int:
    target = folder / f"{number:06d}.parquet"
    if target.exists():
        return 0
    found: list[Found] = []
    hashes: list[int] = []
    left_out: list[Damage] = []
    for each in pairs_of(parts[number], columns):
        if isinstance(each, Damage):
            left_out.append(each)
        else:
            hashes.append(image_hash(each.image))
            found.append(
                Found(entry=each.entry, image=b"", kind=each.kind, facts=each.facts)  # its bytes are let go
            )
    frame = frame_of(each.entry for each in found).assign(
        kind=pd.Series([each.kind for each in found], dtype="str"),
        facts=pd.Series([json.dumps(dict(each.facts)) for each in found], dtype="str"),
        image_hash=pd.Series(hashes, dtype="uint64"),
    )
    with new_file(target.with_suffix(".jsonl")) as file:
        file.write_text("".join(json.dumps(asdict(each)) + "\n" for each in left_out), encoding="utf-8")
    with new_file(target) as file:
        frame.to_parquet(file, index=False)
    return len(found) + len(left_out)
