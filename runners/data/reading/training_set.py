"""A trial's pairs, opened by their size: few are decoded in advance, many are streamed in bounded memory."""

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from budgets.cost.strategy import Batch
from runners.data.pool.damage import Damage, check_tolerance
from runners.data.pool.decoded import Images, decoded_images
from runners.data.pool.pool import Pool
from runners.data.pool.reader import READ_COLUMNS, Pairs, decode_rows, in_shard_order, read_pairs
from runners.data.reading.order import (
    BLOCK,
    WINDOW,
    Stretch,
    batch_positions,
    positions,
    rows_of_window,
    stretches,
    windows,
)
from runners.data.reading.training_data import (
    Batches,
    Empty,
    Source,
    Tokens,
    TrainingData,
    column_tensors,
    rank_slice,
)
from runners.host.faults import shielded
from runners.host.process import begin_child, child_context
from runners.store.cache import local_cache

IN_MEMORY_BYTES = 8 * 2**30
"""Decoded size above which a subset is streamed; fixed, because the order of samples depends on it."""

LOADER_BYTES = 2 * 2**30
"""Memory that loader workers of a rank fill with decoded pairs, by default."""

_DECODED_AT_ONCE = 4096
_WINDOWS_REMEMBERED = 16
_BLOCKS_KEPT = 3 * WINDOW  # of a source: of a window, of the next one, and of what replaced damaged pairs
_BATCHES_AHEAD = 4
_TOKENS, _IDS = "of the caption", "of the pair"  # beside columns, whose names have no spaces
_PAIRS_AT_ONCE = 256  # that a worker hands over: cheap beside decoding them, while a batch may be huge


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamedSet(TrainingData):
    """Pairs that are read and decoded during training, those of each pool in windows; see `open_data`."""

    image_size: int
    tokens: Tokens
    columns: Sequence[str] = ()
    workers: int = 0  # processes that read and decode; 0 to do it in the calling process
    loader_bytes: int = LOADER_BYTES  # of a rank's memory, which workers fill ahead of training

    def batches(
        self, *, seed: int, batch_size: int, first_step: int, steps: int, empty: Empty = torch.empty
    ) -> Batches:
        """Yield this rank's pairs of each step."""
        mine = rank_slice(batch_size, self.rank, self.ranks)
        size = mine.stop - mine.start
        pairs, per_worker = loading_ahead(size, self.image_size, self.workers, self.loader_bytes)
        parts = -(-size // pairs)
        loader: Any = DataLoader(
            _Parts(self, seed, batch_size, mine, pairs),
            batch_size=None,
            sampler=range(first_step * parts, steps * parts),
            num_workers=self.workers,
            prefetch_factor=per_worker if self.workers else None,
            # Forked from a trial, workers share its index and tokenizer; they never touch the GPU.
            multiprocessing_context=child_context() if self.workers else None,
            worker_init_fn=partial(_begin_worker, dict(os.environ)),
        )
        with shielded():  # a signal to the whole run must not take the workers away before the checkpoint
            arrived = iter(loader)
        for _ in range(first_step, steps):
            images = empty(size, 3, self.image_size, self.image_size, dtype=torch.uint8)
            some = list[dict[str, Tensor]]()
            for start in range(0, size, pairs):
                decoded, columns, damage = next(arrived)
                images[start : start + len(decoded)] = decoded  # at once, to free the worker's shared memory
                some.append(columns)
                news = [(source, pair) for source, pair in damage if (source, pair) not in self.damaged]
                self.news.extend(news)
                self.found(news)
            batch = {name: torch.cat([columns[name] for columns in some]) for name in some[0]}
            yield Batch(images=images, tokens=batch.pop(_TOKENS), ids=batch.pop(_IDS), columns=batch)


def _begin_worker(environment: Mapping[str, str], _worker: int) -> None:
    # It ends with its rank. torch's workers look after that every five seconds; until then its end is not
    # seen from outside, because they hold its pipes open.
    begin_child(environment)


def loading_ahead(size: int, image_size: int, workers: int, memory: int = LOADER_BYTES) -> tuple[int, int]:
    """Divide memory, in bytes, among workers, to load up to four batches of ``size`` pairs ahead.

    Returns the pairs, at least one, in a part of a batch, and how many parts each worker loads ahead.
    """
    workers = max(1, workers)
    most = memory // (3 * image_size**2)  # pairs
    pairs = max(1, min(size, _PAIRS_AT_ONCE, most // workers))
    wanted = -(-_BATCHES_AHEAD * size // (pairs * workers))
    return pairs, max(1, min(wanted, most // (pairs * workers)))


class RowsByBlock:
    """Rows of a pool's index by their places in a subset; those of the latest blocks are kept."""

    def __init__(self, source: Source, columns: Sequence[str] = ()) -> None:
        self._source, self._columns = source, tuple(dict.fromkeys([*READ_COLUMNS, *columns]))
        self._kept = lru_cache(maxsize=_BLOCKS_KEPT)(self._block)

    def __reduce__(self) -> tuple[type["RowsByBlock"], tuple[object, ...]]:
        """Pickle it without the rows that it keeps."""
        return RowsByBlock, (self._source, self._columns)

    def __call__(self, places: NDArray[np.int64]) -> pd.DataFrame:
        """Return `READ_COLUMNS` and the others of the index for some places, in their order."""
        blocks, which = np.unique(places // BLOCK, return_inverse=True)
        # Only the last block of the subset may be shorter.
        frame: pd.DataFrame = pd.concat(map(self._kept, blocks.tolist())).iloc[which * BLOCK + places % BLOCK]
        return frame

    def _block(self, number: int) -> pd.DataFrame:
        places = np.arange(number * BLOCK, min((number + 1) * BLOCK, len(self._source.rows)))
        return self._source.pool.index.rows(self._source.rows[places], self._columns)


class _Parts(Dataset[Any]):
    """Parts of this rank's batches by number: images, all else of the pairs, and damage, in any process."""

    def __init__(self, data: StreamedSet, seed: int, batch_size: int, mine: slice, pairs: int) -> None:
        self._data, self._seed, self._batch_size, self._mine = data, seed, batch_size, mine
        self._pairs = pairs
        self._starts = range(mine.start, mine.stop, pairs)
        self._rows = [RowsByBlock(source, data.columns) for source in data.sources]
        self._before = np.cumsum([0, *(len(source.rows) for source in data.sources)])
        # A batch is a sample of its windows: this rank's part may reach a little beyond the same of theirs.
        beyond = 0.5 * batch_size**-0.5 if data.ranks > 1 else 0.0
        self._part = max(0.0, mine.start / batch_size - beyond), min(1.0, mine.stop / batch_size + beyond)
        self._batch = lru_cache(maxsize=2)(self._arranged)
        self._queued: deque[tuple[int, int, int]] = deque(maxlen=_WINDOWS_REMEMBERED * len(data.sources))

    def __reduce__(self) -> tuple[type["_Parts"], tuple[object, ...]]:
        return _Parts, (self._data, self._seed, self._batch_size, self._mine, self._pairs)

    def __getitem__(self, number: int) -> tuple[Tensor, dict[str, Tensor], list[tuple[int, Damage]]]:
        data = self._data
        step, part = divmod(number, len(self._starts))
        start = self._starts[part]
        stop = min(start + self._starts.step, self._mine.stop)
        images = np.empty((stop - start, 3, data.image_size, data.image_size), np.uint8)
        ids, damage = np.empty(len(images), np.int64), list[tuple[int, Damage]]()
        order, frames = list[NDArray[np.int64]](), list[pd.DataFrame]()
        for source, (span, rows) in enumerate(self._batch(step)):
            inside = slice(*np.searchsorted(span.places, [start, stop]))
            if inside.start < inside.stop:
                places, pairs = span.places[inside] - start, self._read(source, span, rows[inside])
                images[places], ids[places] = pairs.images, self._before[source] + pairs.places
                order.append(places)
                frames.append(pairs.rows)
                damage += [(source, pair) for pair in pairs.damage]
        frame = pd.concat(frames).iloc[np.argsort(np.concatenate(order))] if len(frames) > 1 else frames[0]
        columns = {_TOKENS: data.tokens(frame["caption"].tolist()), _IDS: torch.from_numpy(ids)}
        return torch.from_numpy(images), columns | column_tensors(frame, data.columns, data.tokens), damage

    def _arranged(self, step: int) -> list[tuple[Stretch, NDArray[np.int64]]]:
        """Return what each source has of a batch of all ranks, and its rows in the order of its places."""
        start, shares = step * self._batch_size, [source.share for source in self._data.sources]
        every = stretches(seed=self._seed, shares=shares, start=start, stop=start + self._batch_size)
        return [
            (span, batch_positions(seed=span.seed, count=len(source.rows), start=span.start, stop=span.stop))
            for span, source in zip(every, self._data.sources, strict=True)
        ]

    def _read(self, part: int, span: Stretch, places: NDArray[np.int64]) -> Pairs:
        source = self._data.sources[part]
        if source.pool.place.ahead_bytes:
            self._fetch_ahead(part, span)
        size, look_up = self._data.image_size, self._rows[part]
        return read_pairs(source.pool, source.rows, places, size, look_up=look_up)

    def _fetch_ahead(self, part: int, span: Stretch) -> None:
        """Queue this rank's part of the windows of a batch, and of the window that follows."""
        source = self._data.sources[part]
        count, place = len(source.rows), source.pool.place
        for epoch, window in windows(seed=span.seed, count=count, start=span.start, stop=span.stop):
            if (part, epoch, window) in self._queued:
                continue
            self._queued.append((part, epoch, window))
            mine = rows_of_window(seed=span.seed, count=count, epoch=epoch, window=window, part=self._part)
            frame = self._rows[part](mine)
            _, wanted = in_shard_order(*(frame[name].to_numpy() for name in ("shard", "offset", "length")))
            sizes = np.cumsum([int(ranges.lengths.sum()) for ranges in wanted])
            wanted = wanted[: int(np.searchsorted(sizes, place.ahead_bytes))]
            # Each worker begins at another place, so that they rarely wait for each other's fetches.
            worker = get_worker_info()
            first = len(wanted) * worker.id // worker.num_workers if worker else 0
            place.ahead(wanted[first:] + wanted[:first])


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
            held.append({_TOKENS: part.tokens, _IDS: ids + before, **part.columns})
            before += len(ids)
        first = self.parts[0]
        for start in range(first_step * batch_size, steps * batch_size, batch_size):
            images = empty(mine.stop - mine.start, *first.images.shape[1:], dtype=torch.uint8)
            batch = {
                name: column.new_empty(len(images), *column.shape[1:]) for name, column in held[0].items()
            }
            every = stretches(seed=seed, shares=shares, start=start, stop=start + batch_size)
            for part, columns, span in zip(self.parts, held, every, strict=True):
                inside = slice(*np.searchsorted(span.places, [mine.start, mine.stop]))
                order = positions(seed=span.seed, count=len(part.tokens), start=span.start, stop=span.stop)
                rows, places = torch.from_numpy(order[inside]), span.places[inside] - mine.start
                chosen = rows if part.rows is None else part.rows[rows]
                if len(rows) == len(images):  # at once where they belong
                    torch.index_select(part.images, 0, chosen, out=images)
                else:
                    images[places] = part.images[chosen]
                for name, column in columns.items():
                    batch[name][places] = column[rows]
            yield Batch(images=images, tokens=batch.pop(_TOKENS), ids=batch.pop(_IDS), columns=batch)


def open_data(data: StreamedSet, *, threads: int = 1) -> TrainingData:
    """Return a trial's pairs for training: streamed as given, or if they are few, decoded now.

    Ranks together see the same batches as a single process would; each takes its part of every batch.
    Threads decode now, workers (processes) what is streamed.

    Raises:
        ValueError: More of a source that is decoded now is damaged than tolerated.
    """
    if sum(len(source.rows) for source in data.sources) * 3 * data.image_size**2 > IN_MEMORY_BYTES:
        return data
    held = [_decode(data, source, threads) for source in data.sources]
    damaged = {(number, damage): None for number, part in enumerate(held) for damage in part.damage}
    return InMemorySet(parts=held, rank=data.rank, ranks=data.ranks, damaged=damaged)


def _decode(data: StreamedSet, source: Source, threads: int) -> InMemory:
    """Decode a pool, or of a large one the pairs of the source; all trials of a machine share the images.

    Without room in the cache, they are decoded into this process's memory.
    """
    pool, rows, size = source.pool, source.rows[np.arange(len(source.rows))], data.image_size
    places = np.arange(len(rows))
    decoded, which = rows, blake2b(rows.tobytes(), digest_size=16).hexdigest()
    if pool.count * 3 * size**2 <= IN_MEMORY_BYTES:
        decoded, places, which = np.arange(pool.count), rows, "all"
    # The versions of the shards change when one is damaged or repaired.
    identity = f"{pool.fingerprint} {which} {pool.place.versions(list(pool.shards))}"
    held = decoded_images(local_cache(), identity, size, lambda: _decoded(pool, decoded, size, threads))
    if held is None:
        places = np.arange(len(rows))
        held = np.empty((len(rows), 3, size, size), np.uint8), []
        for start, (images, notes) in enumerate(_decoded(pool, rows, size, threads)):
            held[0][start * _DECODED_AT_ONCE :][: len(images)] = images
            held[1].extend(notes)
    images, damaged = held[0], {place: Damage(shard=a, key=b, reason=c) for place, a, b, c in held[1]}
    sound = np.array([place not in damaged for place in places.tolist()], bool)
    damage = [damaged[place] for place in places[~sound].tolist()]
    check_tolerance(damage, pool=pool.path, of=len(rows), tolerance=data.tolerance)
    if not sound.any():
        raise ValueError(f"no pair of the subset can be read; {damage[0]}")
    # The next undamaged pair of the subset replaces a damaged one, cyclically, as in `read_pairs`.
    stand_in = np.flatnonzero(sound)
    chosen = stand_in[np.searchsorted(stand_in, np.arange(len(rows))) % len(stand_in)]
    frame = pool.index.rows(rows[chosen], tuple(dict.fromkeys(["caption", *data.columns])))
    return InMemory(
        images=torch.from_numpy(images),
        tokens=data.tokens(frame["caption"].tolist()),
        rows=torch.from_numpy(places[chosen]),
        places=torch.from_numpy(chosen),
        columns=column_tensors(frame, data.columns, data.tokens),
        share=source.share,
        damage=damage,
    )


def _decoded(
    pool: Pool, rows: NDArray[np.int64], size: int, threads: int
) -> Iterator[tuple[Images, list[tuple[int, str, str, str]]]]:
    """Yield the images of some rows at a time, and the damage of each place among all of them."""
    for start in range(0, len(rows), _DECODED_AT_ONCE):
        frame = pool.index.rows(rows[start : start + _DECODED_AT_ONCE], READ_COLUMNS)
        images, damaged = decode_rows(pool, frame, size, threads)
        yield images, [(start + place, *astuple(damage)) for place, damage in damaged.items()]
