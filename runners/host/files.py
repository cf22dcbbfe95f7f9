"""Files and folders that appear whole or not at all."""

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_LOOK_S = 0.05


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Return a folder beside ``path`` to fill; at the end it becomes ``path``, after an error it is removed.

    A process that is killed meanwhile leaves ``.<name>.partial-…`` behind, which nothing reads.

    Raises:
        ValueError: If something is at ``path`` already, at the start or at the end.
    """
    if path.exists():
        raise ValueError(f"{path} exists already; remove it or choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    try:
        yield partial
        # A temporary folder is its owner's alone; what it becomes is as open as any other folder.
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o777 & ~umask)
        try:
            partial.rename(path)
        except OSError as error:
            raise ValueError(f"{path} was made by someone else meanwhile; use that one") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Return a file name beside ``path`` to write to; at the end that file takes the place of ``path``."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        put(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def put(written: Path, path: Path) -> None:
    """Return a written file its name for good: it is whole wherever it is found, after a power cut too."""
    _sync(written)
    written.replace(path)
    _sync(path.parent)


@contextmanager
def new_files(folder: Path) -> Iterator[Path]:
    """Return an empty folder to fill; at the end, all of it takes its places in ``folder``, or nothing.

    A process that is killed before that leaves everything as it was; of one that is killed at it, the next
    reader, who calls ``finish_files``, does the rest.
    """
    staged = folder / ".next.partial"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        yield staged
        for path in staged.iterdir():
            _sync(path)
        commit_files(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def commit_files(staged: Path, folder: Path) -> None:
    """Has the files and folders in ``staged``, on the same disk, take their places in ``folder``."""
    finish_files(folder)
    _sync(staged)
    staged.rename(folder / ".next")  # from here on it is done, by this process or the next one
    _sync(folder)
    finish_files(folder)


def finish_files(folder: Path) -> None:
    """End what ``commit_files`` began and was killed at; where there is nothing to end, does nothing."""
    staged, old = folder / ".next", folder / ".old"
    with suppress(FileNotFoundError):  # somebody else ends it as well
        for path in sorted(staged.iterdir()):
            place = folder / path.name
            if place.is_dir():
                old.mkdir(exist_ok=True)
                place.rename(old / path.name)
            path.replace(place)
        shutil.rmtree(old, ignore_errors=True)
        staged.rmdir()


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write one JSON object whole or not at all."""
    with new_file(path) as file:
        file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system frees when the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def wait_until_free(path: Path, seconds: float) -> None:
    """Waits, no longer than so many seconds, until no process holds a lock."""
    if not path.exists():
        return
    deadline = time.monotonic() + seconds
    with path.open() as file:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOOK_S)
            else:
                return


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
