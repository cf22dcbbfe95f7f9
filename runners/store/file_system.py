"""File systems behind locations: those of fsspec's protocols, and local files by the same methods."""

import os
import shutil
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from budgets.names import without_secrets
from runners.host.faults import words_of
from runners.store.files import is_hidden, new_file


class OpenedFiles(NamedTuple):
    """A location as a process has opened it."""

    process: int
    files: Any  # fsspec's file system, or `_Folder`
    root: str
    turn: AbstractContextManager[object]  # where one call at a time is allowed
    creates: bool  # it refuses to create a file twice


def open_files(address: str, local: Path | None) -> OpenedFiles:
    """Open a location; ValueError if the protocol's package is not installed, or does not take its URL."""
    if local is not None:
        return OpenedFiles(os.getpid(), _Folder, str(local), nullcontext(), creates=True)
    from fsspec.core import url_to_fs  # noqa: PLC0415 - most commands need none of it
    from fsspec.spec import AbstractFileSystem  # noqa: PLC0415

    try:
        files, root = url_to_fs(address.partition("?")[0])
    except ImportError as error:
        raise ValueError(
            f"storage {without_secrets(address)} needs a package that is not installed: {error}"
        ) from error
    except Exception as error:  # such as a server that must answer before anything is read
        raise ValueError(f"storage {without_secrets(address)} can't be opened: {words_of(error)}") from error
    # File systems that are not asynchronous inside may have a single connection.
    turn: AbstractContextManager[object] = nullcontext() if files.async_impl else threading.RLock()
    # fsspec's default for mode="create" looks first and then writes, so two writers can both succeed.
    creates = files.async_impl or type(files).pipe_file is not AbstractFileSystem.pipe_file
    return OpenedFiles(os.getpid(), files, root, turn, creates)


class _Folder:
    """Local files, by the methods of fsspec's file systems that a location calls."""

    async_impl = False

    @staticmethod
    def invalidate_cache() -> None:
        pass

    @staticmethod
    def find(top: str, *, detail: bool = False) -> dict[str, dict[str, Any]]:  # noqa: ARG004 - always with it
        """Return the files of a folder, also through links, but for those to a folder that they lie in."""

        def refuse(error: OSError) -> None:
            raise OSError(f"cannot read folder {error.filename}: {error.strerror}") from error

        found = {}
        if not Path(top).is_dir():
            raise FileNotFoundError(f"no such folder: {top}")
        for folder, folders, names in os.walk(top, followlinks=True, onerror=refuse):
            below = Path(folder).relative_to(top)
            around = {os.path.realpath(top / each) for each in (below, *below.parents)}
            folders[:] = [
                name
                for name in folders
                if not is_hidden(name) and os.path.realpath(f"{folder}/{name}") not in around
            ]
            for name in names:
                with suppress(FileNotFoundError):  # a link to nothing
                    facts = (Path(folder) / name).stat()
                    found[f"{folder}/{name}"] = {"size": facts.st_size, "mtime": facts.st_mtime_ns}
        return found

    ls = find

    @staticmethod
    def cat_file(path: str, start: int = 0, end: int | None = None) -> bytes:
        with Path(path).open("rb") as file:
            file.seek(start)
            return file.read(-1 if end is None else end - start)

    @staticmethod
    def sizes(paths: Sequence[str]) -> list[int]:
        return [Path(path).stat().st_size for path in paths]

    @staticmethod
    def modified(path: str) -> datetime:
        return datetime.fromtimestamp(Path(path).stat().st_mtime, tz=UTC)

    @staticmethod
    def pipe_file(path: str, content: bytes, *, mode: str) -> None:
        with new_file(Path(path)) as partial:
            partial.write_bytes(content)
            if mode == "create":
                Path(path).hardlink_to(partial)

    @staticmethod
    def put_file(path: str, target: str) -> None:
        with new_file(Path(target)) as partial:
            shutil.copyfile(path, partial)

    @staticmethod
    def get(paths: Sequence[str], targets: Sequence[str]) -> None:
        for path, target in zip(paths, targets, strict=True):
            shutil.copyfile(path, target)

    @staticmethod
    def rm_file(path: str) -> None:
        Path(path).unlink()

    @staticmethod
    def makedirs(path: str, *, exist_ok: bool) -> None:
        Path(path).mkdir(parents=True, exist_ok=exist_ok)
