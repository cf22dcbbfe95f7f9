"""Reading of images and captions by row."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms

from runners.data.pool.pool import Pool
from runners.data.pool.reader import decode_image
from runners.embedded.embedded_pool import TrainingPairs
from tests.runners.data.images import captions, read_images, write_pool


def test_images_and_captions_are_those_that_were_written(tmp_path: Path) -> None:
    pairs = TrainingPairs(seed=2, count=40)
    pool = write_pool(tmp_path / "p", pairs, None)
    by_caption = {pair.image.tobytes(): pair.caption for pair in pairs}
    rows = np.arange(40)
    images = read_images(pool, rows, 32).transpose(0, 2, 3, 1)
    assert [by_caption[np.ascontiguousarray(image).tobytes()] for image in images] == captions(pool, rows)


def test_rows_keep_the_requested_order_and_repeats(pool: Pool) -> None:
    rows = np.array([400, 3, 3, 77, 0])
    together = read_images(pool, rows, 32)
    alone = np.concatenate([read_images(pool, rows[[place]], 32) for place in range(5)])
    assert together.shape == (5, 3, 32, 32)
    assert np.array_equal(together, alone)
    assert captions(pool, rows) == pool.frame["caption"].iloc[rows].tolist()


def test_threads_change_nothing(pool: Pool) -> None:
    rows = np.random.default_rng(0).permutation(pool.count)
    assert np.array_equal(read_images(pool, rows, 32, threads=3), read_images(pool, rows, 32))


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(("height", "width"), [(90, 61), (61, 90), (1, 300), (33, 32), (20, 31)])
def test_resizing_is_open_clips_evaluation_transform_to_the_pixel(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    bicubic = transforms.InterpolationMode.BICUBIC
    how = transforms.Compose([transforms.Resize(32, bicubic), transforms.CenterCrop(32)])
    expected = np.asarray(how(Image.fromarray(pixels))).transpose(2, 0, 1)
    assert np.array_equal(decode_image(encoded(pixels), 32), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_other_colour_modes_become_rgb(mode: str) -> None:
    file = io.BytesIO()
    Image.new(mode, (32, 32)).save(file, "TIFF" if mode == "CMYK" else "PNG")
    assert decode_image(file.getvalue(), 32).shape == (3, 32, 32)


def test_large_jpegs_come_out_close_to_their_full_decoding() -> None:
    gradient = np.linspace(0, 255, 400).astype(np.uint8)
    pixels = np.stack([np.tile(gradient, (400, 1))] * 3, axis=-1)
    image = decode_image(encoded(pixels, "JPEG"), 32)
    assert image[0].mean(axis=0) == pytest.approx(np.linspace(4, 251, 32), abs=6)
