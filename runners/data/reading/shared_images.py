"""Images of small pools in shared memory, decoded once for all trials on a node.

The driver frees them at its end, so this module needs no torch.
"""

import fcntl
import json
import os
import shutil
import time
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from runners.data.pool.damage import Damage
from runners.data.pool.pool import Pool
from runners.data.pool.reader import DECODING, READ_COLUMNS, decode_rows
from runners.store.files import locked

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - its contents are checked for their owner by the mode
LARGEST_CACHE_BYTES = 8 * 2**30

_DECODED_AT_ONCE = 4096
_IDLE_S = 3600.0

# Caches that this process uses: a shared lock of the open file marks them until the process ends.
_IN_USE: dict[Path, int] = {}


def shared_images(
    pool: Pool, image_size: int, *, threads: int = 1, memory: Path = SHARED_MEMORY
) -> tuple[NDArray[np.uint8], dict[int, Damage]] | None:
    """Return a pool's images at a size, decoded by the first process that asks, and the damage by row.

    Images are uint8 (pairs, 3, S, S), RGB, in the order of the index, black where damaged; a write to them
    changes a private copy. Other processes wait. The images stay until the machine restarts, or until no
    process uses them and another pool needs the room or `drop_idle` is called. None if the pool is too large
    or shared memory has no room.
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
