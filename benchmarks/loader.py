"""Whether the loader keeps ahead: ``python benchmarks/loader.py``, ours against webdataset's own pipeline.

The same shards of JPEGs, decoded to 224 pixels by one process each, in turns in one run. Speeds are pairs a
second of processor time, for a machine that is busy otherwise. The last lines are name, value, target, and
pass or fail; the exit code is 1 when one fails.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runners.data.cache import shared_images
from runners.data.in_place import open_pool
from runners.data.shards import close_shard, write_sample
from runners.data.training_set import StreamedSet, TrainingSet

BATCH, SIZE, SIDE, ROUNDS = 64, 224, 256, 3


def make_shards(folder: Path, pairs: int) -> None:
    """Writes JPEGs as large as web images after a usual download, in shards of 1,000."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for start in range(0, pairs, 1000):
        with (folder / f"{start // 1000:05d}.tar").open("wb") as file:
            for number in range(start, min(start + 1000, pairs)):
                # Soft noise has about the bytes of a photograph.
                coarse = Image.fromarray(rng.integers(0, 255, (40, 54, 3), np.uint8))
                image = BytesIO()
                coarse.resize((SIDE * 4 // 3, SIDE), Image.Resampling.BICUBIC).save(image, "JPEG", quality=90)
                caption = f"picture {number} of soft noise".encode()
                write_sample(file, f"{number:09d}", {"jpg": image.getvalue(), "txt": caption})
            close_shard(file)


def tokens(texts: Sequence[str]) -> torch.Tensor:
    """The same cheap tokens for both: this is about images."""
    return torch.tensor([[len(text)] for text in texts])


def reference(folder: Path, pairs: int) -> Iterator[Any]:
    """Webdataset's pipeline as open_clip trains with it: shuffled, decoded by PIL, resized, in batches."""
    resize = transforms.Compose(
        [
            transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIZE),
            lambda image: image.convert("RGB"),
            transforms.PILToTensor(),
        ]
    )
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0)
        .shuffle(5000, initial=1000)
        .decode("pilrgb")
        .to_tuple("jpg", "txt")
        .map_tuple(resize, lambda text: text)
        .batched(BATCH, partial=False)
    )
    for _, (images, texts) in zip(range(pairs // BATCH), dataset, strict=False):
        yield images if isinstance(images, torch.Tensor) else torch.stack(list(images)), tokens(texts)


def speed(batches: Callable[[], Iterator[Any]]) -> float:
    """Pairs a second of processor time."""
    began, seen = time.process_time(), 0
    for images, _ in batches():
        assert images.shape[1:] == (3, SIZE, SIZE)
        seen += len(images)
    return seen / (time.process_time() - began)


def main() -> int:
    """Measures and judges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4000)
    count: int = parser.parse_args().pairs
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pool"
        make_shards(folder, count)
        pool = open_pool(folder)
        rows = np.arange(count)
        length = sum(path.stat().st_size for path in folder.glob("*.tar"))
        print(f"{count:,} JPEGs of {length / count / 1000:.0f} kB")
        streamed = StreamedSet(pool=pool, rows=rows, image_size=SIZE, tokens=tokens)
        (Path(name) / "memory").mkdir()
        shared = shared_images(pool, SIZE, memory=Path(name) / "memory")
        if shared is None:
            raise SystemExit("there is no room in shared memory")
        cached = TrainingSet(
            images=torch.from_numpy(shared.images),
            tokens=tokens(pool.index["caption"].tolist()),
            rows=torch.from_numpy(rows),
        )
        how = {"seed": 0, "batch_size": BATCH, "first_step": 0, "steps": count // BATCH}
        runs: dict[str, Callable[[], Iterator[Any]]] = {
            "webdataset": lambda: reference(folder, count),
            "streamed": lambda: streamed.batches(**how),
            "cached": lambda: cached.batches(**how),
        }
        best = dict.fromkeys(runs, 0.0)
        for _ in range(ROUNDS):
            for each, batches in runs.items():
                best[each] = max(best[each], speed(batches))
    for each, pairs_per_s in best.items():
        print(f"{each}: {pairs_per_s:,.0f} pairs/s, best of {ROUNDS}")
    print()
    results = [
        ("loader_streamed_ratio", best["streamed"] / best["webdataset"], 1.0),
        ("loader_cached_ratio", best["cached"] / best["webdataset"], 10.0),
    ]
    for line, value, target in results:
        print(f"{line} {value:.3g} {target:g} {'pass' if value >= target else 'fail'}")
    return int(any(value < target for _, value, target in results))


if __name__ == "__main__":
    sys.exit(main())
