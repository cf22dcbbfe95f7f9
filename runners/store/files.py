"""Atomic writes: files and folders that appear completely or not at all."""

import errno
import fcntl
import json
import math
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from runners.host.faults import words_of

_LOOK_S = 0.05
_MOST_JSON_BYTES = 256 * 2**20


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
    partial = _partial(path)
    partial.mkdir(parents=True)
    try:
        yield partial
        try:
            partial.rename(path)
        except OSError as error:
            raise ValueError(f"{path} was created by another process meanwhile; use that one") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def new_file(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Context manager: write to the given temporary file, which replaces ``path`` on success.

    Without ``sync`` it does not wait for the disk; a power cut may then leave the file empty.
    """
    partial = _partial(path)
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


def write_json(path: Path, content: Mapping[str, object], *, sync: bool = True) -> None:
    """Write one JSON object atomically; ``sync`` as in `new_file`."""
    with new_file(path, sync=sync) as file:
        file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_bytes(path: Path, *, most: float = math.inf) -> bytes:
    """Read a regular file; a pipe or a device in its place is refused, so that nothing waits for it.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It is not a regular file, or has more than ``most`` bytes; the message names it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENXIO}:  # links in a circle, a socket
            raise
        raise ValueError(f"{path} is not a regular file") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path} is not a regular file")
        if found.st_size > most:
            raise ValueError(f"{path} has {found.st_size:,} bytes, more than the {most:,} of any such file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """Read the JSON object of a file.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It holds anything else; the message names it and ends with the advice.
    """
    try:
        content = json.loads(read_bytes(path, most=_MOST_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        why = words_of(error)
    else:
        if isinstance(content, dict):
            return content
        why = f"it holds a {type(content).__name__} in place of an object"
    raise ValueError(f"{path} is damaged ({why}); {advice}")


@contextmanager
def locked(
    path: Path, *, wait_s: float = math.inf, given_up: Callable[[], bool] | None = None
) -> Iterator[IO[str] | None]:
    """Context manager that holds a file lock, which the system releases when the process dies.

    Its value is the open file; None if another process or thread still holds the lock after ``wait_s``, or
    when ``given_up`` returns True.
    """
    until = time.monotonic() + wait_s
    wait = wait_s == math.inf and given_up is None
    with path.open("a") as file:
        while not (held := _try_lock(file, wait=wait)) and time.monotonic() < until:
            if given_up is not None and given_up():
                break
            time.sleep(_LOOK_S)
        try:
            yield file if held else None
        finally:
            # Closing is not enough: a process forked in the meantime has a copy of the open file, and with it
            # the lock.
            fcntl.flock(file, fcntl.LOCK_UN)


def _try_lock(file: IO[str], *, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_hidden(name: str) -> bool:
    """Return whether a relative path has a part that begins with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


def walk(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk a folder as `os.walk` does, also through links; the folders of each step may be changed.

    A folder that can't be read is a ValueError; `os.walk` passes over it.
    """

    def refuse(error: OSError) -> None:
        raise ValueError(f"cannot read folder {error.filename}: {error.strerror}") from error

    return os.walk(path, followlinks=True, onerror=refuse)


def _partial(path: Path) -> Path:
    # Not by process ids, which nodes that share a folder may both use.
    return path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
