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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from runners.data.index.parts import ROWS_PER_GROUP, ROWS_PER_PART, Index, Part
from runners.data.index.selection import SUBSET_PREFIX
from runners.data.index.subset import Subset
from runners.data.index.writing import read_part
from runners.data.pool.damage import DAMAGE_TOLERANCE, Damage, check_tolerance
from runners.data.pool.describe import write_facts
from runners.data.pool.pictures import DecodeError, open_image, to_rgb
from runners.data.pool.pool import COPY_OF, Origin, Pool, copied_subset
from runners.data.pool.reader import in_shard_order, stored_image
from runners.data.pool.shards import close_shard, content_hash, write_sample
from runners.host.workers import Workers
from runners.store.copies import INDEX, listed
from runners.store.files import new_file
from runners.store.place import PIECE, FolderPlace
from runners.store.shared_folder import SharedFolder

_WORK = ".copying/"
_SHARD_BYTES = 128 * 2**20  # large, so that also a small part of a shard is a long run
_MEMBERS_BYTES = 2048  # of headers, padding and caption of a pair
_GROUPS_SAMPLED = 64
_JPEG_QUALITY = 95
_REPLACED = ("key", "offset", "length", "hash", "width", "height")
_NEW = "new:"  # prefix of the columns of a table that replace those of the original


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
        rows = pool.rows(start + inside, ("shard", "offset", "length"))
        _, wanted = in_shard_order(*(rows[name].to_numpy() for name in ("shard", "offset", "length")))
        for each in wanted:
            first, last = each.offsets // PIECE, (each.offsets + each.lengths - 1) // PIECE
            before = np.concatenate([[-9], np.maximum.accumulate(last)[:-1]])
            # A gap of one piece is fetched as well (`runners.store.place`).
            begin = np.maximum(before + 1, np.where(first - before == 2, first - 1, first))  # noqa: PLR2004
            pieces = int(np.maximum(last - begin + 1, 0).sum())
            fetched += min(pieces * PIECE, pool.shards[each.shard])
            used += int(each.lengths.sum())
    return fetched / used if used else 1.0


def copy_subsets(
    copy: SubsetCopy, shared: SharedFolder, workers: Workers, report: Callable[[int, int], None]
) -> None:
    """Write a copy into an empty folder or below an empty URL, or continue an interrupted copy.

    ``report`` is called with the pairs that are copied, and the number of all.

    Raises:
        ValueError: More pairs are damaged than tolerated; the next attempt reads these again.
        OSError: The place of the pool or of the copy can't be reached.
    """
    if shared.text("pool.json"):
        return
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
    _require_sound(copy, shared, tables)
    _describe(copy, shared, tables)
    shared.publish()
    shared.delete(_WORK)


def _counts(copy: SubsetCopy, shared: SharedFolder) -> list[int]:
    """Return the number of pairs of each shard, after writing a table of them, in the pool's order."""
    if known := shared.text(f"{_WORK}counts.json"):
        return [int(count) for count in json.loads(known)]
    counts = []
    for number, rows in enumerate(_cut(_rows(copy))):
        name = f"{_WORK}{number:05d}.todo.parquet"
        with new_file(shared.file(name)) as file:
            rows.to_parquet(file, index=False)
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
            rows = pool.rows(start + inside, columns)
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
    name, table = _shard(number), f"{_WORK}{number:05d}"
    with shared.here() as here:
        here.fetch([f"{table}.todo.parquet"])
        rows = pd.read_parquet(here.path / f"{table}.todo.parquet")
        with new_file(here.file(name)) as file:
            rows = rows.assign(**_write_tar(file, pool, rows, side, f"{number:05d}"))
        here.keep(name)
        with new_file(here.file(f"{table}.parquet")) as file:  # last: it marks the shard as done
            rows.to_parquet(file, index=False)
        here.keep(f"{table}.parquet")
    return len(rows)


def _write_tar(
    path: Path, pool: Pool, rows: pd.DataFrame, side: int | None, prefix: str
) -> Mapping[str, Any]:
    """Write the pairs of a shard; return the columns that replace those of the original, and the damage."""
    images, damage = _read(pool, rows)
    captions = rows["caption"].tolist()
    new = {name: rows[name].to_numpy().copy() for name in _REPLACED}
    # Pairs of the smallest subset first: its column is the first, and lexsort's last key is the first one.
    members = [~rows[name].to_numpy() for name in rows.columns if name.startswith(SUBSET_PREFIX)]
    with path.open("wb") as file:
        for place, row in enumerate(np.lexsort(members[::-1]).tolist()):
            image, key = images[row], f"{prefix}{place:06d}"
            if side is not None and not damage[row] and (small := _resized(image, side)) is not None:
                image, (new["width"][row], new["height"][row]) = small
                new["hash"][row] = content_hash(image, captions[row])
            kind = _kind(image)
            offsets = write_sample(file, key, {kind: image, "txt": captions[row].encode()})
            new["key"][row], new["offset"][row], new["length"][row] = key, offsets[kind], len(image)
        close_shard(file)
    return {_NEW + name: column for name, column in new.items()} | {"damage": damage}


def _read(pool: Pool, rows: pd.DataFrame) -> tuple[list[bytes], list[str]]:
    """Return images of rows, empty where damaged, and the reasons of the damage."""
    images, damage = [b""] * len(rows), [""] * len(rows)
    shards, offsets, lengths, texts, hashes = (
        rows[name].to_numpy() for name in ("shard", "offset", "length", "caption", "hash")
    )
    groups, wanted = in_shard_order(shards, offsets, lengths)
    for places, read in zip(groups, pool.place.reading(wanted), strict=True):
        for place in places.tolist():
            found = stored_image(read, offsets[place], lengths[place], texts[place], hashes[place])
            if isinstance(found, bytes):
                images[place] = found
            else:
                damage[place] = found
    return images, damage


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


def _kind(image: bytes) -> str:
    """Return the file ending of an image."""
    if image.startswith(b"\x89PNG"):
        return "png"
    return "webp" if image[8:12] == b"WEBP" else "jpg"


def _shard(number: int) -> str:
    return f"shards/{number:05d}.tar"


def _require_sound(copy: SubsetCopy, shared: SharedFolder, tables: Sequence[str]) -> None:
    """Raise ValueError if more pairs are damaged than tolerated, after deleting what has to be read again."""
    damage, pairs, torn = list[Damage](), 0, list[str]()
    for name in tables:
        found = pd.read_parquet(shared.path / name, columns=["shard", "key", "damage"])
        mine = found[found["damage"] != ""]
        damage += [Damage(shard=shard, key=key, reason=reason) for shard, key, reason in mine.to_numpy()]
        pairs, torn = pairs + len(found), torn + [name] * (len(mine) > 0)
    try:
        check_tolerance(damage, pool=copy.pool.path, of=pairs, tolerance=copy.tolerance)
    except ValueError:
        shared.delete(*torn)
        raise


def _describe(copy: SubsetCopy, shared: SharedFolder, tables: Sequence[str]) -> None:
    """Write the index of a copy in parts, and its facts, which make it a pool."""
    pool, parts, waiting = copy.pool, list[Part](), list[pd.DataFrame]()
    shards = map(_shard, range(len(tables)))
    sizes = listed("copy", shared.url) if shared.url else FolderPlace(shared.path).sizes([*shards])
    scored = damaged = 0
    counts = Counter[str]()
    columns = list[str]()
    for number, name in enumerate(tables):
        frame = pd.read_parquet(shared.path / name).assign(shard=_shard(number))
        damaged += int((frame.pop("damage") != "").sum())
        frame = frame.assign(**{each: frame.pop(_NEW + each) for each in _REPLACED})
        scored += int(frame["score"].notna().sum())
        counts.update(
            {each: int(frame[each].sum()) for each in map(str, frame) if each.startswith(SUBSET_PREFIX)}
        )
        waiting.append(frame)
        if sum(map(len, waiting)) >= ROWS_PER_PART or number == len(tables) - 1:
            file = f"{INDEX}{len(parts):05d}"
            with new_file(shared.file(f"{file}.parquet")) as partial_file:
                table = pa.Table.from_pandas(pd.concat(waiting), preserve_index=False)
                pq.write_table(table, partial_file, row_group_size=ROWS_PER_GROUP, write_page_checksum=True)
            part, columns = read_part(shared.path, file)
            parts.append(replace(part, shards={shard: sizes[shard] for shard in part.shards}))
            waiting.clear()
    vocabulary = "\n".join(pool.vocabulary)
    shared.file("vocabulary.txt").write_text(f"{vocabulary}\n", encoding="utf-8")
    index = Index(shared.path, parts, columns)
    provenance = {COPY_OF: pool.copy_of or str(pool.path), "side": copy.side, "damaged": damaged}
    write_facts(
        Pool(
            path=shared.path,
            origin=Origin(name=copy.name, scorer=pool.origin.scorer, provenance=provenance),
            count=index.count,
            scored=scored,
            fingerprint=copy.name,
            unranked=copy.name,
            index=index,
            subsets={name.removeprefix(SUBSET_PREFIX): count for name, count in counts.items()},
        )
    )
