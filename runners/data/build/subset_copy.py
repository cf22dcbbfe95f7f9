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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from runners.data.index.parts import ROWS_PER_GROUP, ROWS_PER_PART, Index, Part
from runners.data.index.selection import SUBSET_PREFIX, count_scored
from runners.data.index.subset import Subset
from runners.data.pool.damage import DAMAGE_TOLERANCE, Damage, check_tolerance
from runners.data.pool.describe import write_facts
from runners.data.pool.pictures import DecodeError, open_image, to_rgb
from runners.data.pool.pool import COPY_OF, Origin, Pool, copied_subset
from runners.data.pool.reader import in_shard_order, stored_image
from runners.data.pool.shards import close_shard, content_hash, write_sample
from runners.host.workers import Workers
from runners.store.copies import INDEX
from runners.store.files import new_file
from runners.store.place import PIECE, pieces_by_request
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
        return f"pairs of {self.pool.origin.name}: {subsets}"

    @property
    def name(self) -> str:
        """A name that identifies the content."""
        content = json.dumps([sorted(self.subsets), self.side]).encode()
        digest = blake2b(content, digest_size=8).hexdigest()
        return f"{self.pool.origin.name}-copy-{digest}"


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
        for each in wanted:
            pieces = sum(map(len, pieces_by_request(each).values()))
            fetched += min(pieces * PIECE, pool.shards[each.shard])
            used += int(each.lengths.sum())
    return fetched / used if used else 1.0


def copy_subsets(
    copy: SubsetCopy, shared: SharedFolder, workers: Workers, report: Callable[[int, int], None]
) -> int:
    """Write a copy into an empty folder or below an empty URL, or continue an interrupted copy.

    Return the number of damaged pairs. ``report`` is called with the number of pairs that are copied, and of
    all.

    Raises:
        ValueError: More pairs are damaged than tolerated; the next attempt reads these again.
        OSError: The place of the pool or of the copy can't be reached.
    """
    counts = _counts(copy, shared)
    tables = [f"{_WORK}{number:05d}.parquet" for number in range(len(counts))]
    there = shared.names(_WORK)
    left = [number for number, name in enumerate(tables) if name.removeprefix(_WORK) not in there]
    done = sum(counts) - sum(counts[number] for number in left)
    report(done, sum(counts))
    write = partial(_write_shard, replace(copy.pool), copy.side, shared)  # a pool without what it has read
    for _, pairs in workers.map(write, left, "shard {} of the copy".format):
        done += pairs
        report(done, sum(counts))
    shared.fetch(tables)
    damaged = [[*_damage(shared.path / name)] for name in tables]
    try:
        every = [*chain(*damaged)]
        check_tolerance(every, pool=copy.pool.path, of=done, tolerance=copy.tolerance)
    except ValueError:
        shared.delete(*(name for name, some in zip(tables, damaged, strict=True) if some))
        raise
    _describe(copy, shared, tables, len(every))
    shared.publish()
    shared.delete(_WORK)
    return len(every)


def _counts(copy: SubsetCopy, shared: SharedFolder) -> list[int]:
    """Return the number of pairs of each shard, after writing a table of them, in the pool's order."""
    if known := shared.text(f"{_WORK}counts.json"):
        return [int(count) for count in json.loads(known)]
    counts = []
    for number, rows in enumerate(_cut(_rows(copy))):
        name = f"{_WORK}{number:05d}.todo.parquet"
        rows.to_parquet(shared.file(name), index=False)
        shared.keep(name)
        counts.append(len(rows))
    shared.write(f"{_WORK}counts.json", json.dumps(counts))  # last: all tables are there
    return counts


def _rows(copy: SubsetCopy) -> Iterator[pd.DataFrame]:
    """Yield the rows of the index that any of the subsets has, with a column for each subset."""
    pool = copy.pool
    subsets = {
        SUBSET_PREFIX + copied_subset(size, quality): pool.subset(size=size, quality=quality)
        for size, quality in sorted({each[1:] for each in copy.subsets})
    }
    columns = [name for name in pool.index.columns if not name.startswith(SUBSET_PREFIX)]
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


def _write_shard(pool: Pool, side: int | None, shared: SharedFolder, number: int) -> int:
    """Write a shard, and then its pairs as rows of the index, with their damage; return their number."""
    name, table = f"shards/{number:05d}.tar", f"{_WORK}{number:05d}"
    with shared.here() as here:
        here.fetch([f"{table}.todo.parquet"])
        rows = pd.read_parquet(here.path / f"{table}.todo.parquet")
        with new_file(here.file(name)) as path, path.open("wb") as file:
            columns = _write_tar(file, pool, rows, side, f"{number:05d}")
        here.keep(name)
        with new_file(here.file(f"{table}.parquet")) as path:
            rows.assign(shard=name, **columns).to_parquet(path, index=False)
        here.keep(f"{table}.parquet")
    return len(rows)


def _write_tar(
    file: IO[bytes], pool: Pool, rows: pd.DataFrame, side: int | None, prefix: str
) -> Mapping[str, Any]:
    """Write the pairs of a shard; return the columns that differ from those of the original."""
    images, damage = _read(pool, rows)
    captions = rows["caption"].tolist()
    names = ("key", "offset", "length", "hash", "width", "height")
    new = {name: rows[name].to_numpy().copy() for name in names}
    # Pairs of the smallest subset first: its column is the first, and lexsort's last key is the first one.
    members = [~rows[name].to_numpy() for name in rows.columns if name.startswith(SUBSET_PREFIX)]
    for place, row in enumerate(np.lexsort(members[::-1]).tolist()):
        image, key = images[row], f"{prefix}{place:06d}"
        if side is not None and not damage[row] and (small := _resized(image, side)) is not None:
            image, (new["width"][row], new["height"][row]) = small
            new["hash"][row] = content_hash(image, captions[row])
        kind = "png" if image.startswith(b"\x89PNG") else "webp" if image[8:12] == b"WEBP" else "jpg"
        offsets = write_sample(file, key, {kind: image, "txt": captions[row].encode()})
        new["key"][row], new["offset"][row], new["length"][row] = key, offsets[kind], len(image)
    close_shard(file)
    return new | {"damage": damage}


def _read(pool: Pool, rows: pd.DataFrame) -> tuple[list[bytes], list[str]]:
    """Return images of rows, empty where damaged, and the damage as JSON, empty elsewhere."""
    images, damage = [b""] * len(rows), [""] * len(rows)
    shards, keys, offsets, lengths, texts, hashes = (
        rows[name].to_numpy() for name in ("shard", "key", "offset", "length", "caption", "hash")
    )
    groups, wanted = in_shard_order(shards, offsets, lengths)
    for places, read in zip(groups, pool.place.reading(wanted), strict=True):
        for place in places.tolist():
            found = stored_image(read, offsets[place], lengths[place], texts[place], hashes[place])
            if isinstance(found, bytes):
                images[place] = found
            else:
                damage[place] = json.dumps(asdict(Damage(shard=shards[place], key=keys[place], reason=found)))
    return images, damage


def _damage(table: Path) -> Iterator[Damage]:
    """Yield the damaged pairs of a shard."""
    return (
        Damage(**json.loads(each)) for each in pd.read_parquet(table, columns=["damage"])["damage"] if each
    )


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


def _describe(copy: SubsetCopy, shared: SharedFolder, tables: Sequence[str], damaged: int) -> None:
    """Write the index of a copy in parts, and its facts, which make it a pool."""
    pool, parts, waiting = copy.pool, list[Part](), list[pd.DataFrame]()
    shards = [f"shards/{number:05d}.tar" for number in range(len(tables))]
    sizes = shared.at.sizes(shards)
    for name in tables:
        waiting.append(pd.read_parquet(shared.path / name).drop(columns="damage"))
        if sum(map(len, waiting)) >= ROWS_PER_PART or name == tables[-1]:
            file, rows = f"{INDEX}{len(parts):05d}", pd.concat(waiting)
            table = pa.Table.from_pandas(rows, preserve_index=False)
            with new_file(shared.file(f"{file}.parquet")) as path:
                pq.write_table(table, path, row_group_size=ROWS_PER_GROUP, write_page_checksum=True)
            inside = {shard: sizes[shard] for shard in rows["shard"].unique()}
            parts.append(Part(file=file, rows=len(rows), shards=inside))
            waiting.clear()
    vocabulary = "".join(f"{word}\n" for word in pool.vocabulary)
    shared.file("vocabulary.txt").write_text(vocabulary, encoding="utf-8")
    index = Index(shared.path, parts, table.column_names)
    provenance = {COPY_OF: pool.copy_of or str(pool.path), "side": copy.side, "damaged": damaged}
    write_facts(
        Pool(
            path=shared.path,
            origin=Origin(name=copy.name, scorer=pool.origin.scorer, provenance=provenance),
            count=index.count,
            scored=count_scored(index, "score"),
            fingerprint=copy.name,
            unranked=copy.name,
            index=index,
            subsets={copied_subset(pairs, quality): pairs for _, pairs, quality in copy.subsets},
        )
    )
