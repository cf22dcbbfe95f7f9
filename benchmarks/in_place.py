"""Time and memory of indexing tiny pairs in place, at two sizes of the folder.

Run ``python benchmarks/in_place.py`` from the root of the checkout; ``--pairs N`` sets the larger number; the
smaller is a tenth of it. Every pair is a PNG of 8 x 8 pixels with a caption, so that decoding takes little.
The last lines are name, value, upper limit, and pass or fail; the exit code is 1 if one fails.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measured import at_most, own_peak, printed, verdict
from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.pool.shards import close_shard, encode_image, write_sample

PER_SHARD = 10_000


def make_shards(folder: Path, pairs: int) -> None:
    """Write shards of tiny pairs."""
    rng = np.random.default_rng(0)
    for number in range(-(-pairs // PER_SHARD)):
        with (folder / f"{number:05d}.tar").open("wb") as file:
            pixels = rng.integers(0, 256, (PER_SHARD, 8, 8, 3), np.uint8)
            words = rng.zipf(1.3, (PER_SHARD, 6)) % 1_000_000
            for place in range(min(PER_SHARD, pairs - number * PER_SHARD)):
                caption = " ".join(f"word{word}" for word in words[place].tolist())
                members = {"png": encode_image(pixels[place]), "txt": caption.encode()}
                write_sample(file, f"{number * PER_SHARD + place:09d}", members)
            close_shard(file)


def index(folder: Path) -> None:
    """Index a folder; print the processor seconds, and those of the passes over all pairs."""
    spent: dict[str, float] = {}
    last = began = time.process_time()

    def report(task: str, _done: int, _of: int, _pairs: int) -> None:
        nonlocal last
        spent[task] = spent.get(task, 0.0) + time.process_time() - last
        last = time.process_time()

    build_pool(folder, Build(source=folder, in_place=True), report)
    whole = time.process_time() - began
    print(whole, whole - spent["reading"], own_peak())


def measure(pairs: int, place: Path | None) -> tuple[float, float, float]:
    """Return processor seconds of a million pairs, those after the scan, and the peak memory in GiB."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        make_shards(Path(folder), pairs)
        *seconds, peak = map(float, printed(Path(__file__).resolve(), "--index", folder).split())
        whole, merge = (each / pairs * 1e6 for each in seconds)
        print(
            f"{pairs:,} pairs: {whole:.0f} s a million, {merge:.1f} s after the scan, {peak:.2f} GiB",
            flush=True,
        )
        return whole, merge, peak


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=float, default=2e6)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--index", type=Path)
    options = parser.parse_args()
    if options.index:
        index(options.index)
        return 0
    few, many = (measure(int(pairs), options.folder) for pairs in (options.pairs / 10, options.pairs))
    return verdict([
        at_most("in_place_growth_of_time", many[0] / few[0], 1.2),
        at_most("in_place_growth_of_gib", many[2] - few[2], 1.5),
        at_most("in_place_gib", many[2], 2.5),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
