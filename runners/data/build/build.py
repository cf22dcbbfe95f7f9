"""Source and options of a build of a pool, and the folder that it works in."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path

import pandas as pd

from runners.data.build.source import Columns, SourcePart
from runners.data.pool.damage import damage_table
from runners.host.workers import Processes, Workers
from runners.store.files import locked
from runners.store.shared_folder import SharedFolder


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
