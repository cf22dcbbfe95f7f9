"""Hidden folder of a build, which keeps finished work until the pool is complete."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from runners.data.build.build import Build
from runners.data.build.in_place import work_of
from runners.data.build.sources.source import SourcePart
from runners.data.places.copies import listed
from runners.data.places.shared_folder import SharedFolder
from runners.data.pool.pool import Pool
from runners.host.files import locked

_WORKING_FILES = ("source", "order", "parts/", "merge/", "kept/", "index/", "pool/")


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildFolders:
    """Folders that a build writes to.

    Attributes:
        shared: The folder that its workers share.
        work: Folder for working files in it, with ``/`` at the end.
        pool: Folder in it that becomes the pool or, if empty, is the pool.
    """

    shared: SharedFolder
    work: str
    pool: str


@contextmanager
def working_folder(
    path: Path, how: Build, parts: Sequence[SourcePart], before: Pool | None = None
) -> Iterator[BuildFolders]:
    """Context manager: lock this build's folder, and delete files in it that another source left."""
    work = work_of(path)
    if how.in_place or how.to or before is not None:
        folders = BuildFolders(shared=SharedFolder(path=path, url=how.to), work=work, pool="")
    else:
        folders = BuildFolders(shared=SharedFolder(path=path.parent), work=work, pool=f"{work}pool/")
    shared = folders.shared
    facts = [
        (part.name if part.url else os.path.realpath(part.file), part.size, part.stamp) for part in parts
    ]
    columns = [how.columns.image, how.columns.caption, how.columns.score]
    scanned = json.dumps([facts, columns, bool(how.evaluation)])  # everything that the scan depends on
    mark = blake2b(scanned.encode(), digest_size=16).hexdigest()
    with locked(shared.file(f"{work}lock"), wait_s=0) as held:
        if held is None:
            raise ValueError(f"another build of the same pool is running in {shared.path / work}")
        if shared.text(f"{work}source") != mark:
            shared.delete(*(f"{work}{name}" for name in _WORKING_FILES))
            shared.write(f"{work}source", mark)
        try:
            yield folders
        except ValueError:
            if not any(name.endswith(".parquet") for name in shared.names(f"{work}parts/")):
                shared.delete(work)  # an error before any work
            raise


def check_free(path: Path, how: Build) -> None:
    """Raise ValueError unless the path is free or holds an interrupted build."""
    if not how.to:
        free = not path.exists()
    else:
        free = not listed("pool", how.to) or bool(
            SharedFolder(path=path, url=how.to).text(work_of(path) + "source")
        )
    if not free:
        raise ValueError(f"{how.to or path} already exists; remove it or choose another path")


def delete_leftovers(path: Path, how: Build) -> None:
    """Delete the working folder that a build left if it was killed after its last other step."""
    if not how.in_place and not how.to and (path.parent / work_of(path)).is_dir():
        shared = SharedFolder(path=path.parent)
        with locked(shared.file(f"{work_of(path)}lock"), wait_s=0) as held:
            if held is not None:
                shared.delete(work_of(path))
