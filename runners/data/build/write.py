"""Writing of a new pool from pairs in memory, best first, so that subsets are runs of whole prefixes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runners.data.build.in_place import SCORE_FIELD
from runners.data.build.new_shards import write_pairs
from runners.data.index.selection import bins_of
from runners.data.index.writing import write_parts
from runners.data.pool.describe import describe_pool
from runners.data.pool.pool import Origin
from runners.data.pool.shards import PairEntry, close_shard, content_hash, encode_image, frame_of

PAIRS_PER_SHARD = 4096


class ImageText(Protocol):
    """Properties of a pair that ``fill_pool`` needs."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """Array of shape (height, width, 3), RGB."""

    @property
    def caption(self) -> str:
        """The caption, on one line."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Additional fields of the pair's json."""


class PairSource(Protocol):
    """A sequence of pairs, possibly generated on request."""

    def __len__(self) -> int:
        """Return the number of pairs."""

    def __getitem__(self, index: int, /) -> ImageText:
        """Return the pair at an index."""


def fill_pool(folder: Path, pairs: PairSource, scores: NDArray[np.float32] | None, origin: Origin) -> None:
    """Write a new pool, best pairs first, into an empty folder that the caller moves to its final path.

    Scores are one per pair, higher is better, shape (pairs,). Each pair is requested twice, so a lazy
    sequence keeps memory small.

    Raises:
        ValueError: There are no pairs, or the number of scores is not that of the pairs.
    """
    if scores is None:
        scores = np.full(len(pairs), np.nan, np.float32)
    if len(pairs) == 0 or scores.shape != (len(pairs),):
        raise ValueError(
            f"a pool needs pairs, one score each; found {len(pairs)} pairs, scores of shape {scores.shape}"
        )
    finite = [float(score) if np.isfinite(score) else np.nan for score in scores]
    described = [_described(pairs[place], score) for place, score in enumerate(finite)]
    frame = frame_of(entry for entry, _ in described).assign(
        kind="png", facts=[facts for _, facts in described]
    )
    frame = frame.iloc[
        np.lexsort((frame["hash"], bins_of(frame["score"].to_numpy(), frame["hash"].to_numpy())))
    ]
    (folder / "shards").mkdir()
    written = []
    for start in range(0, len(frame), PAIRS_PER_SHARD):
        rows, name = frame[start : start + PAIRS_PER_SHARD], f"shards/{start // PAIRS_PER_SHARD:05d}.tar"
        images = (encode_image(pairs[place].image) for place in rows.index)
        with (folder / name).open("wb") as file:
            written.append(write_pairs(file, rows, images, start).assign(shard=name))
            close_shard(file)
    index = pd.concat(written, ignore_index=True).drop(columns=["kind", "facts"])
    describe_pool(folder, write_parts(folder, index), origin)


def _described(pair: ImageText, score: float) -> tuple[PairEntry, str]:
    """Return a pair's entry, which has no place yet, and the other fields of its json."""
    image = encode_image(pair.image)
    height, width = pair.image.shape[:2]
    facts = pair.facts if np.isnan(score) else {**pair.facts, SCORE_FIELD: score}
    entry = PairEntry(
        key="", shard="", offset=0, length=len(image), caption=pair.caption, width=width, height=height,
        hash=content_hash(image, pair.caption), score=score,
    )  # fmt: skip
    return entry, json.dumps(facts)
