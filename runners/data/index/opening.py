"""Opening of a pool's index, in parts or in the one file of format 1."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from runners.data.index.parts import GROUPS_PER_PART, Index, Part
from runners.data.index.writing import read_manifest
from runners.data.places.copies import SHARDS_AT, copied_from


def in_parts(path: Path, facts: Mapping[str, Any]) -> Index:
    """Return the index of a pool.

    Args:
        path: The pool's folder.
        facts: Its ``pool.json``.

    Raises:
        ValueError: The manifest is missing or damaged.
    """
    return Index(
        path,
        read_manifest(path / facts["manifest"]),
        facts["columns"],
        added=dict(sorted(facts["added"].items(), key=lambda each: (len(each[1]), each[1]))),  # oldest first
        named=facts["named"],
        url=copied_from(path) or facts["provenance"].get(SHARDS_AT, ""),
    )


def in_one_file(path: Path, facts: Mapping[str, Any]) -> Index:
    """Return the index of a pool of format 1: its row groups, some at a time, as parts of one file."""
    try:
        file = pq.ParquetFile(path / "index.parquet")
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"the index of pool {path} can't be read: {error}") from error
    rows = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    columns = [name for name in file.schema_arrow.names if name != "bin"]
    parts = [
        Part(
            file="index",
            group_rows=tuple(rows[start : start + GROUPS_PER_PART]),
            first_group=start,
            shards={} if start else facts["shards"],
        )
        for start in range(0, len(rows), GROUPS_PER_PART)
    ]
    return Index(path, parts, columns)
