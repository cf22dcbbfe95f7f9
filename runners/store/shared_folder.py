"""Folder that the workers of a command on a pool share: one that all of them see, or objects below a URL.

Below a URL, each worker fetches what it reads into an empty folder of its machine, and uploads what it wrote.
The driver has a copy of the pool's description and index, which it uploads when the command has succeeded.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgets.machine_cache import machine_cache
from runners.store.copies import COPIED_FROM, INDEX, begin_copy, copy_name, is_url, until_reached
from runners.store.files import is_hidden, new_file
from runners.store.location import Location

SCORING = ".scoring/"
"""Folder for the working files of scoring, below the pool."""

_REQUESTS, _FILES_AT_ONCE = 16, 256


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedFolder:
    """A folder whose files have names relative to it, with ``/``."""

    path: Path  # the folder; with a URL, what this process has fetched and written
    url: str = ""  # empty if all workers see the folder
    fetched: Mapping[str, int] = field(default_factory=dict)  # at the beginning → time of its copy in ns

    @contextmanager
    def here(self) -> Iterator["SharedFolder"]:
        """Context manager: this folder for one task of a worker; with a URL, an empty one of its machine."""
        if not self.url:
            yield self
            return
        with TemporaryDirectory(prefix="pool-") as folder:
            yield SharedFolder(path=Path(folder), url=self.url)

    def file(self, name: str) -> Path:
        """Return the path of a file to write, in a folder that exists."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def names(self, below: str) -> set[str]:
        """Return the names of the files in a folder, relative to it."""
        if self.url:
            return set(until_reached(partial(Location(self.url).list, below.rstrip("/"))))
        folder = self.path / below
        return {path.name for path in folder.iterdir()} if folder.exists() else set()

    def text(self, name: str) -> str:
        """Return the content of a file; empty if there is none."""
        if self.url:
            return (until_reached(partial(Location(self.url).read, name)) or b"").decode()
        path = self.path / name
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        with new_file(self.file(name)) as file:
            file.write_text(text, encoding="utf-8")
        self.keep(name)

    def write_array(self, name: str, array: NDArray[Any]) -> None:
        """Write an array as ``.npy``."""
        with new_file(self.file(name)) as partial, partial.open("wb") as opened:
            np.save(opened, array)
        self.keep(name)

    def fetch(self, names: Iterable[str]) -> None:
        """Fetch files that exist below the URL and that ``path`` lacks; does nothing without a URL."""
        if not self.url:
            return
        lacking = [name for name in names if not (self.path / name).exists()]
        storage = Location(self.url)
        for start in range(0, len(lacking), _FILES_AT_ONCE):
            until_reached(partial(self._get, storage, lacking[start : start + _FILES_AT_ONCE]))

    def _get(self, storage: Location, names: Sequence[str]) -> None:
        storage.get(storage.sizes(names), "", self.path)

    def keep(self, *names: str) -> None:
        """Upload files that were written, one after the other; does nothing without a URL."""
        if not self.url:
            return
        storage = Location(self.url)
        for name in names:
            until_reached(partial(storage.put, self.path / name, name))

    def keep_all(self, names: Iterable[str]) -> None:
        """Upload files in any order; does nothing without a URL."""
        if self.url:
            with ThreadPoolExecutor(_REQUESTS) as threads:
                list(threads.map(self.keep, names))

    def delete(self, *names: str) -> None:
        """Delete files, and folders with all that is in them."""
        storage, there = Location(self.url) if self.url else None, list[str]()
        for name in names:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            if storage is not None and name.endswith("/"):
                there += [name + each for each in until_reached(partial(storage.list, name.rstrip("/")))]
            else:
                there.append(name)
        if storage is not None:
            with ThreadPoolExecutor(_REQUESTS) as threads:
                list(threads.map(lambda each: until_reached(partial(storage.delete, [each])), there))

    def publish(self) -> None:
        """Upload a pool's description and index; ``pool.json``, which makes it the present version, last."""
        if not self.url:
            return
        there = until_reached(partial(Location(self.url).list, INDEX.rstrip("/")))
        files = {
            path.relative_to(self.path).as_posix(): path for path in self.path.rglob("*") if path.is_file()
        }

        def is_there(name: str) -> bool:
            """Return whether a file of the index is below the URL; such files are never changed."""
            facts = files[name].stat()
            # A killed command may have left another file of this name, also of the same size.
            written = self.fetched.get(name, facts.st_mtime_ns) != facts.st_mtime_ns
            return there.get(name.removeprefix(INDEX)) == facts.st_size and not written

        new = [
            name
            for name in files
            if not is_hidden(name)
            and name not in {COPIED_FROM, "pool.json"}
            and not (name.startswith(INDEX) and is_there(name))
        ]
        self.keep_all(sorted(new))
        self.keep("pool.json")


@contextmanager
def open_shared(place: str) -> Iterator[SharedFolder]:
    """Context manager: the folder of a pool that a command writes; for a URL, a copy that is published.

    Only one command at a time may write a pool.

    Raises:
        ValueError: The URL can't be read.
    """
    if not is_url(place):
        yield SharedFolder(path=Path(place))
        return
    url = place.rstrip("/")
    # The folder has the pool's name, because a new pool takes its name from its folder.
    folder = machine_cache() / "written" / copy_name(url) / PurePosixPath(url).name
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed command
    try:
        shared = SharedFolder(path=folder, url=url)
        names = begin_copy(url, folder)
        shared.fetch(names)
        yield replace(shared, fetched={name: (folder / name).stat().st_mtime_ns for name in names})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
