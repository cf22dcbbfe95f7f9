"""Reading a pool's pairs by row: images straight from their place in the shards."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runners.data.pool import Pool


def read_images(
    pool: Pool, rows: NDArray[np.int64], image_size: int, *, threads: int = 1
) -> NDArray[np.uint8]:
    """Decodes images.

    Args:
        pool: Where from.
        rows: Positions in the pool's index, in any order, repeats allowed.
        image_size: Side S of the result in pixels. Where an image has another size, its shorter side is
            brought to S (bicubic) and the middle is cut out, as open_clip does for evaluation.
        threads: That decode side by side; for large images (small ones hold Python's lock most of the time).

    Returns:
        uint8 (rows, 3, S, S), RGB, in the order of ``rows``.

    Raises:
        ValueError: If an image cannot be decoded; the message names the shard and the key.
    """
    images = np.empty((len(rows), 3, image_size, image_size), np.uint8)
    chosen = pool.index[["key", "shard", "offset", "length"]].iloc[rows]
    shards, offsets, lengths = (chosen[name].to_numpy() for name in ("shard", "offset", "length"))
    # Shard by shard and front to back, whatever the order asked for: few opened files, long runs.
    order = np.lexsort((offsets, shards.astype(str)))
    ends = [*np.flatnonzero(shards[order][1:] != shards[order][:-1]) + 1, len(order)]

    def decode(file: int, place: int) -> None:
        payload = os.pread(file, int(lengths[place]), int(offsets[place]))
        try:
            images[place] = decode_image(payload, image_size)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            name, key = chosen["shard"].iloc[place], chosen["key"].iloc[place]
            raise ValueError(f"cannot decode image {key} of shard {pool.path / name}: {error}") from error

    with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as workers:
        run = workers.map if workers else map
        start = 0
        for end in ends if len(order) else []:
            places = order[start:end].tolist()
            with (pool.path / shards[places[0]]).open("rb") as file:
                list(run(decode, [file.fileno()] * len(places), places))
            start = end
    return images


def captions(pool: Pool, rows: NDArray[np.int64]) -> list[str]:
    """The captions of rows of the pool's index, in their order."""
    texts: list[str] = pool.index["caption"].iloc[rows].tolist()
    return texts


def decode_image(payload: bytes, image_size: int) -> NDArray[np.uint8]:
    """Decodes one image file to uint8 (3, S, S), RGB; resized and cropped to S as in ``read_images``.

    Raises:
        OSError: If it cannot be decoded (as PIL raises it).
    """
    with Image.open(io.BytesIO(payload)) as image:
        # A JPEG can be decoded at half or a quarter of its size, in a fraction of the time.
        image.draft("RGB", (image_size, image_size))
        rgb = image.convert("RGB")
    if rgb.size != (image_size, image_size):
        shorter = min(rgb.size)
        # Rounded as torchvision does, which is what open_clip evaluates with.
        width, height = (int(image_size * side / shorter) for side in rgb.size)
        left, top = round((width - image_size) / 2), round((height - image_size) / 2)
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
        rgb = rgb.crop((left, top, left + image_size, top + image_size))
    return np.asarray(rgb).transpose(2, 0, 1)
