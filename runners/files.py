"""Files and folders that appear whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a folder beside ``path`` to fill; at the end it becomes ``path``, after an error it is removed.

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
    """Gives a file name beside ``path`` to write to; at the end that file takes the place of ``path``."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        put(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def put(written: Path, path: Path) -> None:
    """Gives a written file its name for good: it is whole wherever it is found, after a power cut too."""
    _sync(written)
    written.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Writes one JSON object whole or not at all."""
    with new_file(path) as file:
        file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
