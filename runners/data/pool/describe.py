"""Description of a pool: the manifest of its index, the vocabulary, left-out samples, ``pool.json``.

``pool.json`` names all other files and is replaced last. No later description changes these files, so a
killed process leaves either the old or the new version of the pool.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from runners.data.index.merge import most_frequent
from runners.data.index.parts import SCORE, Index
from runners.data.index.selection import SCORE_PREFIX, bins, count_scored
from runners.data.index.writing import VERSIONS, read_part, write_manifest
from runners.data.pool.damage import damage_table
from runners.data.pool.pool import FORMAT, Pool, PoolScore, Scorer
from runners.data.pool.tokenizer import VOCABULARY_LIMIT
from runners.store.files import new_file
from runners.store.location import Location
from runners.store.shard_reader import ShardReader

_RANGE = r"bytes [\d,]+ to [\d,]+ are (\w+).*"
_MATCH = r"^(.*an evaluation set): .*"
_RANGES = r"a range of bytes is \1, with an unknown number of samples"


def describe_pool(  # noqa: PLR0913 - the parts of a description
    pool: Pool,
    files: Sequence[str],
    left_out: Iterable[pd.DataFrame] = (),
    *,
    shards: Iterable[str] = (),
    sizes: Mapping[str, int] | None = None,
    sources: str = "",
    scorer: Scorer | None = None,
) -> None:
    """Describe a new version of a pool, whose parts have been written.

    ``pool`` is the version that they are added to, whose facts are then kept in ``versions/``, or a new pool
    without pairs. ``files`` are the new parts of the index in order, ``left_out`` tables of shard, key and
    reason, ``shards`` those that were read, including those without pairs, ``sizes`` the bytes of shards that
    are not in the folder. ``scorer`` is that of the new pairs' score, in the column of its name.
    """
    folder, new = pool.path, [read_part(pool.path, file) for file in files]
    assert new or pool.count, "a pool has pairs"
    with_pairs = {shard: None for part, _ in new for shard in part.shards}
    without = [shard for shard in shards if shard not in with_pairs]
    known = sizes or ShardReader(Location(folder)).sizes([*with_pairs, *without])
    parts = [*pool.index.parts, *(part.sized(known) for part, _ in new)]
    parts[-1] = replace(parts[-1], shards={**parts[-1].shards, **{shard: known[shard] for shard in without}})
    stored = dict.fromkeys(chain(pool.index.stored, *(columns for _, columns in new)))
    index = replace(pool.index, parts=parts, stored=[*stored])
    # Names that no version of the pool has.
    mark = f"-{2 + len(list((folder / VERSIONS).glob('*.json')))}" if pool.count else ""
    vocabulary, name = f"vocabulary{mark}.txt", f"left-out{mark}.parquet"
    words = most_frequent([folder / f"{part.file}.words.parquet" for part in index.parts], VOCABULARY_LIMIT)
    with new_file(folder / vocabulary) as file:
        file.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    reasons = Counter(pool.left_out)
    any_left_out = _write_left_out(folder / name, left_out, reasons)
    scorers = {scorer.name: scorer} if scorer else {}
    scorers |= {name: score.scorer for name, score in pool.scores.items()}
    scores = {name: score for name, of in scorers.items() if (score := score_of_column(index, of)).pairs}
    ranked_by = pool.ranked_by or next(iter(scores), "")
    if pool.count:
        (folder / VERSIONS).mkdir(exist_ok=True)
        with new_file(folder / VERSIONS / f"{pool.unranked}.json") as file:
            file.write_bytes((folder / "pool.json").read_bytes())
    write_facts(
        replace(
            pool,
            index=index,
            unranked=scores[ranked_by].fingerprint if scores else _fingerprint(index, SCORE),
            scores=scores,
            ranked_by=ranked_by,
            vocabulary_file=vocabulary,
            left_out_files=(*pool.left_out_files, *((name,) if any_left_out else ())),
            left_out=dict(reasons.most_common()),
            sources=sources or pool.sources,
        )
    )


def write_facts(pool: Pool) -> None:
    """Write a pool's manifest and ``pool.json``, which makes it the present version."""
    facts = {
        "format": FORMAT,
        "name": pool.name,
        "provenance": pool.provenance,
        "count": pool.count,
        "unranked": pool.unranked,
        "scores": {name: asdict(score) for name, score in pool.scores.items()},
        "ranked_by": pool.ranked_by,
        "left_out": dict(pool.left_out),
        "left_out_files": pool.left_out_files,
        "subsets": dict(pool.subsets),
        "data_columns": {name: asdict(column) for name, column in pool.columns.items()},
        "vocabulary": pool.vocabulary_file,
        "sources": pool.sources,
        "manifest": write_manifest(pool.path, pool.index.parts),
        "columns": pool.index.stored,
        "added": pool.index.added,
    }
    with new_file(pool.path / "pool.json") as file:
        file.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def score_of_column(index: Index, scorer: Scorer) -> PoolScore:
    """Return the score of a scorer, from the column of its name."""
    column = SCORE_PREFIX + scorer.name
    return PoolScore(
        scorer=scorer, fingerprint=_fingerprint(index, column), pairs=count_scored(index, column)
    )


def _fingerprint(index: Index, column: str) -> str:
    """Return a pool's fingerprint in the order of a column of scores.

    It is a hash of content, score and tenth of every row, so copies of a pool have the same one.
    """
    digest = blake2b(digest_size=16)
    for chunk in index.chunks("hash"):
        digest.update(np.ascontiguousarray(chunk).tobytes())
    for chunk in index.chunks(column):
        digest.update(np.ascontiguousarray(chunk, np.float32).tobytes())
    for tenths in bins(index, column):
        digest.update(tenths.tobytes())
    return digest.hexdigest()


def _write_left_out(path: Path, tables: Iterable[pd.DataFrame], reasons: Counter[str]) -> bool:
    """Write the samples that are not pairs, count them by reason, and return whether there are any."""
    schema = pa.Schema.from_pandas(damage_table([]), preserve_index=False)
    count = 0
    with new_file(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for table in tables:
            writer.write_table(pa.Table.from_pandas(table, schema, preserve_index=False))
            # Ranges of bytes and images of evaluation sets differ, but are the same kind of reason.
            kinds = table["reason"].str.replace(_RANGE, _RANGES, regex=True)
            reasons.update(kinds.str.replace(_MATCH, r"\1", regex=True).tolist())
            count += len(table)
    if not count:
        path.unlink()
    return count > 0
