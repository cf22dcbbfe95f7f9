"""File systems behind locations: those of fsspec's protocols, and local files with whole writes and links."""

import os
import shutil
import threading
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from budgets.names import without_secrets
from runners.host.faults import format_error
from runners.store.files import is_hidden, new_file


class OpenedFiles(NamedTuple):
    """A location as a process has opened it."""

    process: int
    files: Any  # fsspec's file system
    root: str
    turn: AbstractContextManager[object]  # where one call at a time is allowed


def open_files(address: str, local: Path | None) -> OpenedFiles:
    """Open a location; ValueError if the protocol's package is not installed, or does not take its URL."""
    if local is not None:
        return OpenedFiles(os.getpid(), _folder(), str(local), nullcontext())
    try:
        files, root = url_to_fs(address.partition("?")[0])
    except ImportError as error:
        raise ValueError(
            f"storage {without_secrets(address)} needs a package that is not installed: {error}"
        ) from error
    except Exception as error:  # such as a server that must answer before anything is read
        raise ValueError(
            f"storage {without_secrets(address)} can't be opened: {format_error(error)}"
        ) from error
    return OpenedFiles(os.getpid(), files, root, nullcontext() if files.async_impl else _turn(files))


@cache
def _turn(_files: object) -> AbstractContextManager[object]:
    """Return the lock of a file system that is not asynchronous inside: it may have a single connection."""
    return threading.RLock()


def _folder() -> Any:  # noqa: ANN401 - fsspec's file system
    """Return fsspec's local files, written whole, and listed also through links."""
    files = LocalFileSystem(skip_instance_cache=True)
    files.find = files.ls = _find
    files.pipe_file, files.put_file = _pipe_file, _put_file
    return files


def _find(top: str, *, detail: bool = True) -> dict[str, dict[str, int]]:  # noqa: ARG001 - always with it
    """Return the files of a folder, also through links, but for those to a folder that they lie in."""

    def refuse(error: OSError) -> None:
        raise OSError(f"cannot read folder {error.filename}: {error.strerror}") from error

    files = {}
    if not Path(top).is_dir():
        raise FileNotFoundError(f"no such folder: {top}")
    for folder, folders, names in os.walk(top, followlinks=True, onerror=refuse):
        below = Path(folder).relative_to(top)
        around = {os.path.realpath(top / parent) for parent in (below, *below.parents)}
        folders[:] = [
            name
            for name in folders
            if not is_hidden(name) and os.path.realpath(f"{folder}/{name}") not in around
        ]
        for name in names:
            with suppress(FileNotFoundError):  # a link to nothing
                facts = (Path(folder) / name).stat()
                files[f"{folder}/{name}"] = {"size": facts.st_size, "mtime": facts.st_mtime_ns}
    return files


def _pipe_file(path: str, content: bytes, *, mode: str) -> None:
    with new_file(Path(path)) as partial:
        partial.write_bytes(content)
        if mode == "create":
            Path(path).hardlink_to(partial)


def _put_file(path: str, target: str) -> None:
    with new_file(Path(target)) as partial:
        shutil.copyfile(path, partial)
