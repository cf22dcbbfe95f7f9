"""Atomic writes: files and folders that appear completely or not at all."""

import fcntl
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_LOOK_S = 0.05


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Context manager: fill the given temporary folder, which becomes ``path`` on success.

    The temporary folder is removed after an error. A killed process leaves ``.<name>.partial-…`` behind,
    which nothing reads.

    Raises:
        ValueError: ``path`` already exists, at the start or at the end.
    """
    if path.exists():
        raise ValueError(f"{path} already exists; remove it or choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    try:
        yield partial
        # mkdtemp gives access to the owner only: set the permissions of an ordinary folder.
        # os.umask can only be read by setting it.
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o777 & ~umask)
        try:
            partial.rename(path)
        except OSError as error:
            raise ValueError(f"{path} was created by another process meanwhile; use that one") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def new_file(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Context manager: write to the given temporary file, which replaces ``path`` on success.

    Args:
        path: The file.
        sync: False not to wait for the disk; a power cut may then leave the file empty.
    """
    # Not by process ids, which nodes that share a folder may both use.
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        yield partial
        if sync:
            put(partial, path)
        else:
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def put(written: Path, path: Path) -> None:
    """Move a written file to its final path so that it is complete there even after a power cut."""
    # Content before name, then the folder: otherwise a power cut could leave the name without its content.
    _sync(written)
    written.replace(path)
    _sync(path.parent)


def commit_files(staged: Path, folder: Path) -> None:
    """Move the files and folders in ``staged``, on the same disk, into ``folder``, all or none."""
    finish_files(folder)
    _sync(staged)
    staged.rename(folder / ".next")  # the commit: from here on, this or a later process completes the move
    _sync(folder)
    finish_files(folder)


def finish_files(folder: Path) -> None:
    """Complete a move that ``commit_files`` began before it was killed; does nothing if there is none."""
    staged, old = folder / ".next", folder / ".old"
    with suppress(FileNotFoundError):  # another process completes the same move
        # Each file is moved by one rename, so a repeated call continues where a killed one stopped.
        for path in sorted(staged.iterdir()):
            place = folder / path.name
            # rename cannot replace a folder that is not empty: move the old one aside first.
            if place.is_dir():
                old.mkdir(exist_ok=True)
                place.rename(old / path.name)
            path.replace(place)
        shutil.rmtree(old, ignore_errors=True)
        staged.rmdir()


def write_json(path: Path, content: Mapping[str, object], *, sync: bool = True) -> None:
    """Write one JSON object atomically; ``sync`` as in `new_file`."""
    with new_file(path, sync=sync) as file:
        file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Context manager that holds a file lock, which the system releases when the process dies.

    Its value is True; without waiting, False if another process holds the lock.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def wait_until_free(path: Path, seconds: float) -> None:
    """Wait until no process holds the lock, at most ``seconds`` seconds."""
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


def is_hidden(name: str) -> bool:
    """Return whether a relative path has a part that begins with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
