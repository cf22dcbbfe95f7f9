"""Tables of scores and hashes as indices of pools, in parts or in one file."""

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from runners.data.index.parts import Index, Part
from runners.data.index.selection import select
from runners.data.index.writing import read_part
from runners.data.pool.pool import Pool


def in_parts(frame: pd.DataFrame, rows: int = 300, group: int = 100) -> Index:
    """Return the frame as an index of several parts of several row groups, with histograms."""
    folder = Path(mkdtemp())
    parts = []
    for number, start in enumerate(range(0, len(frame), rows)):
        some = frame.iloc[start : start + rows].assign(shard=f"{number}.tar")
        some.to_parquet(folder / f"{number}.parquet", row_group_size=group, index=False)
        parts.append(read_part(folder, str(number))[0])
    return Index(folder, parts, list(frame.columns))


def in_one_file(frame: pd.DataFrame, group: int = 100) -> Index:
    """Return the frame as the index of a pool of format 1, two row groups at a time."""
    folder = Path(mkdtemp())
    frame.to_parquet(folder / "index.parquet", row_group_size=group, index=False)
    facts = pq.read_metadata(folder / "index.parquet")
    sizes = [facts.row_group(number).num_rows for number in range(facts.num_row_groups)]
    parts = [
        Part(file="index", group_rows=some, first_group=2 * number)
        for number, some in enumerate(sizes[place : place + 2] for place in range(0, len(sizes), 2))
    ]
    return Index(folder, parts, list(frame.columns))


def rows_of(frame: pd.DataFrame, *, size: int | None, quality: str) -> NDArray[np.int64]:
    """Return the rows of a subset of a table."""
    return select(in_parts(frame), size=size, quality=quality).rows()


def column(pool: Pool, name: str) -> NDArray[Any]:
    """Return a whole column of numbers of a pool's index."""
    return np.concatenate([*pool.index.chunks(name)])
