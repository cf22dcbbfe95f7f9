"""Reading of a pool's pairs by row: images directly from their offset in the shards, checked by hash."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, repeat

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from runners.data.index.selection import Subset
from runners.data.pool.damage import Damage
from runners.data.pool.pictures import DecodeError, open_image, to_rgb
from runners.data.pool.pool import Pool
from runners.data.pool.shards import content_hash
from runners.store.shard_reader import Read, ShardRanges, ShardReader

_MOST_RESIZED = 2**24
"""Pixels of a resized image up to which it is resized as a whole, before it is cropped."""

DECODING = 2
"""Version of `decode_image`: increased when it gives other pixels."""

Stored = Callable[[int], bytes | Damage]
"""Position of a row → its image file, or the damage."""

READ_COLUMNS = ("key", "shard", "offset", "length", "caption", "hash")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Decoded pairs."""

    images: NDArray[np.uint8]  # (n, 3, S, S), RGB
    places: NDArray[np.int64]  # in the subset, (n,): those asked for, or of pairs that replace damaged ones
    rows: pd.DataFrame  # of the index
    damage: tuple[Damage, ...]  # pairs that could not be read, each once; others of the subset replace them


def read_pairs(  # noqa: PLR0913 - independent options
    pool: Pool,
    subset: Subset | NDArray[np.int64],
    places: NDArray[np.int64],
    image_size: int,
    *,
    threads: int = 1,
    look_up: Callable[[NDArray[np.int64]], pd.DataFrame] | None = None,
) -> Pairs:
    """Read pairs of a subset; a damaged pair is replaced by the next undamaged one of the subset.

    The replacement depends on the subset alone, not on batches, workers or ranks, and the number of pairs is
    always the requested one.

    ``subset`` has positions in the pool's index, ascending; ``places`` are positions in the subset, in any
    order, repeats allowed. Images are decoded as by `decode_rows`. ``look_up`` returns `READ_COLUMNS`, and
    perhaps others, of the index for some of these positions; by default they are read from it.

    Raises:
        ValueError: No pair of the subset can be read.
    """
    chosen, todo = places.copy(), np.arange(len(places))
    images = np.empty((len(places), 3, image_size, image_size), np.uint8)
    read, last, damage = list[pd.DataFrame](), todo.copy(), dict[int, Damage]()
    while len(todo):
        rows = look_up(chosen[todo]) if look_up else pool.index.rows(subset[chosen[todo]], READ_COLUMNS)
        images[todo], failures = decode_rows(pool, rows, image_size, threads)
        last[todo] = sum(map(len, read)) + np.arange(len(todo))
        read.append(rows)
        damage |= {int(chosen[todo[place]]): failure for place, failure in failures.items()}
        if len(damage) >= len(subset):
            raise ValueError(f"no pair of the subset can be read; {next(iter(damage.values()))}")
        todo = todo[sorted(failures)]
        for place in todo.tolist():
            while int(chosen[place]) in damage:
                chosen[place] = (chosen[place] + 1) % len(subset)
    rows = read[0] if len(read) == 1 else pd.concat(read).iloc[last]
    return Pairs(images=images, places=chosen, rows=rows, damage=tuple(damage.values()))


def decode_image(payload: bytes, image_size: int) -> NDArray[np.uint8]:
    """Decode one image file to uint8 (3, S, S), RGB; resized and cropped to S as in ``decode_rows``.

    Raises:
        DecodeError: The image cannot be decoded, or is too large or too narrow.
    """
    with open_image(payload) as image:
        rgb = to_rgb(image, image_size)
    if image_size**2 * max(rgb.size) / min(rgb.size) > _MOST_RESIZED:
        # Cropped before resizing too: enlarging a long strip would take gigabytes.
        across, down = (min(side, 2 * min(rgb.size)) for side in rgb.size)
        left, top = (rgb.width - across) // 2, (rgb.height - down) // 2
        rgb = rgb.crop((left, top, left + across, top + down))
    if rgb.size != (image_size, image_size):
        shorter = min(rgb.size)
        # Rounded as in torchvision, which open_clip uses for evaluation.
        width, height = (int(image_size * side / shorter) for side in rgb.size)
        left, top = round((width - image_size) / 2), round((height - image_size) / 2)
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
        rgb = rgb.crop((left, top, left + image_size, top + image_size))
    return np.asarray(rgb).transpose(2, 0, 1)


def decode_rows(
    pool: Pool,
    rows: pd.DataFrame,
    image_size: int,
    threads: int = 1,
    decode_to: Callable[[bytes], NDArray[np.uint8]] | None = None,
) -> tuple[NDArray[np.uint8], dict[int, Damage]]:
    """Decode images, uint8 (rows, 3, S, S), black where damaged; return them and the damage by position.

    ``rows`` are `READ_COLUMNS` of the index. An image of another size than S is resized (bicubic) so that its
    shorter side is S, and centre-cropped, as open_clip does for evaluation; ``decode_to`` decodes and resizes
    a file to (3, S, S) in another way, or raises a DecodeError. Threads help with large images (small ones
    mostly hold Python's lock).

    Raises:
        OSError: The pool's storage cannot be read.
    """
    images = np.zeros((len(rows), 3, image_size, image_size), np.uint8)
    damage: dict[int, Damage] = {}

    pixels = decode_to or partial(decode_image, image_size=image_size)

    def decode(stored: Stored, place: int) -> None:
        # Outside the try: another read error is a problem of the storage, maybe temporary, not of the image.
        content = stored(place)
        if isinstance(content, Damage):
            damage[place] = content
            return
        try:
            images[place] = pixels(content)
        except DecodeError as error:
            of = rows.iloc[place]
            damage[place] = Damage(shard=of["shard"], key=of["key"], reason=error.reason)

    with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as workers:
        run = workers.map if workers else map
        for places, stored in _stored_images(pool.place, rows):
            list(run(decode, repeat(stored), places))
    return images, damage


def read_once(place: ShardReader, rows: pd.DataFrame) -> tuple[list[bytes], dict[int, Damage]]:
    """Return the image files of rows of an index, empty where damaged, and the damage by position.

    Raises:
        OSError: The place cannot be read.
    """
    images, damage = [b""] * len(rows), dict[int, Damage]()
    for places, stored in _stored_images(place, rows, once=True):
        for number in places:
            if isinstance(content := stored(number), Damage):
                damage[number] = content
            else:
                images[number] = content
    return images, damage


def _stored_images(
    place: ShardReader, rows: pd.DataFrame, *, once: bool = False
) -> Iterator[tuple[list[int], Stored]]:
    """Yield, shard by shard, positions of rows of an index, and what reads their images until the next shard.

    It returns an image file's bytes, or the damage where they are not the bytes that were indexed. Another
    error than of the image is an OSError.
    """
    shards, keys, offsets, lengths, hashes, texts = (
        rows[name].to_numpy() for name in ("shard", "key", "offset", "length", "hash", "caption")
    )

    def stored(read: Read, row: int) -> bytes | Damage:
        reason = ""
        for again in (False, True):
            try:
                payload = read(int(offsets[row]), int(lengths[row]), again=again)
            except FileNotFoundError:
                reason = "shard missing"
                break
            if len(payload) == lengths[row] and content_hash(payload, texts[row]) == hashes[row]:
                return payload
            short = len(payload) < lengths[row]
            reason = "shard cut short" if short else "not the bytes that were indexed"
        return Damage(shard=shards[row], key=keys[row], reason=reason)

    groups, wanted = in_shard_order(shards, offsets, lengths)
    for places, read in zip(groups, place.reading(wanted, once=once), strict=True):
        yield places.tolist(), partial(stored, read)


def in_shard_order(
    shards: NDArray[np.object_], offsets: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[list[NDArray[np.int64]], list[ShardRanges]]:
    """Group ranges by shard, front to back, for few open files and long sequential reads.

    Returns the positions in each group, and its ranges.
    """
    order = np.lexsort((offsets, shards.astype(str)))
    ends = [*np.flatnonzero(shards[order][1:] != shards[order][:-1]) + 1, len(order)]
    groups = [order[start:end] for start, end in pairwise([0, *ends])] if len(order) else []
    return groups, [
        ShardRanges(shard=shards[places[0]], offsets=offsets[places], lengths=lengths[places])
        for places in groups
    ]
