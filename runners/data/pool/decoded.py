"""Decoded images in this machine's cache: made by the first process that needs them, mapped by all.

A file has the images one after another, notes on them as JSON, and the length of the JSON in eight bytes.
"""

import errno
import json
import os
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from runners.data.pool.reader import DECODING
from runners.store.cache import Cache
from runners.store.files import new_file

Images = NDArray[np.uint8]
"""Images, uint8 (n, 3, S, S), RGB."""

_LENGTH = 8


def decoded_images(
    cache: Cache, identity: str, size: int, make: Callable[[], Iterable[tuple[Images, Sequence[Any]]]]
) -> tuple[Images, list[Any]] | None:
    """Return images of S = ``size`` pixels and all notes on them, from the cache or made now.

    ``make`` yields some images and notes at a time. ``identity`` is what determines them beside the size and
    the way of decoding. Of several processes one makes them, and the others wait. A write to the images
    changes a private copy. None if the cache has no room for them.
    """
    name = _name(identity, size)

    def write(path: Path) -> None:
        notes: list[Any] = []
        with new_file(path, sync=False) as partial, partial.open("wb") as file:
            for images, some in make():
                if not cache.has_room(file.tell(), images.nbytes):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                file.write(np.ascontiguousarray(images).data)
                notes += some
            text = json.dumps(notes).encode()
            file.write(text + len(text).to_bytes(_LENGTH, "little"))

    try:
        if mapped := _mapped(cache.keep(name, write), size):
            return mapped
        return _mapped(cache.keep(name, write), size)
    except OSError:
        return None


def kept_images(cache: Cache, identity: str, size: int) -> tuple[Images, list[Any]] | None:
    """Return images and notes that `decoded_images` has kept, without waiting; None if there are none."""
    path = cache.kept(_name(identity, size))
    return None if path is None else _mapped(path, size)


def _name(identity: str, size: int) -> str:
    facts = f"{identity} {size} {PIL.__version__} {DECODING}"
    return f"decoded/{blake2b(facts.encode(), digest_size=16).hexdigest()}"


def _mapped(path: Path, size: int) -> tuple[Images, list[Any]] | None:
    """Open a file; remove it and return None if a power failure has cut it."""
    try:
        content = np.memmap(path, np.uint8, "c")
        end = len(content) - _LENGTH
        start = end - int.from_bytes(content[end:].tobytes(), "little")
        return content[:start].reshape(-1, 3, size, size), json.loads(content[start:end].tobytes())
    except ValueError:
        path.unlink(missing_ok=True)
        return None
    except FileNotFoundError:  # removed to make room
        return None
