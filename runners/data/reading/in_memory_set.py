"""Pairs of a trial decoded in memory, or in the node's shared memory, where all trials use small pools."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

from runners.data.pool.damage import Damage, check_tolerance
from runners.data.pool.pool import Pool
from runners.data.pool.reader import DECODING, READ_COLUMNS, decode_rows, read_pairs
from runners.data.reading.order import mixed_positions
from runners.data.reading.training_data import Batches, Empty, Source, Tokens, TrainingData, rank_slice
from runners.host.files import locked

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - its contents are checked for their owner by the mode
LARGEST_CACHE_BYTES = 8 * 2**30

_DECODED_AT_ONCE = 4096
_IDLE_S = 3600.0

_POSITIONS_AT_ONCE = 65_536

# Caches that this process uses: a shared lock of the open file marks them until the process ends.
_IN_USE: dict[Path, int] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class InMemory:
    """A pool's part of the pairs in memory.

    Attributes:
        images: Decoded images, uint8, (N, 3, H, W); of a whole pool if ``rows`` selects from them.
        tokens: Token ids, int64, (subset, context length).
        rows: Index of each subset row's image, int64 (subset,); by default the row itself.
        damage: The pairs that were replaced by others.
    """

    images: Tensor
    tokens: Tensor
    rows: Tensor | None = None
    share: int = 1
    damage: Sequence[Damage] = ()


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
    """Decode a pool's part of the pairs into memory, or find it in shared memory.

    Raises:
        ValueError: More pairs than tolerated are damaged.
    """
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


def shared_images(
    pool: Pool, image_size: int, *, threads: int = 1, memory: Path = SHARED_MEMORY
) -> tuple[NDArray[np.uint8], dict[int, Damage]] | None:
    """Return a pool's images at a size, decoded by the first process that asks while others wait.

    They stay until the machine restarts, or until no process uses them and another pool needs the room or
    ``drop_idle`` is called.

    Returns:
        uint8 (pairs, 3, S, S), RGB, in the order of the index, black where damaged, a write to which changes
        a private copy; and the damage by row. ``None`` if the pool is too large or shared memory has no room.
    """
    need = pool.count * 3 * image_size**2
    if need > LARGEST_CACHE_BYTES or not os.access(memory, os.W_OK):
        return None
    folder = _folder(memory)
    path = folder / f"{_key(pool, image_size)}.npy"
    with locked(folder / "lock"):
        if not path.exists():
            # Half of the memory stays free. Caches that were not used for an hour are dropped first; if that
            # is not enough, all unused ones.
            _drop_idle(folder, unused_s=_IDLE_S)
            if need > shutil.disk_usage(memory).free // 2:
                _drop_idle(folder)
            if need > shutil.disk_usage(memory).free // 2:
                return None
            _decode(pool, image_size, path, threads)
        os.utime(path)
        images = np.load(path, mmap_mode="c")
        file = os.open(path, os.O_RDONLY)
        fcntl.flock(file, fcntl.LOCK_SH)
        if path in _IN_USE:
            os.close(_IN_USE[path])
        _IN_USE[path] = file
        found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return images, {int(row): Damage(**each) for row, each in found.items()}


def drop_idle(*, memory: Path = SHARED_MEMORY) -> None:
    """Free the caches that no process uses; wait while another process decodes."""
    if os.access(memory, os.W_OK):
        folder = _folder(memory)
        with locked(folder / "lock"):
            _drop_idle(folder)


def _drop_idle(folder: Path, *, unused_s: float = 0.0) -> None:
    """Free unused caches not requested in the last ``unused_s`` seconds; the caller holds the folder's lock.

    Without that lock, another process could delete a cache after it is listed and before it is locked.
    """
    for path in folder.glob("*.npy"):
        if time.time() - path.stat().st_mtime < unused_s:
            continue
        with locked(path, wait_s=0) as free:
            if free is not None:
                path.unlink()
                path.with_suffix(".json").unlink(missing_ok=True)


def _key(pool: Pool, image_size: int) -> str:
    """Return a key of the images; it changes when a shard is damaged or repaired."""
    changed = pool.place.versions(list(pool.shards))
    facts = f"{pool.fingerprint} {image_size} {PIL.__version__} {DECODING} {changed}"
    return blake2b(facts.encode(), digest_size=16).hexdigest()


def _folder(memory: Path) -> Path:
    folder = memory / f"clip-scaling-study-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ValueError(f"{folder} belongs to another user")
    return folder


def _decode(pool: Pool, image_size: int, path: Path, threads: int) -> None:
    for leftover in path.parent.glob("*.partial"):  # left by a killed process: this one holds the lock
        leftover.unlink()
    partial = path.with_suffix(".partial")
    damage: dict[int, Damage] = {}
    images = np.lib.format.open_memmap(
        partial, mode="w+", dtype=np.uint8, shape=(pool.count, 3, image_size, image_size)
    )
    for start in range(0, pool.count, _DECODED_AT_ONCE):
        rows = np.arange(start, min(start + _DECODED_AT_ONCE, pool.count))
        images[rows[0] : rows[-1] + 1], found = decode_rows(
            pool, pool.rows(rows, READ_COLUMNS), image_size, threads
        )
        damage |= {start + place: each for place, each in found.items()}
    images.flush()
    damaged = {row: asdict(each) for row, each in damage.items()}
    path.with_suffix(".json").write_text(json.dumps(damaged), encoding="utf-8")
    # Last: a cache under its final name is complete, and its damage file already exists.
    partial.rename(path)
