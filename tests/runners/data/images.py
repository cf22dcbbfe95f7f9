"""Pools of given pairs, and images of a pool's rows, for tests that compare them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runners.data.pool.pool import Pool, Scorer
from runners.data.pool.reader import READ_COLUMNS, decode_rows
from runners.data.pool.shards import encode_image
from runners.embedded.embedded_pool import TrainingPairs, fill_pool
from runners.embedded.pair import Pair
from runners.store.files import new_folder


def read_images(
    pool: Pool, rows: NDArray[np.int64], image_size: int, *, threads: int = 1
) -> NDArray[np.uint8]:
    """Decode images of a pool; a damaged one is an error that names its shard and key."""
    images, damage = decode_rows(pool, pool.index.rows(rows, READ_COLUMNS), image_size, threads)
    for each in damage.values():
        raise ValueError(
            f"cannot decode image {each.key} of shard {pool.place.path(each.shard)}: {each.reason}"
        )
    return images


def members_of(pair: Pair, facts: Mapping[str, object]) -> dict[str, bytes]:
    """Return the members of a pair's sample: file ending → content."""
    return {
        "png": encode_image(pair.image),
        "txt": pair.caption.encode(),
        "json": json.dumps(facts).encode(),
    }


def captions(pool: Pool, rows: NDArray[np.int64]) -> list[str]:
    """Return the captions of rows of a pool's index, in their order."""
    texts: list[str] = pool.index.rows(rows, ("caption",))["caption"].tolist()
    return texts


def write_pool(
    path: Path,
    pairs: Sequence[Pair] | TrainingPairs,
    scores: NDArray[np.float32] | None,
    scorer: Scorer | None = None,
    provenance: Mapping[str, object] | None = None,
) -> Pool:
    """Write a new pool, named after its folder."""
    with new_folder(path) as folder:
        fill_pool(Pool.without_pairs(folder, path.name, provenance), pairs, scores, scorer)
    return Pool.open(path)
