"""Description files of a pool: the index, the vocabulary, left-out samples, ``pool.json``."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from runners.data.places.place import FolderPlace
from runners.data.pool.index import bins_of, vocabulary_of_counts
from runners.data.pool.pool import FORMAT, Origin, Scorer
from runners.data.pool.subset import SCORE_PREFIX
from runners.data.pool.words import split_words
from runners.host.files import new_files

_RANGE = r"bytes [\d,]+ to [\d,]+ (are \w+)"

# Small groups, so that reading a window of a large pool reads little else.
_ROWS_PER_GROUP = 16_384


def describe_pool(  # noqa: PLR0913 - the parts of a description
    folder: Path,
    parts: Iterable[pd.DataFrame],
    origin: Origin,
    left_out: pd.DataFrame,
    scorers: Mapping[str, Scorer] | None = None,
    *,
    shards: Iterable[str] = (),
    sizes: Mapping[str, int] | None = None,
    unranked: str = "",
) -> None:
    """Write all description files atomically; they replace the former ones.

    Args:
        folder: The pool's folder.
        parts: The index in its order, in parts that fit into memory.
        origin: Origin to record.
        left_out: Samples that are not pairs: shard, key and reason.
        scorers: Name → scorer of each score that has a column of its own.
        shards: Shards that were read, including those without pairs; the others follow from the index.
        sizes: Shard → its bytes, of shards that are not in the folder.
        unranked: Fingerprint of the same pairs in the same order before they got further scores.
    """
    words, known = Counter[str](), dict.fromkeys(shards)
    ranks: dict[str, list[np.ndarray]] = defaultdict(list)
    with new_files(folder) as new:
        writer = None
        for part in _joined(parts):
            table = pa.Table.from_pandas(part, writer and writer.schema, preserve_index=False)
            writer = writer or pq.ParquetWriter(new / "index.parquet", table.schema)
            writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
            for caption in part["caption"]:
                words.update(split_words(caption))
            known |= dict.fromkeys(part["shard"].unique())
            for name in (
                "hash",
                "score",
                "bin",
                *(each for each in map(str, part) if each.startswith(SCORE_PREFIX)),
            ):
                ranks[name].append(part[name].to_numpy())
        assert writer is not None, "a pool has pairs"
        writer.close()
        fingerprint = _fingerprint(ranks["hash"], ranks["score"], ranks["bin"])
        rankings = {
            name.removeprefix(SCORE_PREFIX): {
                "fingerprint": _fingerprint(ranks["hash"], scores, [_bins(scores, ranks["hash"])]),
                "scored_pairs": _count_scored(scores),
            }
            for name, scores in ranks.items()
            if name.startswith(SCORE_PREFIX)
        }
        if origin.scorer and origin.scorer.name not in rankings:
            own = {"fingerprint": fingerprint, "scored_pairs": _count_scored(ranks["score"])}
            rankings[origin.scorer.name] = own
        if len(left_out):
            left_out.to_parquet(new / "left-out.parquet", index=False)
        else:
            (folder / "left-out.parquet").unlink(missing_ok=True)
        vocabulary = "".join(f"{word}\n" for word in vocabulary_of_counts(words))
        (new / "vocabulary.txt").write_text(vocabulary, encoding="utf-8")
        scored = _count_scored(ranks["score"])
        facts = {
            "format": FORMAT,
            **asdict(origin),
            "count": sum(map(len, ranks["hash"])),
            "scored": scored > 0,
            "scored_pairs": scored,
            "fingerprint": fingerprint,
            "unranked": unranked or fingerprint,
            "rankings": rankings,
            "left_out": {
                # Ranges of bytes differ, but are the same kind of damage.
                str(reason): int(count)
                for reason, count in left_out["reason"]
                .str.replace(_RANGE, r"\1", regex=True)
                .value_counts()
                .items()
            },
            "scorers": {name: asdict(scorer) for name, scorer in (scorers or {}).items()},
            "shards": {shard: sizes[shard] for shard in known}
            if sizes
            else FolderPlace(folder).sizes(list(known)),
        }
        (new / "pool.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _fingerprint(*columns: Sequence[np.ndarray]) -> str:
    """Hash content, score and position of every row: the same for the same pool at any location."""
    digest = blake2b(digest_size=16)
    for parts in columns:
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _bins(scores: Sequence[np.ndarray], hashes: Sequence[np.ndarray]) -> np.ndarray:
    return bins_of(np.concatenate(scores).astype(np.float32), np.concatenate(hashes))


def _count_scored(scores: Sequence[np.ndarray]) -> int:
    return sum(int(np.isfinite(each).sum()) for each in scores)


def _joined(parts: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Join small parts until each fills a row group."""
    waiting: list[pd.DataFrame] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= _ROWS_PER_GROUP:
            yield pd.concat(waiting, ignore_index=True)
            waiting.clear()
    if waiting:
        yield pd.concat(waiting, ignore_index=True)
