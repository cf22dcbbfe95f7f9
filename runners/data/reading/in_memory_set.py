"""Pairs of a trial that are decoded before training, into the machine's cache or into memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from budgets.cost.strategy import Batch
from runners.data.pool.damage import Damage, check_tolerance
from runners.data.pool.decoded import Images, decoded_images
from runners.data.pool.pool import Pool
from runners.data.pool.reader import READ_COLUMNS, decode_rows
from runners.data.reading.order import positions, stretches
from runners.data.reading.training_data import (
    Batches,
    Empty,
    Source,
    Tokens,
    TrainingData,
    column_tensors,
    rank_slice,
)
from runners.store.cache import local_cache

IN_MEMORY_BYTES = 8 * 2**30
"""Decoded size above which a subset is streamed; fixed, because the order of samples depends on it."""

_DECODED_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class InMemory:
    """A pool's part of the pairs; ``images``, uint8 (N, 3, S, S), may hold others, or fewer where damaged."""

    images: Tensor
    tokens: Tensor  # ids, int64 (subset, context length)
    rows: Tensor | None = None  # each row's image, int64 (subset,); by default the row itself
    places: Tensor | None = None  # each row's place in the subset, int64 (subset,); by default the row itself
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    share: int = 1
    damage: Sequence[Damage] = ()  # the pairs that were replaced by others


@dataclass(frozen=True, kw_only=True, slots=True)
class InMemorySet(TrainingData):
    """Pairs in memory, those of each pool shuffled as a whole; each rank has read, and judged, them all."""

    parts: Sequence[InMemory]

    def batches(
        self, *, seed: int, batch_size: int, first_step: int, steps: int, empty: Empty = torch.empty
    ) -> Batches:
        """Yield this rank's pairs of each step."""
        mine = rank_slice(batch_size, self.rank, self.ranks)
        shares, before = [part.share for part in self.parts], 0
        held = list[dict[str, Tensor]]()
        for part in self.parts:
            ids = torch.arange(len(part.tokens)) if part.places is None else part.places
            held.append({"tokens": part.tokens, "ids": ids + before, **part.columns})
            before += len(ids)
        first = self.parts[0]
        for start in range(first_step * batch_size, steps * batch_size, batch_size):
            images = empty(mine.stop - mine.start, *first.images.shape[1:], dtype=torch.uint8)
            batch = {
                name: column.new_empty(len(images), *column.shape[1:]) for name, column in held[0].items()
            }
            every = stretches(seed=seed, shares=shares, start=start, stop=start + batch_size)
            for part, columns, own in zip(self.parts, held, every, strict=True):
                inside = slice(*np.searchsorted(own.places, [mine.start, mine.stop]))
                order = positions(seed=own.seed, count=len(part.tokens), start=own.start, stop=own.stop)
                rows, places = torch.from_numpy(order[inside]), own.places[inside] - mine.start
                chosen = rows if part.rows is None else part.rows[rows]
                if len(rows) == len(images):  # at once where they belong
                    torch.index_select(part.images, 0, chosen, out=images)
                else:
                    images[places] = part.images[chosen]
                for name, column in columns.items():
                    batch[name][places] = column[rows]
            yield Batch(images=images, tokens=batch.pop("tokens"), ids=batch.pop("ids"), columns=batch)


def decode(  # noqa: PLR0913 - as `open_data`
    source: Source,
    image_size: int,
    tokens: Tokens,
    threads: int,
    tolerance: float,
    *,
    columns: Sequence[str] = (),
) -> InMemory:
    """Decode a pool, or of a large one the pairs of the source; all trials of a machine share the images.

    Without room in the cache, they are decoded into this process's memory.
    """
    pool, rows = source.pool, source.rows[np.arange(len(source.rows))]
    places = np.arange(len(rows))
    decoded, which = rows, blake2b(rows.tobytes(), digest_size=16).hexdigest()
    if pool.count * 3 * image_size**2 <= IN_MEMORY_BYTES:
        decoded, places, which = np.arange(pool.count), rows, "all"
    # The versions of the shards change when one is damaged or repaired.
    identity = f"{pool.fingerprint} {which} {pool.place.versions(list(pool.shards))}"
    kept = decoded_images(
        local_cache(), identity, image_size, lambda: _decoded(pool, decoded, image_size, threads)
    )
    if kept is None:
        places = np.arange(len(rows))
        kept = np.empty((len(rows), 3, image_size, image_size), np.uint8), []
        for start, (images, found) in enumerate(_decoded(pool, rows, image_size, threads)):
            kept[0][start * _DECODED_AT_ONCE :][: len(images)] = images
            kept[1].extend(found)
    images, damaged = kept[0], {place: Damage(shard=a, key=b, reason=c) for place, a, b, c in kept[1]}
    sound = np.array([place not in damaged for place in places.tolist()], bool)
    damage = [damaged[place] for place in places[~sound].tolist()]
    check_tolerance(damage, pool=pool.path, of=len(rows), tolerance=tolerance)
    if not sound.any():
        raise ValueError(f"no pair of the subset can be read; {damage[0]}")
    # The next undamaged pair of the subset replaces a damaged one, cyclically, as in `read_pairs`.
    stand_in = np.flatnonzero(sound)
    chosen = stand_in[np.searchsorted(stand_in, np.arange(len(rows))) % len(stand_in)]
    frame = pool.index.rows(rows[chosen], tuple(dict.fromkeys(["caption", *columns])))
    return InMemory(
        images=torch.from_numpy(images),
        tokens=tokens(frame["caption"].tolist()),
        rows=torch.from_numpy(places[chosen]),
        places=torch.from_numpy(chosen),
        columns=column_tensors(frame, columns, tokens),
        share=source.share,
        damage=damage,
    )


def _decoded(
    pool: Pool, rows: NDArray[np.int64], image_size: int, threads: int
) -> Iterator[tuple[Images, list[tuple[int, str, str, str]]]]:
    """Yield the images of some rows at a time, and the damage of each place among all of them."""
    for start in range(0, len(rows), _DECODED_AT_ONCE):
        frame = pool.index.rows(rows[start : start + _DECODED_AT_ONCE], READ_COLUMNS)
        images, found = decode_rows(pool, frame, image_size, threads)
        yield images, [(start + place, *astuple(damage)) for place, damage in found.items()]
