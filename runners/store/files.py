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
from fnmatch import fnmatchcase
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from runners.host.faults import format_error

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


def write_sealed(path: Path, content: Mapping[str, object], *, sync: bool = True) -> None:
    """Write one JSON object as `write_json` does, with a ``digest`` of its content."""
    write_json(path, {**content, "digest": digest_of(content)}, sync=sync)


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """Context manager that opens a regular file; it waits for no pipe or device in its place.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It is not a regular file; the message names it.
    """
    try:
        descriptor = not_waiting(path, os.O_RDONLY)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENXIO}:  # links in a circle, a socket
            raise
        raise ValueError(f"{path} is not a regular file") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path} is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_bytes(path: Path) -> bytes:
    """Read a regular file; errors as `open_file`."""
    with open_file(path) as file:
        return file.read()


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """Read the JSON object of a file.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It holds anything else; the message names it and ends with the advice.
    """
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        why = format_error(error)
    else:
        if isinstance(content, dict):
            return content
        why = f"it holds a {type(content).__name__} in place of an object"
    raise ValueError(f"{path} is damaged ({why}); {advice}")


def read_sealed(path: Path, advice: str) -> dict[str, Any]:
    """Read a file of `write_sealed`, without its digest; errors as `read_json`, also if that does not fit."""
    content = read_json(path, advice)
    if content.pop("digest", None) != digest_of(content):
        raise ValueError(f"{path} is damaged (its digest does not fit its content); {advice}")
    return content


def digest_of(content: Mapping[str, object]) -> str:
    """Return the first digits of the SHA-256 of a JSON object."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


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
    with open(path, "a", opener=not_waiting) as file:
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


def matching(folder: Path, pattern: str) -> list[Path]:
    """Return the paths in a folder whose names match a pattern; none if there is no such folder.

    An OSError if it can't be read: `Path.glob` would find nothing there, from Python 3.13 on.
    """
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if fnmatchcase(entry.name, pattern)]
    except (FileNotFoundError, NotADirectoryError):
        return []


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


def not_waiting(path: str | Path, flags: int) -> int:
    """Open a file for `open` without waiting for the other end of a pipe in its place."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def _partial(path: Path) -> Path:
    # Not by process ids, which nodes that share a folder may both use.
    return path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
