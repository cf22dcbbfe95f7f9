"""Writing what stands beside a pool's shards: the index, the vocabulary, what was left out, ``pool.json``."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from runners.data.damage import Damage, by_reason
from runners.data.index import vocabulary_of_counts
from runners.data.pool import FORMAT, Origin, Scorer
from runners.data.words import split_words
from runners.files import new_file

# Small, so that reading a window of a large pool reads little else.
_ROWS_PER_GROUP = 16_384


def describe_pool(
    folder: Path,
    parts: Iterable[pd.DataFrame],
    origin: Origin,
    left_out: Sequence[Damage],
    scorers: Mapping[str, Scorer] | None = None,
) -> None:
    """Writes what stands beside the shards, ``pool.json`` last.

    Args:
        folder: The pool's.
        parts: The index in its order, in parts that fit into memory.
        origin: What to record.
        left_out: Samples that are no pairs.
        scorers: Who gave each score that stands in a column of its own.
    """
    words, shards = Counter[str](), dict[str, None]()
    ranks: dict[str, list[np.ndarray]] = {"hash": [], "score": [], "bin": []}
    with new_file(folder / "index.parquet") as file:
        writer = None
        for part in parts:
            table = pa.Table.from_pandas(part, preserve_index=False)
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
            for caption in part["caption"]:
                words.update(split_words(caption))
            shards |= dict.fromkeys(part["shard"].unique())
            for name, values in ranks.items():
                values.append(part[name].to_numpy())
        assert writer is not None, "a pool has pairs"
        writer.close()
    # Over every row's content, score and place: the same for the same pool, wherever it lies.
    digest = blake2b(digest_size=16)
    for values in ranks.values():
        for each in values:
            digest.update(np.ascontiguousarray(each).tobytes())
    if left_out:
        with new_file(folder / "left-out.parquet") as file:
            pd.DataFrame([asdict(each) for each in left_out]).to_parquet(file, index=False)
    with new_file(folder / "vocabulary.txt") as file:
        file.write_text("".join(f"{word}\n" for word in vocabulary_of_counts(words)), encoding="utf-8")
    facts = {
        "format": FORMAT,
        **asdict(origin),
        "count": sum(map(len, ranks["hash"])),
        "scored": any(bool(np.isfinite(each).any()) for each in ranks["score"]),
        "fingerprint": digest.hexdigest(),
        "left_out": by_reason(left_out),
        "scorers": {name: asdict(scorer) for name, scorer in (scorers or {}).items()},
        "shards": {shard: (folder / shard).stat().st_size for shard in shards},
    }
    with new_file(folder / "pool.json") as file:
        file.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
