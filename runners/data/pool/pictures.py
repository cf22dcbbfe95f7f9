"""Opening and decoding of image files, bounded in pixels and aspect."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

MAX_PIXELS = 100_000_000
"""Larger images are rejected as an attempt to fill the memory."""

MAX_ASPECT = 1000
"""Ratio of the sides above which an image is rejected."""

_DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N")


class DecodeError(OSError):
    """An image that cannot be used."""

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(f"{reason}: {details}" if details else reason)
        self.reason = reason


@contextmanager
def open_image(content: bytes) -> Iterator[Image.Image]:
    """Context manager: an image file whose header alone has been read, to decode it within.

    Raises:
        DecodeError: It is not an image, is too large or too narrow, or cannot be decoded.
    """
    try:
        image = Image.open(io.BytesIO(content))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DecodeError("image too large") from None
    except Exception as error:
        raise DecodeError("unreadable image", str(error)) from error
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise DecodeError("image too large")
        if max(image.size) > MAX_ASPECT * min(image.size):
            raise DecodeError("image too narrow")
        try:
            yield image
        except Exception as error:  # decoders raise many types of errors
            raise DecodeError("unreadable image", str(error)) from error


def to_rgb(image: Image.Image, smallest: int | None = None) -> Image.Image:
    """Decode an opened image to RGB, 16-bit grey by its upper 8 bits.

    If a side of ``smallest`` pixels suffices, a JPEG is decoded at half or a quarter of its size, in a
    fraction of the time.
    """
    if smallest is not None:
        image.draft("RGB", (smallest, smallest))
    image.load()
    if image.mode in _DEEP_GREY:  # PIL would cut all above 255 to white
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
