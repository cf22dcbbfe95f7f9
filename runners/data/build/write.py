"""Writing of a new pool in (quality bin, hash) order, so that subsets are runs of whole prefixes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runners.data.build.in_place import SCORE_FIELD
from runners.data.index.selection import bins_of
from runners.data.index.writing import write_parts
from runners.data.pool.describe import describe_pool
from runners.data.pool.pool import Origin
from runners.data.pool.shards import (
    PairEntry,
    close_shard,
    content_hash,
    encode_image,
    frame_of,
    write_sample,
)

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
    scores = np.where(np.isfinite(scores), scores, np.nan).astype(np.float32)
    every = (pairs[place] for place in range(len(pairs)))
    hashes = np.array([content_hash(encode_image(pair.image), pair.caption) for pair in every], np.uint64)
    order = np.lexsort((hashes, bins_of(scores, hashes)))
    (folder / "shards").mkdir()
    entries: list[PairEntry] = []
    for start in range(0, len(order), PAIRS_PER_SHARD):
        shard = f"shards/{start // PAIRS_PER_SHARD:05d}.tar"
        with (folder / shard).open("wb") as file:
            for row in order[start : start + PAIRS_PER_SHARD]:
                place = f"{len(entries):09d}"
                entries.append(_write_pair(file, shard, place, pairs[row], float(scores[row])))
            close_shard(file)
    describe_pool(folder, write_parts(folder, frame_of(entries)), origin)


def _write_pair(file: IO[bytes], shard: str, key: str, pair: ImageText, score: float) -> PairEntry:
    image = encode_image(pair.image)
    height, width = pair.image.shape[:2]
    facts = {"key": key, "caption": pair.caption, "width": width, "height": height, **pair.facts}
    if not np.isnan(score):
        facts[SCORE_FIELD] = score
    members = {"png": image, "txt": pair.caption.encode(), "json": json.dumps(facts).encode()}
    return PairEntry(
        key=key,
        shard=shard,
        offset=write_sample(file, key, members)["png"],
        length=len(image),
        caption=pair.caption,
        width=width,
        height=height,
        hash=content_hash(image, pair.caption),
        score=score,
    )
