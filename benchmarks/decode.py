"""Speed of JPEG decoders: Pillow, as the loader uses it, beside torchvision's and simplejpeg's.

Run ``python benchmarks/decode.py`` from the root of the checkout, with simplejpeg installed.

Each decodes the same JPEGs on one core and resizes them to 224 pixels with the same code. Pillow and
simplejpeg let libjpeg-turbo decode at a half or a quarter of the size where that suffices; torchvision can't.
simplejpeg can also decode at any eighth of the size, such as 7/8 of 256, which gives other pixels.
Images are soft noise with grain of 341 x 256 pixels, as img2dataset stores them, and of 1365 x 1024, as they
come from the web. Speeds are images per second of processor time, the best of several rounds in turns.

The last lines are name, value, upper limit, and pass or fail: the speed of the fastest other decoder with the
same pixels over Pillow's. Above 1.3 it would be worth a second path; then the exit code is 1.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import ImageReadMode
from torchvision.io import decode_jpeg as torchvision_decode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measured import at_most, verdict
from runners.data.pool.reader import decode_image

SIZE, ROUNDS, WORTH, SAME = 224, 5, 1.3, 0.5
SHORTER_SIDES = (256, 1024)

Decoder = Callable[[bytes], NDArray[np.uint8]]
"""JPEG → uint8 (224, 224, 3)."""


def jpegs(count: int, shorter: int) -> list[bytes]:
    """Return JPEGs of soft noise with some grain, about as many bytes as photographs."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (40, 54, 3), np.uint8))
        soft = np.asarray(coarse.resize((shorter * 4 // 3, shorter), Image.Resampling.BICUBIC), np.float32)
        grain = rng.normal(0, 6, soft.shape[:2])[..., None]
        file = BytesIO()
        Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def resized(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize and crop decoded pixels as `runners.data.pool.reader.decode_image` does."""
    image = Image.fromarray(pixels)
    width, height = (int(SIZE * side / min(image.size)) for side in image.size)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))


def with_pillow(file: bytes) -> NDArray[np.uint8]:
    """Decode as the loader does."""
    return decode_image(file, SIZE).transpose(1, 2, 0)


def with_torchvision(file: bytes) -> NDArray[np.uint8]:
    """Decode by torchvision, always at full size."""
    data = torch.frombuffer(bytearray(file), dtype=torch.uint8)
    return resized(torchvision_decode(data, ImageReadMode.RGB).permute(1, 2, 0).numpy())


def with_simplejpeg(file: bytes, least_factor: float = 2) -> NDArray[np.uint8]:
    """Decode by simplejpeg, at a part of the size where that suffices."""
    decode: Any = import_module("simplejpeg").decode_jpeg
    return resized(decode(file, "RGB", min_height=SIZE, min_width=SIZE, min_factor=least_factor))


def decoders() -> Mapping[str, Decoder]:
    """Return the decoders, Pillow first."""
    return {
        "pillow": with_pillow,
        "torchvision": with_torchvision,
        "simplejpeg": with_simplejpeg,
        "in eighths": partial(with_simplejpeg, least_factor=1),
    }


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    count: int = parser.parse_args().images
    if find_spec("simplejpeg") is None:
        parser.error("simplejpeg is needed: pip install simplejpeg")
    torch.set_num_threads(1)
    results = []
    for shorter in SHORTER_SIDES:
        files, best = jpegs(count, shorter), dict.fromkeys(decoders(), 0.0)
        print(f"{shorter * 4 // 3} x {shorter}: {sum(map(len, files)) / count / 1000:.0f} kB")
        for _ in range(ROUNDS):
            for name, decode in decoders().items():
                began = time.process_time()
                for file in files:
                    decode(file)
                best[name] = max(best[name], count / (time.process_time() - began))
        others = []
        for name, decode in decoders().items():
            apart = np.abs(np.int16(decode(files[0])) - np.int16(with_pillow(files[0])))
            print(f"  {name}: {best[name]:,.0f} images/s, {apart.mean():.2f} apart, at most {apart.max()}")
            if name != "pillow" and apart.mean() < SAME:
                others.append(best[name] / best["pillow"])
        results.append(at_most(f"decode_other_over_pillow_{shorter}", max(others), WORTH))
    return verdict(results)


if __name__ == "__main__":
    sys.exit(main())
