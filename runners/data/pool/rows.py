"""The rows of a pool's index, and their order by quality, in memory."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runners.data.index.selection import BINS
from runners.data.index.words import split_words
from runners.data.pool.shards import PairEntry
from runners.data.pool.tokenizer import caption_tokens

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
    "uid": "str",
}


def frame_of(entries: Iterable[PairEntry]) -> pd.DataFrame:
    """Build the index: the columns of ``PairEntry``, and ``tokens`` (int16).

    ``tokens`` is the caption's length in CLIP's byte-pair encoding, without start and end token.
    """
    rows = list(entries)
    columns = {name: [getattr(row, name) for row in rows] for name in DTYPES}
    frame = pd.DataFrame({name: pd.Series(values, dtype=DTYPES[name]) for name, values in columns.items()})
    return frame.assign(tokens=caption_tokens(columns["caption"]))


def bins_of(score: NDArray[np.float32], content: NDArray[np.uint64]) -> NDArray[np.int8]:
    """Return deciles by rank: rank ``r`` (from 0) of ``n`` is in bin ``10 r // n``; -1 without a score.

    `runners.data.index.selection.bins` does the same for an index of any size.
    """
    bins = np.empty(len(score), np.int8)
    # From the best score to the worst, ties by hash; rows without a score (NaN) last.
    order = np.lexsort((content, np.where(np.isnan(score), np.inf, -score)))
    bins[order] = np.arange(len(score)) * BINS // max(len(score), 1)
    bins[np.isnan(score)] = -1
    return bins


def vocabulary_of(captions: Iterable[str]) -> list[str]:
    """Return the captions' words by falling frequency, then alphabetically; at most 100,000."""
    counts = Counter(word for caption in captions for word in split_words(caption))
    return sorted(counts, key=lambda word: (-counts[word], word))[:VOCABULARY_LIMIT]
