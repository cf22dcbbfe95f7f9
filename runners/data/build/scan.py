"""First half of building a pool: find, check and hash every pair, into one file per part.

Memory holds only numbers of all pairs, some tens of bytes per pair; everything else is read by part.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from runners.data.build.source import Columns, Part, pairs_of
from runners.data.evaluation.look import ALIKE, SAME, Known, Thumbnail, file_hash, look_of
from runners.data.pool.damage import Damage
from runners.data.pool.index import frame_of
from runners.host.files import new_file
from runners.host.workers import Report, Workers, part_name

_OF_SCAN = ["image_hash", "pixels", "thumbnail"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scanned:
    """All pairs of a source, and the samples that were left out.

    Attributes:
        files: Tables of the pairs, part by part in the order of the source: the index's columns without bins,
            and ``kind`` and ``facts`` (JSON).
        kept: Mask of the rows of each table that are pairs of the pool.
        hash: Hash of each kept pair, uint64.
        score: Score of each kept pair, float32.
        left_out: Shard, key and reason of samples that are not pairs, duplicates, or in an evaluation set.
    """

    files: Sequence[Path]
    kept: Sequence[NDArray[np.bool_]]
    hash: NDArray[np.uint64]
    score: NDArray[np.float32]
    left_out: pd.DataFrame

    def parts(self) -> Iterator[pd.DataFrame]:
        """Yield the kept pairs, part by part."""
        for file, kept in zip(self.files, self.kept, strict=True):
            yield pd.read_parquet(file).drop(columns=_OF_SCAN)[kept].reset_index(drop=True)


def scan(  # noqa: PLR0913 - independent options
    parts: Sequence[Part],
    columns: Columns,
    folder: Path,
    *,
    known: Known | None = None,
    workers: Workers,
    report: Report,
) -> Scanned:
    """Read a source's parts in parallel; parts that were read before are not read again.

    Args:
        parts: Parts of the source.
        columns: Names of the columns or fields.
        folder: Folder for the tables of the parts.
        known: Images of evaluation sets to leave out: identical files, identical pixels, and nearly identical
            thumbnails.
        workers: What reads the parts.
        report: Called after each part.

    Returns:
        Pairs in the order of the source. Of exact duplicates (image and caption) the first is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task = partial(_scan_part, parts, columns, folder, known is not None)
    run(task, range(len(parts)), workers, partial(report, "reading"), lambda number: parts[number].name)
    files = [folder / f"{number:06d}.parquet" for number in range(len(parts))]
    numbers = pd.concat(
        [pd.read_parquet(file, columns=["hash", "image_hash", "score"]) for file in files], ignore_index=True
    )
    out = np.zeros(len(numbers), np.int8)  # index into `reasons`
    reasons = ("", "duplicate", ALIKE, SAME)
    # By the whole pair's hash and the image's: 128 bits make a false duplicate negligible.
    out[numbers.duplicated(["hash", "image_hash"]).to_numpy()] = 1
    left_out, kept, start = [], [], 0
    for file in files:
        what = pd.read_parquet(file, columns=["shard", "key", *_OF_SCAN])
        mine = out[start : start + len(what)]
        if known is not None:
            found = known.reasons(what["image_hash"].to_numpy(), what["pixels"].to_numpy(), what["thumbnail"])
            for place, reason in enumerate(reasons[2:], 2):
                mine[found == reason] = place
        told = what[["shard", "key"]].assign(reason=np.array(reasons, object)[mine])
        left_out += [_left_out(file), told[mine > 0]]
        kept.append(mine == 0)
        start += len(what)
    return Scanned(
        files=files,
        kept=kept,
        hash=numbers["hash"].to_numpy()[out == 0],
        score=numbers["score"].to_numpy()[out == 0],
        left_out=pd.concat(left_out, ignore_index=True).astype("str"),
    )


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


def _left_out(file: Path) -> pd.DataFrame:
    lines = file.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    return pd.DataFrame(map(json.loads, lines), columns=["shard", "key", "reason"], dtype="str")
