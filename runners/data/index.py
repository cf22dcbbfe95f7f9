"""The index of a pool: one row a pair, ranked by quality."""

from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runners.data.shards import Entry
from runners.data.words import split_words

BINS = 10
UNSCORED = -1
VOCABULARY_LIMIT = 100_000

DTYPES = {
    "key": "str",
    "shard": "str",
    "offset": "int64",
    "length": "int64",
    "caption": "str",
    "width": "int32",
    "height": "int32",
    "hash": "uint64",
    "score": "float32",
}


def index_of(entries: Iterable[Entry]) -> pd.DataFrame:
    """Makes the index: the columns of ``Entry``, and ``bin`` (int8).

    Bins are deciles by exact rank of the score, 0 the best tenth; -1 for a pair without a score.
    """
    rows = list(entries)
    columns = {name: [getattr(row, name) for row in rows] for name in DTYPES}
    index = pd.DataFrame({name: pd.Series(values, dtype=DTYPES[name]) for name, values in columns.items()})
    index["bin"] = bins_of(index["score"].to_numpy(), index["hash"].to_numpy())
    return index


def by_quality(score: NDArray[np.float32], content: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Rows from the best score to the worst, ties by hash; rows without a score (NaN) last."""
    return np.lexsort((content, np.where(np.isnan(score), np.inf, -score)))


def bins_of(score: NDArray[np.float32], content: NDArray[np.uint64]) -> NDArray[np.int8]:
    """Deciles by rank: of ``n`` rows, rank ``r`` (from 0) is in bin ``10 r // n``; -1 without a score."""
    bins = np.empty(len(score), np.int8)
    bins[by_quality(score, content)] = np.arange(len(score)) * BINS // max(len(score), 1)
    bins[np.isnan(score)] = UNSCORED
    return bins


def fingerprint_of(index: pd.DataFrame) -> str:
    """A hash over every row's content, score and place: the same for the same pool, wherever it lies."""
    digest = blake2b(digest_size=16)
    for column in ("hash", "score", "bin"):
        digest.update(np.ascontiguousarray(index[column].to_numpy()).tobytes())
    return digest.hexdigest()


def vocabulary_of(captions: Iterable[str]) -> list[str]:
    """The captions' words by falling frequency, then by alphabet; the 100,000 most frequent at most."""
    counts = Counter(word for caption in captions for word in split_words(caption))
    return sorted(counts, key=lambda word: (-counts[word], word))[:VOCABULARY_LIMIT]
