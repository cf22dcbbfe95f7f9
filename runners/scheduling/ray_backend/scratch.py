"""Where Ray Train and Tune write what nobody reads: in memory, so that a killed driver leaves no folder."""

from typing import Any

import fsspec
from pyarrow.fs import FSSpecHandler, PyFileSystem


def in_memory(name: str) -> dict[str, Any]:
    """Return the storage of a ``RunConfig``; each process that opens it has its own."""
    memory = PyFileSystem(FSSpecHandler(fsspec.filesystem("memory")))
    return {"storage_path": name, "storage_filesystem": memory}
