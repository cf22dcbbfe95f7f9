"""Perceptual comparison of images, to recognise images of evaluation sets in other files."""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from runners.data.evaluation.evaluation_set import image_files
from runners.data.pool.pictures import DecodeError, open_image, to_rgb

SAME = "in an evaluation set"
ALIKE = "nearly the same as an image of an evaluation set"

LARGEST_DIFFERENCE = 2.0
"""Root-mean-square difference (of 255) up to which two thumbnails count as the same image's.

Measured: 600 icons, re-encoded as JPEG of quality 60 to 90 or WebP or resized by 0.5 to 1.5, all stay below
1.8. Of 7,447 icons, 11 are within 2.0 of a different one. Of 8,192 scenes of the embedded pool, one is within
2.0 of any of the 3,512 images of its evaluation sets.
"""

_SIDE = 8


def thumbnail_of(image: Image.Image) -> tuple[int, bytes]:
    """Return a hash of an image's pixels in RGB, and its thumbnail: 8 x 8 pixels in RGB, 192 bytes.

    The hash is the same in every lossless file format.
    """
    rgb = to_rgb(image)
    pixels = np.asarray(rgb)
    digest = blake2b(repr(pixels.shape).encode(), digest_size=8)
    digest.update(pixels.tobytes())
    # PIL's bilinear filter averages over all pixels when it shrinks an image; on icons it keeps re-encoded
    # images closer together than box averages do.
    small = rgb.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return int.from_bytes(digest.digest(), "little"), small.tobytes()


def file_hash(image: bytes) -> int:
    """Return a stable 64-bit hash of an image file's bytes."""
    return int.from_bytes(blake2b(image, digest_size=8).digest(), "little")


class EvaluationImages:
    """The images of evaluation sets, given folders of sets or pools; ValueError if one can't be read."""

    def __init__(self, folders: Iterable[Path]) -> None:
        files, pixels, thumbnails = set[int](), set[int](), []
        for folder in folders:
            for image in image_files(folder):
                files.add(file_hash(image))
                try:
                    with open_image(image) as opened:
                        pixel_hash, thumbnail = thumbnail_of(opened)
                except DecodeError:
                    continue  # `data eval-sets` reports it; the hash of the file still finds exact copies
                pixels.add(pixel_hash)
                thumbnails.append(thumbnail)
        self._take(np.array(sorted(files), np.uint64), np.array(sorted(pixels), np.uint64), _rows(thumbnails))

    def _take(
        self, files: NDArray[np.uint64], pixels: NDArray[np.uint64], thumbnails: NDArray[np.uint8]
    ) -> None:
        self._files, self._pixels, self._thumbnails = files, pixels, thumbnails
        self._tree = cKDTree(thumbnails.astype(np.float32)) if len(thumbnails) else None

    def save(self, path: Path) -> None:
        """Write what `load` reads."""
        with path.open("wb") as file:
            np.savez(file, files=self._files, pixels=self._pixels, thumbnails=self._thumbnails)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        known = cls([])
        with np.load(path) as found:
            known._take(found["files"], found["pixels"], found["thumbnails"])
        return known

    def reasons(
        self, files: NDArray[np.uint64], pixels: NDArray[np.uint64], thumbnails: Iterable[bytes]
    ) -> NDArray[np.object_]:
        """Return for each image whether it is one of these: ``SAME``, ``ALIKE``, or an empty string.

        Images are given by their `file_hash`, and by the hash of pixels and the thumbnail of `thumbnail_of`.
        """
        found = np.full(len(files), "", object)
        if self._tree is not None and len(files):
            # Root mean square over 192 numbers → Euclidean distance.
            most = LARGEST_DIFFERENCE * np.sqrt(3) * _SIDE
            distance, _ = self._tree.query(_rows(thumbnails).astype(np.float32), distance_upper_bound=most)
            found[np.isfinite(distance)] = ALIKE
        found[np.isin(files, self._files) | np.isin(pixels, self._pixels)] = SAME
        return found


def _rows(thumbnails: Iterable[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, 3 * _SIDE**2)
