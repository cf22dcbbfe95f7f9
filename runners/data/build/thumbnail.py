"""Perceptual comparison of images, to recognise images of evaluation sets in other files."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from runners.data.evaluation.evaluation_set import SetFolder
from runners.data.pool.pictures import DecodeError, open_image, to_rgb

SAME = "in an evaluation set"
ALIKE = "nearly the same as an image of an evaluation set"

_COLOURS, _GREYS = 8, 16  # pixels of a side
_OF_COLOURS = 3 * _COLOURS**2  # bytes

_LARGEST_DIFFERENCE = 16.0  # root mean square of 255, of colours
_LEAST_CORRELATION, _OF_NOISY = 0.92, 0.8  # of greys
_NOISE, _FLAT = 1.0, 0.5  # of 255: what re-encoding changes; the deviation of an image without content
_CROP = 0.03  # of each side, of a second thumbnail that finds images without their edges
"""Bounds of "nearly the same".

Measured on the embedded sprites, as icons of 40 or 96 pixels and as outlines on white, half of them as
evaluation set (`tests/runners/data/build/test_thumbnail.py`). Every JPEG of quality 60 to 90, WebP and
size of 0.5 to 1.5 is found (98 % of WebP of outlines 12 of 255 darker than white); cropped by up to 4 %
of a side, all icons and pale outlines are, 98 % of outlines 60 darker, and 91 % of those 120 darker. None
of the other half is taken for one of the set; by colours of 8 x 8 pixels alone, 90 % of the pale outlines
were. Of 8,192 scenes of the embedded pool, 18 are nearly the same as one of 2,000 held-out images, and 7
as one of another style.
"""

_AT_ONCE = 2**23  # correlations in memory


def thumbnail_of(image: Image.Image) -> tuple[int, bytes]:
    """Return a hash of an image's pixels in RGB, and its thumbnail: 8 x 8 in RGB, 16 x 16 in grey.

    The hash is the same in every lossless file format.
    """
    rgb = to_rgb(image)
    pixels = np.asarray(rgb)
    digest = blake2b(repr(pixels.shape).encode(), digest_size=8)
    digest.update(pixels.tobytes())
    # PIL's bilinear filter averages over all pixels when it shrinks an image; on icons it keeps re-encoded
    # images closer together than box averages do.
    colours = rgb.resize((_COLOURS, _COLOURS), Image.Resampling.BILINEAR)
    greys = rgb.convert("L").resize((_GREYS, _GREYS), Image.Resampling.BILINEAR)
    return int.from_bytes(digest.digest(), "little"), colours.tobytes() + greys.tobytes()


def file_hash(image: bytes) -> int:
    """Return a stable 64-bit hash of an image file's bytes."""
    return int.from_bytes(blake2b(image, digest_size=8).digest(), "little")


class EvaluationImages:
    """The images of evaluation sets, given folders of sets or pools; ValueError if one can't be read."""

    def __init__(self, folders: Iterable[Path]) -> None:
        sets = (SetFolder(path=folder) for folder in folders)
        rows = [(name, *_described(image)) for folder in sets for name, image in folder.image_files()]
        names, files, pixels, thumbnails = zip(*rows, strict=True) if rows else ((), (), (), ())
        self._names, self._files = np.array(names, str), np.array(files, np.uint64)
        self._pixels, self._thumbnails = np.array(pixels, np.uint64), _rows(thumbnails)
        self._colours, self._greys, deviation = _parts(self._thumbnails)
        noise = _NOISE / np.maximum(deviation, _FLAT)
        self._least = np.maximum(_OF_NOISY, _LEAST_CORRELATION - noise**2)
        self.digest = blake2b(
            b"".join(thumbnails) + repr((names, files)).encode(), digest_size=16
        ).hexdigest()

    def reasons(self, files: NDArray[np.uint64], made: Sequence[tuple[int, bytes]]) -> NDArray[np.object_]:
        """Return for each image ``SAME`` or ``ALIKE`` with the name of its match, or an empty string.

        Images are given by their `file_hash` and what `thumbnail_of` makes of them.
        """
        reasons = np.full(len(files), "", object)
        if not len(self._names) or not len(files):
            return reasons
        for reason, match in (
            (ALIKE, self._alike(_rows(thumbnail for _, thumbnail in made))),
            (SAME, _places(self._pixels, np.array([pixels for pixels, _ in made], np.uint64))),
            (SAME, _places(self._files, files)),
        ):
            reasons[match >= 0] = [f"{reason}: {name}" for name in self._names[match[match >= 0]]]
        return reasons

    def _alike(self, thumbnails: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return for each thumbnail the position of the image that it is nearly the same as, or -1.

        An image's contrast may be as low as the noise of its encoding, which then lowers the correlation.
        """
        matches = np.full(len(thumbnails), -1)
        step = max(1, _AT_ONCE // len(self._greys))
        for start in range(0, len(thumbnails), step):
            colours, greys, _ = _parts(thumbnails[start : start + step])
            correlations = greys @ self._greys.T
            rows, places = np.nonzero(correlations >= self._least)
            difference = np.sqrt(((colours[rows] - self._colours[places]) ** 2).mean(1))
            correlations[
                rows[difference > _LARGEST_DIFFERENCE], places[difference > _LARGEST_DIFFERENCE]
            ] = -1
            best = correlations.argmax(1)
            alike = correlations[np.arange(len(best)), best] >= self._least[best]
            matches[start : start + step][alike] = best[alike] // 2
        return matches


def _described(image: bytes) -> tuple[int, int, bytes]:
    """Return the hash of a file, that of its pixels, and thumbnails of the image and of the image cropped."""
    file = file_hash(image)
    try:
        with open_image(image) as opened:
            edges = (round(_CROP * side) for side in opened.size)
            pixels, whole = thumbnail_of(opened)
            return file, pixels, whole + thumbnail_of(ImageOps.crop(to_rgb(opened), (*edges,)))[1]
    except DecodeError:  # `data eval-sets` reports it; the hash of the file still finds exact copies
        return file, file, 2 * bytes(_OF_COLOURS + _GREYS**2)


def _rows(thumbnails: Iterable[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, _OF_COLOURS + _GREYS**2)


def _parts(
    thumbnails: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return colours, greys with a mean of 0 and a norm of 1 (0 without content), and their deviations."""
    colours, greys = thumbnails[:, :_OF_COLOURS].astype(np.float32), thumbnails[:, _OF_COLOURS:]
    centred = greys - greys.mean(1, keepdims=True, dtype=np.float32)
    deviation = np.sqrt((centred**2).mean(1, keepdims=True))
    norm = np.where(deviation >= _FLAT, deviation, np.inf).astype(np.float32) * _GREYS
    return colours, np.asarray(centred / norm, np.float32), np.asarray(deviation[:, 0], np.float32)


def _places(known: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the position of each value among the known ones, or -1."""
    order = np.argsort(known)
    place = order[np.searchsorted(known, values, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[place] == values, place, -1)
