"""Folder that the workers of a command on a pool share: one that all of them see, or files below a URL.

Below a URL, each worker fetches what it reads into an empty folder of its machine, and uploads what it wrote.
The driver has a copy of the pool's description and index, which it uploads when the command has succeeded.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgets.machine_cache import machine_cache
from runners.store.copies import COPIED_FROM, DESCRIPTION, INDEX
from runners.store.files import new_file
from runners.store.location import Location, until_reached

SCORING = ".scoring/"
"""Folder for the working files of scoring, below the pool."""

_REQUESTS, _FILES_AT_ONCE = 16, 256


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedFolder:
    """A folder whose files have names relative to it, with ``/``."""

    path: Path  # the folder; with a URL, what this process has fetched and written
    url: str = ""  # empty if all workers see the folder
    fetched: dict[str, int] = field(default_factory=dict)  # file → time of its copy in ns

    @property
    def at(self) -> Location:
        """Where all workers find its files."""
        return Location(self.url or self.path)

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
        return set(until_reached(partial(self.at.list, below.rstrip("/"))))

    def text(self, name: str) -> str:
        """Return the content of a file; empty if there is none."""
        return (until_reached(partial(self.at.read, name)) or b"").decode()

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
        lacking = [name for name in names if not (self.path / name).exists()] if self.url else []
        for start in range(0, len(lacking), _FILES_AT_ONCE):
            until_reached(partial(self._get, lacking[start : start + _FILES_AT_ONCE]))
        self.fetched.update((name, (self.path / name).stat().st_mtime_ns) for name in lacking)

    def _get(self, names: Sequence[str]) -> None:
        self.at.get(self.at.sizes(names), self.path)

    def keep(self, *names: str) -> None:
        """Upload files that were written, one after the other; does nothing without a URL."""
        for name in names if self.url else ():
            until_reached(partial(self.at.put, self.path / name, name))

    def keep_all(self, names: Iterable[str]) -> None:
        """Upload files in any order; does nothing without a URL."""
        _at_once(self.keep, names)

    def delete(self, *names: str) -> None:
        """Delete files, and folders with all that is in them."""
        for path in (self.path / name for name in names):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if self.url:
            folders = [name for name in names if name.endswith("/")]
            there = [name + file for name in folders for file in self.names(name)]
            _at_once(lambda file: until_reached(partial(self.at.delete, [file])), [*names, *there])

    def publish(self) -> None:
        """Upload a pool's description and index; ``pool.json``, which makes it the present version, last."""
        if not self.url:
            return

        def is_there(name: str) -> bool:
            """Return whether a file is below the URL: files of an index never change."""
            # A killed command may have left another file of this name, also of the same size.
            return name.startswith(INDEX) and self.fetched.get(name) == (self.path / name).stat().st_mtime_ns

        files = Location(self.path).list().keys() - {COPIED_FROM, "pool.json"}
        self.keep_all(sorted(name for name in files if not is_there(name)))
        self.keep("pool.json")


def _at_once(do: Callable[[str], object], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(_REQUESTS) as threads:
        list(threads.map(do, names))


@contextmanager
def open_shared(place: str | Location) -> Iterator[SharedFolder]:
    """Context manager: the folder of a pool that a command writes; for a URL, a copy that is published.

    Only one command at a time may write a pool.

    Raises:
        ValueError: The URL can't be read.
    """
    pool = Location(place)
    if pool.local is not None:
        yield SharedFolder(path=pool.local)
        return
    # The folder has the pool's name, because a new pool takes its name from its folder.
    folder = machine_cache() / "written" / pool.copy_name / pool.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed command
    try:
        shared = SharedFolder(path=folder, url=pool.address)
        shared.file(COPIED_FROM).write_text(pool.address, encoding="utf-8")
        listing = pool.contents("pool")
        if "pool.json" in listing:
            shared.fetch(name for name in listing if name.startswith((*DESCRIPTION, INDEX)))
        yield shared
    finally:
        shutil.rmtree(folder, ignore_errors=True)
