"""What an image looks like, so that one of an evaluation set is known again in another file of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from runners.data.evaluation.evaluation_set import image_files

SAME = "in an evaluation set"
ALIKE = "nearly the same as an image of an evaluation set"

LARGEST_DIFFERENCE = 2.0
"""Root mean square of the difference, of 255, up to which two thumbnails are taken for the same image's.

Measured: 600 icons, written as JPEG of quality 60 to 90 or WebP or at 0.5 to 1.5 times their size, all stay
below 1.8; of 7,447 icons, 11 are as near as 2.0 to another one without being the same. Of 8,192 scenes of the
embedded pool, one is as near as that to any of 3,512 of its evaluation sets.
"""

_SIDE = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Thumbnail:
    """What is kept of a decoded image.

    Attributes:
        pixels: A hash of its pixels in RGB; the same whatever the file's format, if that loses nothing.
        thumbnail: Its 8 x 8 pixels in RGB, 192 bytes.
    """

    pixels: int
    thumbnail: bytes


def look_of(image: Image.Image) -> Thumbnail:
    """Look at a decoded image."""
    rgb = image.convert("RGB")
    pixels = np.asarray(rgb)
    digest = blake2b(repr(pixels.shape).encode(), digest_size=8)
    digest.update(pixels.tobytes())
    # PIL's bilinear filter covers all pixels when it makes an image smaller; on icons it keeps re-encoded
    # images nearer to each other than means over boxes do.
    small = rgb.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return Thumbnail(pixels=int.from_bytes(digest.digest(), "little"), thumbnail=small.tobytes())


def file_hash(image: bytes) -> int:
    """A stable 64-bit hash of an image file's bytes."""
    return int.from_bytes(blake2b(image, digest_size=8).digest(), "little")


class Known:
    """The images of evaluation sets.

    Args:
        folders: The sets, or pools.

    Raises:
        ValueError: If one of them cannot be read.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        files, pixels, thumbnails = set[int](), set[int](), []
        for folder in folders:
            for image in image_files(folder):
                files.add(file_hash(image))
                try:
                    with Image.open(BytesIO(image)) as opened:
                        look = look_of(opened)
                except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                    continue  # `data eval-sets` tells of it; the file's bytes are known at least
                pixels.add(look.pixels)
                thumbnails.append(look.thumbnail)
        self._files, self._pixels = (np.array(sorted(each), np.uint64) for each in (files, pixels))
        self._tree = cKDTree(_points(thumbnails)) if thumbnails else None

    def reasons(
        self, files: NDArray[np.uint64], pixels: NDArray[np.uint64], thumbnails: Iterable[bytes]
    ) -> NDArray[np.object_]:
        """Says of each image whether it is one of these: ``SAME``, ``ALIKE``, or nothing.

        Args:
            files: ``file_hash`` of each.
            pixels: ``Look.pixels`` of each.
            thumbnails: ``Look.thumbnail`` of each.
        """
        found = np.full(len(files), "", object)
        if self._tree is not None and len(files):
            # In units of the distance over all 192 numbers.
            most = LARGEST_DIFFERENCE * np.sqrt(3) * _SIDE
            distance, _ = self._tree.query(_points(thumbnails), distance_upper_bound=most)
            found[np.isfinite(distance)] = ALIKE
        found[np.isin(files, self._files) | np.isin(pixels, self._pixels)] = SAME
        return found


def _points(thumbnails: Iterable[bytes]) -> NDArray[np.float32]:
    return np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, 3 * _SIDE**2).astype(np.float32)
