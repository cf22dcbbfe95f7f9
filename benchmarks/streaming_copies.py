"""Bytes that trials fetch from copies of subsets and from a scattered pool, for ``benchmarks/streaming.py``.

The pool has 100 shards of small pairs in the bucket, with scores drawn at random, as if another score or an
index in place had put them in this order. Trials read ``top1`` and ``top10`` for one epoch with empty caches:
from the pool, and from a copy of both that was made in a folder and uploaded. Bytes used are those of a
subset's samples in a tar, images and captions with headers and padding: of images this small they are several
times the bytes of the images, which are printed as well.

The speed of decoding compares originals of 512 × 384 pixels with copies whose images were resized.
"""

import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.loader import BATCH, SIZE, make_shards, speed, tokens
from benchmarks.measured import Result, at_least, at_most, reported
from budgets.machine_cache import CACHE
from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.subset_copy import SubsetCopy, copy_subsets
from runners.data.index.writing import write_parts
from runners.data.pool.describe import describe_pool
from runners.data.pool.pool import Origin, Pool, Scorer
from runners.data.pool.shards import close_shard, content_hash, write_sample
from runners.data.reading.training_data import Source
from runners.data.reading.training_set import StreamedSet
from runners.host.workers import Processes
from runners.store.copies import SHARDS_AT, pool_at
from runners.store.location import Location
from runners.store.shared_folder import SharedFolder

SHARDS, PERCENT = 100, (1, 10)  # shards of the pool, and percent of its pairs that trials read


def scattered(folder: Path, url: str, pairs: int) -> Pool:
    """Write shards of a pool below a URL, and its index into a folder."""
    rng, columns, sizes = np.random.default_rng(0), [], {}
    each = pairs // SHARDS
    for number in range(SHARDS):
        shard, sides = f"{number:05d}.tar", rng.integers(6, 14, each)
        path = folder.with_name(shard)
        with path.open("wb") as file:
            for place, side in enumerate(sides.tolist()):
                caption = f"picture {number * each + place}"
                image = png(rng.bytes(3 * side * side), side)
                offset = write_sample(file, f"{place:09d}", {"png": image, "txt": caption.encode()})["png"]
                hashed = content_hash(image, caption)
                columns.append((f"{place:09d}", shard, offset, len(image), caption, side, side, hashed))
            close_shard(file)
        sizes[shard] = path.stat().st_size
        Location(url).put(path, shard)
        path.unlink()
    names = ["key", "shard", "offset", "length", "caption", "width", "height", "hash"]
    frame = pd.DataFrame(columns, columns=names).astype({"hash": "uint64"})
    frame = frame.assign(score=rng.normal(size=len(frame)).astype(np.float32))
    folder.mkdir()
    origin = Origin(name="scattered", scorer=Scorer(name="drawn"), provenance={SHARDS_AT: url})
    describe_pool(folder, write_parts(folder, frame), origin, sizes=sizes)
    return Pool.open(folder)


def png(content: bytes, side: int) -> bytes:
    """Return an image file of RGB pixels without compression."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + content[start : start + 3 * side] for start in range(0, len(content), 3 * side))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


def epoch(pool: Pool, pairs: int, quality: str, size: int, workers: int = 0) -> Iterator[Any]:
    """Yield one epoch of a subset."""
    rows = pool.subset(size=pairs, quality=quality)
    data = StreamedSet(
        sources=[Source(pool=pool, rows=rows)], image_size=size, tokens=tokens, workers=workers
    )
    return data.batches(seed=0, batch_size=BATCH, first_step=0, steps=len(rows) // BATCH)


def copied(pool: Pool, subsets: Iterable[tuple[int, str]], to: SharedFolder, side: int | None = None) -> None:
    """Copy subsets of a pool."""
    chosen = [(pool.fingerprint, pairs, quality) for pairs, quality in subsets]
    copy_subsets(SubsetCopy(pool=pool, subsets=chosen, side=side), to, Processes(), lambda *_: None)


def fetches(name: Path, counted: Callable[[], tuple[int, int]], pairs: int) -> Iterator[Result]:
    """Yield bytes fetched over those used; ``counted`` as in ``benchmarks/streaming.py``."""
    pool = scattered(name / "scattered", "s3://scattered", pairs)
    subsets = [(pairs * percent // 100, f"top{percent}") for percent in PERCENT]

    def fetched(folder: Path, pairs: int, quality: str) -> int:
        os.environ[CACHE] = str(name / f"cache of {folder.name} {quality}")
        opened = Pool.open(folder)
        _ = opened.index.files  # fetched before anything is counted
        counted()
        assert sum(len(batch.ids) for batch in epoch(opened, pairs, quality, 32, workers=1)) > 0
        return counted()[1]

    today = [fetched(pool.path, *subset) for subset in subsets]
    os.environ[CACHE] = str(name / "cache of copying")
    original = Pool.open(pool.path)
    counted()
    copied(original, subsets, SharedFolder(path=name / "made"))
    made = counted()[1]
    for path in (name / "made").rglob("*.*"):
        Location("s3://scattered").put(path, f"copy/{path.relative_to(name / 'made').as_posix()}")
    copy = pool_at("s3://scattered/copy", name / "copy")
    for subset, before in zip(subsets, today, strict=True):
        rows = pool.frame.iloc[pool.subset(size=subset[0], quality=subset[1]).rows()]
        images, texts = rows["length"], rows["caption"].str.len()
        samples = int(sum((512 + 512 * -(-each // 512)).sum() for each in (images, texts)))
        after = fetched(copy, *subset)
        megabytes = [f"{size / 1e6:.1f} MB" for size in (samples, images.sum(), before, after)]
        print("{} of {:,} pairs, {} with {} of images: {} from the pool, {} from the copy".format(
            subset[1], pairs, *megabytes
        ))  # fmt: skip
        yield at_most(f"streaming_copy_{subset[1]}_bytes_over_used", after / samples, 1.2)
    print(f"making the copy: {made / 1e6:.1f} MB")
    yield at_most("streaming_copy_made_over_one_trial", made / today[-1], 1.0)


def resized_speed(name: Path, pairs: int) -> Iterator[Result]:
    """Yield the speed of decoding resized images over that of originals, by processor time."""
    make_shards(name / "originals", pairs, side=384)
    how = Build(source=name / "originals", in_place=True)
    pools = {0: build_pool(name / "originals", how, lambda *_: None)}
    for side in (256, SIZE):
        to = SharedFolder(path=name / f"resized {side}")
        copied(pools[0], [(pairs, "all")], to, side=side)
        pools[side] = Pool.open(to.path)
    best = dict.fromkeys(pools, 0.0)
    for _ in range(3):
        for side, pool in pools.items():
            best[side] = max(best[side], speed(epoch(pool, pairs, "all", SIZE), time.process_time))
    for side, pairs_per_s in best.items():
        print(f"{f'resized to {side}' if side else '512 × 384'} pixels: {pairs_per_s:,.0f} pairs/s of a core")
    yield reported("streaming_resized_256_over_originals", best[256] / best[0])
    yield at_least(f"streaming_resized_{SIZE}_over_originals", best[SIZE] / best[0], 2.0)
