"""Second step of a build: what the scan found is divided into pairs and samples that are left out.

Duplicates are left out, which DuckDB finds among all pairs, and what the scan has a reason for.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from runners.data.build.build import Build, PoolFolders
from runners.data.index.merge import find_duplicates
from runners.data.index.parts import ROWS_PER_GROUP, ROWS_PER_PART
from runners.data.index.selection import SCORE_PREFIX
from runners.data.pool.pool import Pool


def keep_pairs(names: Sequence[str], how: Build, folders: PoolFolders, before: Pool | None) -> dict[str, int]:
    """Write the pairs of the scan's tables, in their order, as tables of about `ROWS_PER_PART` pairs.

    Return the names of those that are not empty, and their number of pairs. What is left out is written
    beside them, for `left_out_of`.
    """
    shared, work, kept = folders.shared, f"{folders.work}kept/", dict[str, int]()
    shared.delete(work)
    files, duplicates = [shared.path / name for name in names], shared.file(f"{work}duplicates")
    find_duplicates(files, before.index.files if before else (), duplicates)
    counts = [pq.read_metadata(file).num_rows for file in files]
    starts = np.cumsum([0, *counts])
    score = _column_of_scores(how, before)
    for number, group in enumerate(groups_of(counts)):
        within = [("part", ">=", group.start), ("part", "<", group.stop)]
        repeated = pq.read_table(duplicates, filters=within).to_pandas()
        some = [pq.read_table(files[place]) for place in group]
        samples, name = pa.concat_tables(some, promote_options="permissive"), f"{work}{number:05d}"
        left_out = samples.select(["shard", "key", "reason"]).to_pandas().astype("str")
        again = left_out.index.isin(starts[repeated["part"]] - starts[group.start] + repeated["row"])
        left_out.loc[again & (left_out["reason"] == ""), "reason"] = "duplicate"
        is_pair = left_out["reason"] == ""
        pairs = samples.filter(pa.array(is_pair))
        if score != "score":
            pairs = pairs.rename_columns([score if each == "score" else each for each in pairs.column_names])
            pairs = pairs.append_column("score", pa.array(np.full(len(pairs), np.nan, np.float32)))
        left_out[~is_pair].to_parquet(shared.file(f"{name}.left-out"), index=False)
        if len(pairs):
            # Small row groups: DuckDB holds several of them while it sorts.
            pq.write_table(pairs, shared.file(f"{name}.parquet"), row_group_size=ROWS_PER_GROUP)
            kept[f"{name}.parquet"] = len(pairs)
    return kept


def left_out_of(folders: PoolFolders) -> Iterator[pd.DataFrame]:
    """Yield what `keep_pairs` left out, in the order of the source."""
    for file in sorted((folders.shared.path / folders.work).glob("kept/*.left-out")):
        yield pd.read_parquet(file).astype("str")


def groups_of(counts: Iterable[int]) -> list[range]:
    """Return the tables that become one part each, given the number of pairs in every table."""
    starts = np.cumsum([0, *counts])
    _, firsts = np.unique(starts[:-1] // ROWS_PER_PART, return_index=True)
    return [range(*ends) for ends in pairwise([*firsts.tolist(), len(starts) - 1])]


def own_score(pool: Pool) -> str:
    """Return the column of the score that a pool's shards had when they were indexed; empty if replaced."""
    named, scorer = pool.index.named, pool.origin.scorer
    in_force = SCORE_PREFIX + scorer.name if scorer and "score" not in named else ""
    return next((name for name, column in named.items() if column == "score"), in_force)


def _column_of_scores(how: Build, before: Pool | None) -> str:
    """Return the index's column for scores of the source.

    It is ``score`` unless the pool is ranked by another scorer, whose scores then are in that column.
    """
    source = SCORE_PREFIX + how.columns.score
    # A given score of the source's name hides the source's, also those of new pairs.
    if before is None or before.origin.scorer is None or source in {own_score(before), *before.index.added}:
        return "score"
    return source
