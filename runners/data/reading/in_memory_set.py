"""Pairs of a trial decoded in memory, or in the node's shared memory, where all trials use small pools."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runners.data.pool.damage import Damage, check_tolerance
from runners.data.pool.reader import read_pairs
from runners.data.reading.order import mixed_positions
from runners.data.reading.shared_images import shared_images
from runners.data.reading.training_data import Batches, Empty, Source, Tokens, TrainingData, rank_slice

_POSITIONS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class InMemory:
    """A pool's part of the pairs in memory.

    Images, uint8 (N, 3, H, W), are those of a whole pool if ``rows`` selects from them.
    """

    images: Tensor
    tokens: Tensor  # ids, int64 (subset, context length)
    rows: Tensor | None = None  # each row's image, int64 (subset,); by default the row itself
    share: int = 1
    damage: Sequence[Damage] = ()  # the pairs that were replaced by others


@dataclass(frozen=True, kw_only=True, slots=True)
class InMemorySet(TrainingData):
    """Pairs in memory, those of each pool shuffled as a whole; each rank has read, and judged, them all."""

    parts: Sequence[InMemory]
    rank: int = 0
    ranks: int = 1

    @property
    def damage(self) -> list[Damage]:
        """The pairs that were replaced by others."""
        return [each for part in self.parts for each in part.damage]

    def batches(
        self, *, seed: int, batch_size: int, first_step: int, steps: int, empty: Empty = torch.empty
    ) -> Batches:
        """Yield this rank's images and tokens of each step."""
        mine = rank_slice(batch_size, self.rank, self.ranks)
        block = max(1, _POSITIONS_AT_ONCE // batch_size)  # number of steps whose order is drawn at once
        for start in range(first_step, steps, block):
            stop = min(start + block, steps)
            order = mixed_positions(
                seed=seed,
                counts=[len(part.tokens) for part in self.parts],
                shares=[part.share for part in self.parts],
                start=start * batch_size,
                stop=stop * batch_size,
            )
            # One row per step; each rank takes a contiguous range of its columns.
            for places in torch.from_numpy(order.reshape(-1, batch_size)[:, mine]):
                yield self._gather(places, empty)

    def _gather(self, places: Tensor, empty: Empty) -> tuple[Tensor, Tensor]:
        first = self.parts[0]
        images = empty(len(places), *first.images.shape[1:], dtype=torch.uint8)
        if len(self.parts) == 1:
            rows = places if first.rows is None else first.rows.index_select(0, places)
            torch.index_select(first.images, 0, rows, out=images)
            return images, first.tokens.index_select(0, places)
        tokens = first.tokens.new_empty(len(places), *first.tokens.shape[1:])
        before = 0
        for part in self.parts:
            here = torch.nonzero((places >= before) & (places < before + len(part.tokens))).squeeze(1)
            own = places[here] - before
            images[here] = part.images[own if part.rows is None else part.rows[own]]
            tokens[here] = part.tokens[own]
            before += len(part.tokens)
        return images, tokens


def decode(source: Source, image_size: int, tokens: Tokens, threads: int, tolerance: float) -> InMemory:
    """Decode a pool's part of the pairs into memory, or find it in shared memory."""
    pool, rows = source.pool, source.rows[np.arange(len(source.rows))]
    shared = shared_images(pool, image_size, threads=threads)
    if shared is None:
        pairs = read_pairs(pool, rows, np.arange(len(rows)), image_size, threads=threads)
        check_tolerance(pairs.damage, pool=pool.path, of=len(rows), tolerance=tolerance)
        return InMemory(
            images=torch.from_numpy(pairs.images),
            tokens=tokens(pairs.captions),
            share=source.share,
            damage=pairs.damage,
        )
    images, damaged = shared
    sound = np.array([row not in damaged for row in rows.tolist()], bool)
    damage = [damaged[row] for row in rows[~sound].tolist()]
    check_tolerance(damage, pool=pool.path, of=len(rows), tolerance=tolerance)
    if not sound.any():
        raise ValueError(f"no pair of the subset can be read; {damage[0]}")
    # The next undamaged pair of the subset replaces a damaged one, cyclically, as in `read_pairs`.
    stand_in = np.flatnonzero(sound)
    chosen = rows[stand_in[np.searchsorted(stand_in, np.arange(len(rows))) % len(stand_in)]]
    return InMemory(
        images=torch.from_numpy(images),
        tokens=tokens(pool.rows(chosen, ("caption",))["caption"].tolist()),
        rows=torch.from_numpy(chosen),
        share=source.share,
        damage=damage,
    )
