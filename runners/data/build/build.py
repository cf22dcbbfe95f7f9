"""A build of a pool: its source and options, the folder that it works in, and its first step, the scan.

The scan finds, checks and hashes every pair, and writes one table for each part of the source.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import partial
from hashlib import blake2b
from operator import methodcaller
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from runners.data.build.source import Columns, SourcePart, pairs_of
from runners.data.build.thumbnail import EvaluationImages, file_hash, thumbnail_of
from runners.data.pool.damage import Damage, damage_table
from runners.data.pool.shards import PairEntry, frame_of
from runners.host.workers import Processes, Report, Workers, part_name
from runners.store.files import locked, new_file
from runners.store.shared_folder import SharedFolder

_OTHERS = {"kind": "str", "facts": "str", "image_hash": "uint64", "reason": "str"}

NOT_INDEXED = [*_OTHERS, "damage"]
"""Columns of the tables of pairs that an index does not have."""

ReportPart = Callable[[int, int, int], None]
"""Called with the number of finished parts, the total, and the number of pairs just processed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """Source of a pool, and options of building it.

    ``left_out`` has samples left out before the build, for example because the download failed.
    """

    source: Path  # a folder of tars, or a table of image paths and captions
    columns: Columns = field(default_factory=Columns)
    evaluation: Sequence[Path] = ()  # folders of evaluation sets; pairs with one of their images are left out
    workers: Workers = field(default_factory=Processes)  # that read the source and write shards
    in_place: bool = False  # no shards are written; the pool's folder is the source, unless ``url`` is set
    url: str = ""  # of tars, instead of ``source``
    to: str = ""  # URL of the pool; its folder is then a copy (`runners.store.shared_folder`)
    provenance: Mapping[str, object] = field(default_factory=dict)  # additional facts about the source
    left_out: pd.DataFrame = field(default_factory=lambda: damage_table([]))

    @property
    def source_text(self) -> str:
        """The source as the pool's provenance records it."""
        return self.url or str(self.source.resolve())

    @property
    def options(self) -> dict[str, object]:
        """The options that decide which pairs a part of the source has."""
        columns = {f"--{name}": value for name, value in asdict(self.columns).items()}
        if self.url or self.source.is_dir():  # of samples, not of the columns of a table
            columns = {"--score": self.columns.score}
        return {**columns, "--without": sorted(path.resolve().name for path in self.evaluation)}


_WORKING_FILES = ("source", "plan.json", "parts/", "kept/", "shards/", "pool/")


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolFolders:
    """Folders that a new pool is written to."""

    shared: SharedFolder  # that its workers share
    work: str  # folder for working files in it, with ``/`` at the end
    pool: str = ""  # folder in it that becomes the pool or, if empty, is the pool

    def table(self, number: int, ending: str = "") -> str:
        """Return the name of the table of a shard."""
        return f"{self.work}shards/{number:05d}{ending}.parquet"


def folders_of(path: Path, how: Build, *, adding: bool) -> PoolFolders:
    """Return the folders of a build, perhaps one that adds to a pool."""
    work = f".{path.resolve().name}.building/"
    if how.in_place or how.to or adding:
        return PoolFolders(shared=SharedFolder(path=path, url=how.to), work=work)
    return PoolFolders(shared=SharedFolder(path=path.parent), work=work, pool=f"{work}pool/")


@contextmanager
def working(folders: PoolFolders, how: Build, parts: Sequence[SourcePart], known: str = "") -> Iterator[None]:
    """Context manager: lock the working folder, and delete files in it that another source left.

    ``known`` is the digest of the images of the evaluation sets, if any.
    """
    shared, work = folders.shared, folders.work
    facts = [
        (part.name if part.url else os.path.realpath(part.file), part.size, part.stamp) for part in parts
    ]
    scanned = json.dumps([facts, asdict(how.columns), known])  # all that the scan depends on
    mark = blake2b(scanned.encode(), digest_size=16).hexdigest()
    with locked(shared.file(f"{work}lock"), wait_s=0) as held:
        if held is None:
            raise ValueError(f"another build of the same pool is running in {shared.path / work}")
        if shared.text(f"{work}source") != mark:
            shared.delete(*(f"{work}{name}" for name in _WORKING_FILES))
            shared.write(f"{work}source", mark)
        try:
            yield
        except ValueError:
            if not any(name.endswith(".parquet") for name in shared.names(f"{work}parts/")):
                shared.delete(work)  # an error before any work
            raise


def scan(
    parts: Sequence[SourcePart],
    how: Build,
    folders: PoolFolders,
    known: EvaluationImages | None,
    report: Report,
) -> list[str]:
    """Read a source's parts in parallel; return the name of a table for each, in the order of the source.

    Parts that were read before are not read again. The tables have a row for each sample, with the columns of
    the index and ``kind``, ``facts`` (JSON), ``image_hash`` and ``reason``: why the sample is left out, as
    images of the evaluation sets ``known`` are; empty for a pair.
    """
    files = {number: f"{folders.work}parts/{number:06d}.parquet" for number in range(len(parts))}
    task = partial(_scan_part, parts, how.columns, folders.shared, files, known)
    names = [part.name for part in parts]
    make_files(task, files, folders.shared, how.workers, partial(report, "reading"), names.__getitem__)
    return list(files.values())


def make_files(  # noqa: PLR0913, PLR0917 - what workers need
    task: Callable[[int], int],
    files: Mapping[int, str],
    shared: SharedFolder,
    workers: Workers,
    done: ReportPart,
    name: Callable[[int], str] = part_name,
) -> None:
    """Let workers make those files of a shared folder that do not exist, and fetch all of them.

    The task is called with the key of a file, writes the file as its last step, and returns a number of
    pairs. Errors are those of `Workers.map`.
    """
    folders = {file.rpartition("/")[0] for file in files.values()}
    there = {f"{folder}/{entry}" for folder in folders for entry in shared.names(folder)}
    left = [item for item, file in files.items() if file not in there]
    for finished, (_, pairs) in enumerate(workers.map(task, left, name), 1 + len(files) - len(left)):
        done(finished, len(files), pairs)
    shared.fetch(files.values())


def _scan_part(  # noqa: PLR0913, PLR0917 - what a scan needs
    parts: Sequence[SourcePart],
    columns: Columns,
    shared: SharedFolder,
    files: Mapping[int, str],
    known: EvaluationImages | None,
    number: int,
) -> int:
    last, made = (0, b""), list[tuple[int, bytes]]()
    rows = list[tuple[PairEntry, str, str, int, str]]()

    def inspect(image: Image.Image) -> None:
        nonlocal last
        last = thumbnail_of(image)

    for outcome in pairs_of(parts[number], columns, methodcaller("load") if known is None else inspect):
        if isinstance(outcome, Damage):
            rows.append((_no_pair(outcome), "", "", 0, outcome.reason))
        else:
            entry, image, kind, facts = outcome
            rows.append((entry, kind, _json(facts), file_hash(image), ""))
            made.append(last)
    others = pd.DataFrame([other for _, *other in rows], columns=[*_OTHERS]).astype(_OTHERS)
    frame = pd.concat([frame_of(entry for entry, *_ in rows), others], axis=1)
    if known is not None:
        pairs = frame["reason"] == ""
        frame.loc[pairs, "reason"] = known.reasons(frame["image_hash"][pairs].to_numpy(), made)
    with shared.here() as local:
        with new_file(local.file(files[number])) as file:
            frame.to_parquet(file, index=False)
        local.keep(files[number])
    return len(frame)


def _no_pair(damage: Damage) -> PairEntry:
    """Return the entry of a sample that is not a pair."""
    place = file_hash(f"{damage.shard}/{damage.key}".encode())
    return PairEntry(
        key=damage.key, shard=damage.shard, offset=0, length=0, caption="", width=0, height=0, hash=place,
        score=math.nan,
    )  # fmt: skip


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
