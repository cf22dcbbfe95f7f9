"""Another score for a pool: beside those that it has, or as the one that ranks its pairs."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runners.data.build import Build, build_pool
from runners.data.damage import Damage
from runners.data.describe import describe_pool
from runners.data.index import bins_of
from runners.data.pool import Pool, Scorer
from runners.data.scan import Report
from runners.data.shards import facts_of, read_samples, score_of
from runners.data.subset import SUBSET_PREFIX

SCORE_PREFIX = "score:"
"""Column ``score:NAME`` of an index is the score that NAME gave."""

_FIRST = "first"
_OWN = {
    "shards",
    "index.parquet",
    "vocabulary.txt",
    "left-out.parquet",
    "pool.json",
    "evaluation",
    ".scoring",
}


def set_score(pool: Pool, scores: NDArray[np.float32], scorer: Scorer) -> Pool:
    """Makes a score the one that ranks a pool, and bins it anew; older scores stay in columns of their own.

    The shards stay as they are: subsets are read by offset, in longer runs after ``rewrite_shards``.

    Args:
        pool: The pool.
        scores: One a pair in the index's order, higher is better, NaN for none, float32 (pairs,).
        scorer: Who gave them.

    Raises:
        ValueError: If there is not one score a pair, or none at all.
    """
    if scores.shape != (pool.count,):
        raise ValueError(f"{pool.count:,} pairs need one score each; there are {len(scores):,}")
    scores = np.where(np.isfinite(scores), scores, np.nan).astype(np.float32)
    if np.isnan(scores).all():
        raise ValueError(f"{scorer.name} gives no pair of {pool.path} a score")
    index, scorers = pool.index.copy(), dict(pool.scorers)
    if pool.scored and not any(name.startswith(SCORE_PREFIX) for name in pool.columns):
        first = pool.origin.scorer or Scorer(name=_FIRST)
        index[SCORE_PREFIX + first.name] = index["score"]
        scorers[first.name] = first
    index[SCORE_PREFIX + scorer.name] = index["score"] = scores
    index["bin"] = bins_of(scores, index["hash"].to_numpy())
    origin = replace(pool.origin, scorer=scorer)
    describe_pool(pool.path, [index], origin, _left_out(pool), scorers | {scorer.name: scorer})
    return Pool.open(pool.path)


def use_score(pool: Pool, name: str) -> Pool:
    """Ranks a pool by a score that it has already."""
    return set_score(pool, pool.index[SCORE_PREFIX + name].to_numpy(), pool.scorers[name])


def set_subset(pool: Pool, name: str, uids: Path) -> Pool:
    """Names a subset by a file of uids as DataComp gives them: .npy, two unsigned 64-bit integers a pair.

    Raises:
        ValueError: If the file is none of that kind, or no pair of the pool is in it.
    """
    wanted = np.load(uids)
    if wanted.dtype != np.dtype("u8,u8"):
        raise ValueError(f"{uids} holds {wanted.dtype}, not the pairs of u8 that DataComp's subset files do")
    texts = pool.index["uid"] if "uid" in pool.index else pd.Series("", index=pool.index.index)
    known = np.array(
        [(int(uid[:16], 16), int(uid[16:], 16)) if len(uid) == 32 else (0, 0) for uid in texts],  # noqa: PLR2004
        np.dtype("u8,u8"),
    )
    inside = np.isin(known, wanted) & (texts.str.len() == 32).to_numpy()  # noqa: PLR2004 - hexadecimal digits
    if not inside.any():
        raise ValueError(f"none of the {len(wanted):,} uids in {uids} is one of {pool.path}'s")
    index = pool.index.assign(**{SUBSET_PREFIX + name: inside})
    describe_pool(pool.path, [index], pool.origin, _left_out(pool), pool.scorers)
    return Pool.open(pool.path)


def column_scores(pool: Pool, column: str, metadata: Path | None = None) -> NDArray[np.float32]:
    """Takes scores from what is known already: each sample's json or, by uid or key, tables of metadata.

    Args:
        pool: The pool.
        column: The field or column.
        metadata: A parquet file or a folder of them; by default the json in the pool's shards.

    Returns:
        float32 (pairs,), NaN where there is none.
    """
    index = pool.index
    if metadata is not None:
        files = sorted(metadata.glob("*.parquet")) if metadata.is_dir() else [metadata]
        table = pd.concat([pd.read_parquet(file) for file in files])
        by = "uid" if "uid" in table else "key"
        if column not in table or by not in table:
            raise ValueError(f"{metadata} has no column '{column}' and 'uid' or 'key' beside it")
        known = table.drop_duplicates(by).set_index(by)[column]
        return index[by].map(known).to_numpy(np.float32)
    found: dict[tuple[str, str], float] = {}
    for shard in index["shard"].unique():
        for key, members in read_samples(pool.path / shard):
            found[shard, key] = score_of(facts_of(members).get(column))
    pairs = zip(index["shard"], index["key"], strict=True)
    return np.array([found.get(pair, np.nan) for pair in pairs], np.float32)


def rewrite_shards(pool: Pool, *, workers: int, report: Report) -> Pool:
    """Writes a pool's shards anew in the order of its bins; they take the old ones' place at the end.

    Raises:
        ValueError: If the folder holds anything that building a pool does not write: it is the user's.
    """
    others = {each.name for each in pool.path.iterdir()} - _OWN
    if others or {Path(shard).parent.name for shard in pool.index["shard"].unique()} != {"shards"}:
        raise ValueError(
            f"{pool.path} holds what building a pool does not write ({min(others, default='tars')}), "
            f"so it is not written anew; make another one with `data build NEW --from {pool.path}`"
        )
    path, new = pool.path, pool.path.with_name(f".{pool.path.name}.rewritten")
    carry = [
        name for name in pool.columns if name.startswith((SCORE_PREFIX, SUBSET_PREFIX)) or name == "score"
    ]
    shutil.rmtree(new, ignore_errors=True)
    how = Build(source=path, workers=workers, scores=pool.index[["hash", *carry]])
    written = build_pool(new, how, report)
    describe_pool(new, [written.index], pool.origin, _left_out(pool), pool.scorers)
    if (path / "evaluation").is_dir():
        (path / "evaluation").rename(new / "evaluation")
    old = path.with_name(f".{path.name}.old")
    path.rename(old)
    new.rename(path)
    shutil.rmtree(old)
    return Pool.open(path)


def _left_out(pool: Pool) -> list[Damage]:
    path = pool.path / "left-out.parquet"
    rows = pd.read_parquet(path).itertuples(index=False) if path.exists() else ()
    return [Damage(shard=str(row.shard), key=str(row.key), reason=str(row.reason)) for row in rows]
