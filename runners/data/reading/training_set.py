"""A trial's pairs: few decoded in memory, many streamed, both in the order of `order` and `mixing`."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from runners.data.index.subset import Subset
from runners.data.pool.damage import DAMAGE_TOLERANCE, Damage, check_tolerance
from runners.data.pool.pool import Pool
from runners.data.pool.reader import Pairs, captions, in_shard_order, read_pairs
from runners.data.reading.cache import shared_images
from runners.data.reading.mixing import Stretch, mixed_positions, stretches
from runners.data.reading.order import positions, rows_of_window, windows
from runners.host.faults import shielded

IN_MEMORY_BYTES = 8 * 2**30
"""Decoded size above which a subset is streamed; fixed, because the order of samples depends on it."""

_POSITIONS_AT_ONCE = 65_536
_WINDOWS_REMEMBERED = 16
_BATCHES_AHEAD = 4

LOADER_BYTES = 2 * 2**30
"""Memory that loader workers of a rank fill with decoded pairs, by default."""

_PAIRS_AT_ONCE = 256  # what a worker hands over: a pair costs more than the hand-over, a batch may be huge

# Workers share the pool's index and the tokenizer with the rank, of which they need no copies; they never
# touch the GPU. Named, because Python 3.14 has another default.
_WORKERS_START = "fork"

Tokens = Callable[[Sequence[str]], Tensor]
"""Texts → token ids, int64 (texts, context length)."""


Empty = Callable[..., Tensor]
"""Memory for a tensor, as `torch.empty` makes it of sizes and ``dtype``."""

Batches = Iterator[tuple[Tensor, Tensor]]
"""Images, uint8 (batch, 3, S, S), and token ids, int64 (batch, context length), step by step."""


class TrainingData(Protocol):
    """The data that training reads."""

    def batches(
        self, *, seed: int, batch_size: int, first_step: int, steps: int, empty: Empty = torch.empty
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the steps from ``first_step`` on, each a function of (seed, step, rank) alone.

        Args:
            seed: Seed of the order.
            batch_size: Pairs in a step, of all ranks.
            first_step: First step.
            steps: Steps of the whole run.
            empty: Makes the memory that images are gathered in, for example pinned memory for a GPU.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A pool's part of a trial's pairs.

    Attributes:
        pool: The pool.
        rows: The part: positions in the pool's index, ascending.
        share: Its samples in each period of a mixture (`runners.data.reading.mixing`).
    """

    pool: Pool
    rows: Subset | NDArray[np.int64]
    share: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class InMemory:
    """A pool's part of the pairs in memory.

    Attributes:
        images: Decoded images, uint8, (N, 3, H, W); of a whole pool if ``rows`` selects from them.
        tokens: Token ids, int64, (subset, context length).
        rows: Index of each subset row's image, int64 (subset,); by default the row itself.
        share: As in `Source`.
        damage: The pairs that were replaced by others.
    """

    images: Tensor
    tokens: Tensor
    rows: Tensor | None = None
    share: int = 1
    damage: Sequence[Damage] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSet:
    """Pairs in memory, those of each pool shuffled as a whole.

    Attributes:
        parts: The pairs of each pool.
        rank: Index of this process's part of each batch.
        ranks: Number of equal parts of a batch.
    """

    parts: Sequence[InMemory]
    rank: int = 0
    ranks: int = 1

    @property
    def damage(self) -> list[Damage]:
        """The pairs that were replaced by others."""
        return [each for part in self.parts for each in part.damage]

    def batches(
        self, *, seed: int, batch_size: int, first_step: int, steps: int, empty: Empty = torch.empty
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's images and tokens of each step, in the global order of samples.

        Raises:
            ValueError: A batch cannot be split into equal parts.
        """
        mine = _part(batch_size, self.rank, self.ranks)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamedSet:
    """Pairs that are read and decoded during training, those of each pool in windows.

    Attributes:
        sources: The pairs of each pool.
        image_size: Side S in pixels.
        tokens: Converts captions to ids.
        workers: Processes that read and decode; 0 to do it in the calling process.
        rank: Index of this process's part of each batch.
        ranks: Number of equal parts of a batch.
        tolerance: Share of a pool's part that may be damaged.
        loader_bytes: Memory that workers fill with decoded pairs which training has not taken yet.
        damaged: Number of a source → its damage found so far; it grows.
    """

    sources: Sequence[Source]
    image_size: int
    tokens: Tokens
    workers: int = 0
    rank: int = 0
    ranks: int = 1
    tolerance: float = DAMAGE_TOLERANCE
    loader_bytes: int = LOADER_BYTES
    damaged: dict[int, dict[Damage, None]] = field(default_factory=dict)

    @property
    def damage(self) -> list[Damage]:
        """Damage found so far."""
        return [each for found in self.damaged.values() for each in found]

    def batches(
        self, *, seed: int, batch_size: int, first_step: int, steps: int, empty: Empty = torch.empty
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's images and tokens of each step, in the global order of samples.

        Raises:
            ValueError: More pairs are damaged than tolerated, or a batch cannot be split into equal parts.
        """
        mine = _part(batch_size, self.rank, self.ranks)
        size = mine.stop - mine.start
        ahead = loading_ahead(size, self.image_size, self.workers, self.loader_bytes)
        parts = -(-size // ahead.pairs)
        # Read before the fork of the workers.
        for source in self.sources if self.workers else ():
            source.pool.warm()
        loader: Any = DataLoader(
            _Parts(self, seed, batch_size, mine, ahead.pairs),
            batch_size=None,
            sampler=range(first_step * parts, steps * parts),
            num_workers=self.workers,
            prefetch_factor=ahead.parts_per_worker if self.workers else None,
            multiprocessing_context=_WORKERS_START if self.workers else None,
        )
        with shielded():  # a signal to the whole run must not take the workers away before the checkpoint
            arrived = iter(loader)
        for _ in range(first_step, steps):
            images = empty(size, 3, self.image_size, self.image_size, dtype=torch.uint8)
            tokens: list[Tensor] = []
            for start in range(0, size, ahead.pairs):
                decoded, ids, found = next(arrived)
                images[start : start + len(decoded)] = decoded  # at once, to free the worker's shared memory
                tokens.append(ids)
                for part, each in found:
                    known = self.damaged.setdefault(part, {})
                    known[each] = None
                    check_tolerance(known, of=len(self.sources[part].rows), tolerance=self.tolerance)
            yield images, torch.cat(tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadingAhead:
    """Parts of batches that workers load ahead of training.

    Attributes:
        pairs: Pairs in a part.
        parts_per_worker: Parts of each worker that training has not taken yet.
    """

    pairs: int
    parts_per_worker: int


def loading_ahead(size: int, image_size: int, workers: int, memory: int = LOADER_BYTES) -> LoadingAhead:
    """Divide memory among workers, to load up to four batches ahead.

    Args:
        size: Pairs in a batch of this rank.
        image_size: Side in pixels.
        workers: Number of workers.
        memory: Bytes that all of them may fill; each has at least one pair.
    """
    workers = max(1, workers)
    most = memory // (3 * image_size**2)  # pairs
    pairs = max(1, min(size, _PAIRS_AT_ONCE, most // workers))
    wanted = -(-_BATCHES_AHEAD * size // (pairs * workers))
    return LoadingAhead(pairs=pairs, parts_per_worker=max(1, min(wanted, most // (pairs * workers))))


class _Parts(Dataset[Any]):
    """Parts of this rank's batches by number: images, tokens and damage; the same in any process."""

    def __init__(self, data: StreamedSet, seed: int, batch_size: int, mine: slice, pairs: int) -> None:
        self._data, self._seed, self._batch_size, self._mine = data, seed, batch_size, mine
        self._starts = range(mine.start, mine.stop, pairs)
        self._asked: deque[tuple[int, int, int]] = deque(maxlen=_WINDOWS_REMEMBERED * len(data.sources))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, tuple[tuple[int, Damage], ...]]:
        data = self._data
        step, part = divmod(number, len(self._starts))
        start = step * self._batch_size + self._starts[part]
        stop = min(start + self._starts.step, step * self._batch_size + self._mine.stop)
        shares = [source.share for source in data.sources]
        every = enumerate(stretches(seed=self._seed, shares=shares, start=start, stop=stop))
        read = {part: (own, self._read(part, own)) for part, own in every if own.start < own.stop}
        damage = tuple((part, each) for part, (_, pairs) in read.items() for each in pairs.damage)
        if len(read) == 1:
            ((_, pairs),) = read.values()
            return torch.from_numpy(pairs.images), data.tokens(pairs.captions), damage
        images = np.empty((stop - start, 3, data.image_size, data.image_size), np.uint8)
        texts = np.empty(stop - start, object)
        for own, pairs in read.values():
            images[own.places], texts[own.places] = pairs.images, pairs.captions
        return torch.from_numpy(images), data.tokens(texts.tolist()), damage

    def _read(self, part: int, own: Stretch) -> Pairs:
        source = self._data.sources[part]
        if source.pool.place.ahead_bytes:
            self._fetch_ahead(part, own)
        places = positions(
            seed=own.seed, count=len(source.rows), start=own.start, stop=own.stop, windowed=True
        )
        return read_pairs(source.pool, source.rows, places, self._data.image_size)

    def _fetch_ahead(self, part: int, own: Stretch) -> None:
        """Ask for the shards' bytes of the windows of some positions, and of the window that follows."""
        source = self._data.sources[part]
        count, place = len(source.rows), source.pool.place
        for epoch, window in windows(seed=own.seed, count=count, start=own.start, stop=own.stop, more=1):
            if (part, epoch, window) in self._asked:
                continue
            self._asked.append((part, epoch, window))
            rows = source.rows[rows_of_window(seed=own.seed, count=count, epoch=epoch, window=window)]
            found = source.pool.rows(rows, ("shard", "offset", "length"), keep=False)
            _, wanted = in_shard_order(*(found[name].to_numpy() for name in found.columns))
            sizes = np.cumsum([int(each.lengths.sum()) for each in wanted])
            wanted = wanted[: int(np.searchsorted(sizes, place.ahead_bytes))]
            # Each worker begins at another place; none fetches what another one is fetching.
            worker = get_worker_info()
            first = len(wanted) * worker.id // worker.num_workers if worker else 0
            place.ahead(wanted[first:] + wanted[:first])


def _part(batch_size: int, rank: int, ranks: int) -> slice:
    """Return a rank's slice of a batch; the whole batch does not depend on the number of ranks."""
    if batch_size % ranks:
        raise ValueError(f"a batch of {batch_size} cannot be split into {ranks} equal parts")
    size = batch_size // ranks
    return slice(rank * size, (rank + 1) * size)


def training_data(  # noqa: PLR0913 - independent options
    sources: Sequence[Source],
    image_size: int,
    tokens: Tokens,
    *,
    threads: int = 1,
    workers: int = 0,
    rank: int = 0,
    ranks: int = 1,
    tolerance: float = DAMAGE_TOLERANCE,
    loader_bytes: int = LOADER_BYTES,
) -> TrainingSet | StreamedSet:
    """Open a trial's pairs for training: from shared memory, from memory, or streamed, by their size.

    Ranks together see the same batches as a single process would; each takes its part of every batch.

    Args:
        sources: The pairs of each pool.
        image_size: Side S in pixels.
        tokens: Converts captions to ids.
        threads: Decoding threads for data held in memory.
        workers: Processes that read and decode streamed data.
        rank: Index of this process among those that train the model.
        ranks: Number of these processes.
        tolerance: Share of a pool's part that may be damaged.
        loader_bytes: Memory of a rank that workers fill ahead of training.

    Raises:
        ValueError: More of a part held in memory is damaged.
    """
    if sum(len(source.rows) for source in sources) * 3 * image_size**2 > IN_MEMORY_BYTES:
        return StreamedSet(
            sources=sources,
            image_size=image_size,
            tokens=tokens,
            workers=workers,
            rank=rank,
            ranks=ranks,
            tolerance=tolerance,
            loader_bytes=loader_bytes,
        )
    held = [_in_memory(source, image_size, tokens, threads, tolerance) for source in sources]
    return TrainingSet(parts=held, rank=rank, ranks=ranks)


def _in_memory(source: Source, image_size: int, tokens: Tokens, threads: int, tolerance: float) -> InMemory:
    pool, rows = source.pool, source.rows[np.arange(len(source.rows))]
    shared = shared_images(pool, image_size, threads=threads)
    if shared is None:
        pairs = read_pairs(pool, rows, np.arange(len(rows)), image_size, threads=threads)
        check_tolerance(pairs.damage, of=len(rows), tolerance=tolerance)
        return InMemory(
            images=torch.from_numpy(pairs.images),
            tokens=tokens(pairs.captions),
            share=source.share,
            damage=pairs.damage,
        )
    sound = np.array([row not in shared.damage for row in rows.tolist()], bool)
    damage = [shared.damage[row] for row in rows[~sound].tolist()]
    check_tolerance(damage, of=len(rows), tolerance=tolerance)
    if not sound.any():
        raise ValueError(f"no pair of the subset can be read; {damage[0]}")
    # The next undamaged pair of the subset replaces a damaged one, cyclically, as in `read_pairs`.
    stand_in = np.flatnonzero(sound)
    chosen = rows[stand_in[np.searchsorted(stand_in, np.arange(len(rows))) % len(stand_in)]]
    return InMemory(
        images=torch.from_numpy(shared.images),
        tokens=tokens(captions(pool, chosen)),
        rows=torch.from_numpy(chosen),
        share=source.share,
        damage=damage,
    )
