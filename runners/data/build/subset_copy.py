"""Copies of subsets of a pool: the pairs that trials read, written once, so that each subset lies together.

    <copy>/shards/00000.tar   consecutive pairs of the original, those of its smallest subset first
    <copy>/index/             the same pairs in the order of the original
    <copy>/.copying/          until the copy is finished: tables of the pairs of each shard

A copy is a pool. A trial sees the same pairs in the same order as from the original, because the index keeps
the order, and a damaged pair stays one, which another replaces in training. The copy knows its subsets by
size and quality (`Pool.subset`).
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import chain
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from runners.data.build.build import PoolFolders
from runners.data.build.new_shards import plan_shards, write_index, write_pairs, write_shards
from runners.data.index.parts import ROWS_PER_GROUP, SCORE, Index
from runners.data.index.selection import SCORE_PREFIX, SUBSET_PREFIX, Subset, count_scored
from runners.data.index.writing import read_part
from runners.data.pool.damage import DAMAGE_TOLERANCE, Damage, check_tolerance
from runners.data.pool.describe import write_facts
from runners.data.pool.pictures import DecodeError, open_image, to_rgb
from runners.data.pool.pool import COPY_OF, Pool, copied_subset
from runners.data.pool.reader import in_shard_order, read_once
from runners.data.pool.shards import content_hash
from runners.host.workers import Workers
from runners.store.shard_reader import PIECE, pieces_by_request
from runners.store.shared_folder import SharedFolder

_WORK = ".copying/"
_SHARD_BYTES = 128 * 2**20  # large, so that also a small part of a shard is a long run
_MEMBERS_BYTES = 2048  # of headers, padding and caption of a pair
_GROUPS_SAMPLED = 64
_JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True, slots=True)
class SubsetCopy:
    """A copy of subsets of a pool.

    ``side`` are the pixels of the shorter side to which larger images are resized; None copies all images as
    they are. ``tolerance`` is the share of the pairs that may be damaged.
    """

    pool: Pool
    subsets: Sequence[tuple[str, int, str]]  # content id of the pool in a trial, pairs and quality
    side: int | None = None
    tolerance: float = DAMAGE_TOLERANCE

    @property
    def words(self) -> str:
        """The subsets in words."""
        subsets = ", ".join(f"{pairs:,} ({quality})" for _, pairs, quality in self.subsets)
        return f"pairs of {self.pool.name}: {subsets}"

    @property
    def name(self) -> str:
        """A name that identifies the content."""
        columns = {name: column.content for name, column in self.pool.columns.items()}
        content = json.dumps([sorted(self.subsets), self.side, *([columns] if columns else [])]).encode()
        digest = blake2b(content, digest_size=8).hexdigest()
        return f"{self.pool.name}-copy-{digest}"


def amplification(pool: Pool, subset: Subset) -> float:
    """Return the bytes that reading a subset in pieces fetches, over the bytes of its images.

    Of a large pool, up to 64 row groups of the index, evenly spaced, stand for all.
    """
    fetched = used = 0
    starts = range(0, pool.count, ROWS_PER_GROUP)
    for start in starts[:: -(-len(starts) // _GROUPS_SAMPLED)]:
        inside = np.flatnonzero(subset.mask(start, min(start + ROWS_PER_GROUP, pool.count)))
        if not len(inside):
            continue
        rows = pool.index.rows(start + inside, ("shard", "offset", "length"))
        _, wanted = in_shard_order(*(rows[name].to_numpy() for name in ("shard", "offset", "length")))
        for ranges in wanted:
            pieces = sum(map(len, pieces_by_request(ranges).values()))
            fetched += min(pieces * PIECE, pool.shards[ranges.shard])
            used += int(ranges.lengths.sum())
    return fetched / used if used else 1.0


def copy_subsets(
    copy: SubsetCopy, shared: SharedFolder, workers: Workers, report: Callable[[int, int], None]
) -> int:
    """Write a copy into an empty folder or below an empty URL, or continue an interrupted copy.

    Return the number of damaged pairs. ``report`` is called with the number of pairs that are copied, and of
    all, as far as the shards that are finished say it.

    Raises:
        ValueError: More pairs are damaged than tolerated; the next attempt reads these again.
        OSError: The place of the pool or of the copy can't be reached.
    """
    folders = PoolFolders(shared=shared, work=_WORK)
    rows = (pa.Table.from_pandas(some, preserve_index=False) for some in _cut(_rows(copy)))
    plan = plan_shards(folders, copy.name, rows, first=0)
    count = sum(plan.values())
    report(0, count)
    fill = partial(_fill, replace(copy.pool), copy.side)  # a pool without what it has read
    write_shards(folders, plan, fill, workers, lambda done, of, _: report(count * done // of, count))
    tables = {folders.table(number): pairs for number, pairs in plan.items()}
    columns = {name: pd.read_parquet(shared.path / name, columns=["damage"])["damage"] for name in tables}
    damaged = {name: [Damage(**json.loads(text)) for text in some if text] for name, some in columns.items()}
    every = [*chain(*damaged.values())]
    try:
        check_tolerance(every, pool=copy.pool.path, of=count, tolerance=copy.tolerance)
    except ValueError:
        shared.delete(*(name for name, some in damaged.items() if some))
        raise
    _describe(copy, shared, write_index(folders, tables, 0, workers, lambda *_: None), len(every))
    shared.publish()
    shared.delete(_WORK)
    return len(every)


def _rows(copy: SubsetCopy) -> Iterator[pd.DataFrame]:
    """Yield the rows of the index that any of the subsets has, with a column for each subset."""
    pool = copy.pool
    subsets = {
        SUBSET_PREFIX + copied_subset(size, quality): pool.subset(size=size, quality=quality)
        for size, quality in sorted({requested[1:] for requested in copy.subsets})
    }
    columns = [name for name in pool.index.columns if name != SCORE and not name.startswith(SUBSET_PREFIX)]
    for start in range(0, pool.count, ROWS_PER_GROUP):
        stop = min(start + ROWS_PER_GROUP, pool.count)
        masks = {name: subset.mask(start, stop) for name, subset in subsets.items()}
        inside = np.flatnonzero(np.logical_or.reduce([*masks.values()]))
        if len(inside):
            rows = pool.index.rows(start + inside, columns)
            yield rows.assign(**{name: mask[inside] for name, mask in masks.items()})


def _cut(stretches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield the rows of stretches again, as many at a time as a shard holds."""
    waiting = pd.DataFrame()
    for rows in stretches:
        waiting = pd.concat([waiting, rows], ignore_index=True)
        while len(full := np.flatnonzero((waiting["length"] + _MEMBERS_BYTES).cumsum() > _SHARD_BYTES)):
            yield waiting[: full[0] + 1]
            waiting = waiting[full[0] + 1 :].reset_index(drop=True)
    if len(waiting):
        yield waiting


def _fill(pool: Pool, side: int | None, file: IO[bytes], rows: pd.DataFrame, number: int) -> pd.DataFrame:
    """Write the pairs of a shard; see `Fill`."""
    images, damage = read_once(pool.place, rows)
    new = {name: rows[name].to_numpy().copy() for name in ("hash", "width", "height")}
    for row, caption in enumerate(rows["caption"]):
        if side is not None and row not in damage and (small := _resized(images[row], side)) is not None:
            images[row], (new["width"][row], new["height"][row]) = small
            new["hash"][row] = content_hash(images[row], caption)
    damage_json = [json.dumps(asdict(damage[row])) if row in damage else "" for row in range(len(rows))]
    rows = rows.assign(**new, length=[*map(len, images)], kind=[*map(_kind_of, images)], damage=damage_json)
    # Pairs of the smallest subset first: its column is the first, and lexsort's last key is the first one.
    members = [~rows[name].to_numpy() for name in rows.columns if name.startswith(SUBSET_PREFIX)]
    order = np.lexsort(members[::-1])
    keys = [f"{number:05d}{place:06d}" for place in range(len(rows))]
    return write_pairs(file, rows.iloc[order], [images[row] for row in order], keys).sort_index()


def _kind_of(image: bytes) -> str:
    return "png" if image.startswith(b"\x89PNG") else "webp" if image[8:12] == b"WEBP" else "jpg"


def _resized(content: bytes, side: int) -> tuple[bytes, tuple[int, int]] | None:
    """Return a JPEG with a shorter side, and its size; None for an image that stays as it is.

    That is one whose shorter side is not longer, or that training will find damaged.
    """
    try:
        with open_image(content) as image:
            width, height = image.size
            if (shorter := min(width, height)) <= side:
                return None
            rgb = to_rgb(image, side)
    except DecodeError:
        return None
    size = max(side, side * width // shorter), max(side, side * height // shorter)
    file = io.BytesIO()
    rgb.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue(), size


def _describe(copy: SubsetCopy, shared: SharedFolder, parts: Sequence[str], damaged: int) -> None:
    """Write the facts of a copy, which make it a pool."""
    pool = copy.pool
    loaded = [read_part(shared.path, name) for name in parts]
    sizes = shared.at.sizes([shard for part, _ in loaded for shard in part.shards])
    vocabulary = "".join(f"{word}\n" for word in pool.vocabulary)
    shared.file("vocabulary.txt").write_text(vocabulary, encoding="utf-8")
    index = Index(shared.path, [part.sized(sizes) for part, _ in loaded], loaded[0][1])
    provenance = {COPY_OF: pool.copy_of or str(pool.path), "side": copy.side, "damaged": damaged}
    scores = {
        name: replace(score, fingerprint=copy.name, pairs=count_scored(index, SCORE_PREFIX + name))
        for name, score in pool.scores.items()
    }
    write_facts(
        Pool(
            path=shared.path,
            name=copy.name,
            provenance=provenance,
            index=index,
            unranked=copy.name,
            scores=scores,
            ranked_by=pool.ranked_by,
            columns=pool.columns,
            subsets={copied_subset(pairs, quality): pairs for _, pairs, quality in copy.subsets},
        )
    )
