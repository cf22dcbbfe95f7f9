"""Tables of scores and hashes, and folders of tars, as indices of pools."""

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.known_scores import json_facts
from runners.data.index.parts import Index
from runners.data.index.selection import select
from runners.data.index.writing import read_part
from runners.data.pool.pool import Pool
from runners.host.workers import Processes
from runners.store.shared_folder import SharedFolder


def in_parts(frame: pd.DataFrame, rows: int = 300, group: int = 100) -> Index:
    """Return the frame as an index of several parts of several row groups, with histograms."""
    folder = Path(mkdtemp())
    parts = []
    for number, start in enumerate(range(0, len(frame), rows)):
        some = frame.iloc[start : start + rows].assign(shard=f"{number}.tar")
        some.to_parquet(folder / f"{number}.parquet", row_group_size=group, index=False)
        parts.append(read_part(folder, str(number))[0])
    return Index(folder, parts, list(frame.columns))


def rows_of(frame: pd.DataFrame, *, size: int | None, quality: str) -> NDArray[np.int64]:
    """Return the rows of a subset of a table."""
    return select(in_parts(frame), size=size, quality=quality).rows()


def indexed(folder: Path) -> Pool:
    """Index a folder of tars in place, and return the pool."""
    return build_pool(folder, Build(source=folder, in_place=True), lambda *_: None)


def column(pool: Pool, name: str) -> NDArray[Any]:
    """Return a whole column of numbers of a pool's index."""
    return np.concatenate([*pool.index.chunks(name)])


def field(pool: Pool, name: str) -> NDArray[np.float32]:
    """Return a field of the samples' json as a score of each pair."""
    facts = json_facts(pool, Processes(), lambda *_: None, SharedFolder(path=pool.path), [name])
    return np.concatenate([*facts.numbers(name)])
