"""Speed of the data loader, compared with webdataset's own pipeline and with the trainer's need.

Run ``python benchmarks/loader.py`` from the root of the checkout.

First part: both loaders decode the same JPEG shards to 224 pixels in one process each, in turns. Speeds are
pairs per second of processor time, so that other load on the machine matters less.

Second part: the time a trainer waits for data, on a pool of 32-pixel images, with the fastest model of the
small ladder, which needs the most pairs per second. With cached data it is the share of processor time not
spent waiting. With streamed data it is the speed of one worker process divided by that of the trainer, by the
processor time of each: above 1, the worker keeps ahead. The share by wall clock is printed as well, but on a
busy machine it depends mostly on the other load.

The last lines are name, value, lower limit, and pass or fail; the exit code is 1 if one fails.
"""

import argparse
import pickle
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measured import at_least, verdict
from budgets.cost.architecture import load_architecture
from budgets.cost.strategy import find_strategy
from budgets.declaration.recipe import Recipe
from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.pool.shards import close_shard, write_sample
from runners.data.pool.tokenizer import tokenizer
from runners.data.reading.training_data import Batches, Empty, Source, TrainingData
from runners.data.reading.training_set import StreamedSet, open_data
from runners.embedded.embedded_pool import build_embedded_pool
from runners.host.process import FreshProcess
from runners.models.model import build_model, compute_context, resolve_precision
from runners.training.learner import make_learner
from runners.training.train import StepSchedule, train

BATCH, SIZE, SIDE, ROUNDS = 64, 224, 256, 3
FASTEST, PAIRS, STEPS = "mini-ViT-XXS-8", 4096, 300


def make_shards(folder: Path, pairs: int, side: int = SIDE) -> None:
    """Write shards of 1,000 JPEGs with a shorter side, by default the usual one of downloaded web images."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for start in range(0, pairs, 1000):
        with (folder / f"{start // 1000:05d}.tar").open("wb") as file:
            for number in range(start, min(start + 1000, pairs)):
                # Soft noise compresses to about the size of a photograph.
                coarse = Image.fromarray(rng.integers(0, 255, (40, 54, 3), np.uint8))
                image = BytesIO()
                coarse.resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(image, "JPEG", quality=90)
                caption = f"picture {number} of soft noise".encode()
                write_sample(file, f"{number:09d}", {"jpg": image.getvalue(), "txt": caption})
            close_shard(file)


def tokens(texts: Sequence[str]) -> torch.Tensor:
    """Return cheap tokens, the same for both loaders: the benchmark is about images."""
    return torch.tensor([[len(text)] for text in texts])


def pipeline(shards: list[str], **how: object) -> Any:  # noqa: ANN401 - webdataset is not annotated
    """Return webdataset's pipeline as open_clip uses it: shuffled, decoded by PIL, resized, batched."""
    resize = transforms.Compose([
        transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(SIZE),
        transforms.PILToTensor(),
    ])  # fmt: skip
    return (
        webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0, **how)
        .shuffle(5000, initial=1000)
        .decode("pilrgb")
        .to_tuple("jpg", "txt")
        .map_tuple(resize, lambda text: text)
        .batched(BATCH, partial=False)
    )


def some_of(batches: Iterable[Any], pairs: int) -> Iterator[Any]:
    """Yield images and tokens of the first batches of webdataset, up to a number of pairs."""
    for _, (images, texts) in zip(range(pairs // BATCH), batches, strict=False):
        yield images if isinstance(images, torch.Tensor) else torch.stack(list(images)), tokens(texts)


def reference(folder: Path, pairs: int) -> Iterator[Any]:
    """Return batches of webdataset's pipeline over a folder of shards."""
    return some_of(pipeline(sorted(str(path) for path in folder.glob("*.tar"))), pairs)


def speed(batches: Iterator[Any], clock: Callable[[], float]) -> float:
    """Return pairs per second of a clock."""
    began, seen = clock(), 0
    for batch in batches:
        images = batch[0] if isinstance(batch, tuple | list) else batch.images
        assert images.shape[1:] == (3, SIZE, SIZE)
        seen += len(images)
    return seen / (clock() - began)


@dataclass(frozen=True, kw_only=True)
class TimedData(TrainingData):
    """A training set that measures the time until each batch is ready."""

    data: TrainingData
    clock: Callable[[], float]
    waited: list[float] = field(default_factory=list)

    def batches(
        self, *, seed: int, batch_size: int, first_step: int, steps: int, empty: Empty = torch.empty
    ) -> Batches:
        """Yield the set's batches and note the time waited for each."""
        batches = self.data.batches(
            seed=seed, batch_size=batch_size, first_step=first_step, steps=steps, empty=empty
        )
        for _ in range(first_step, steps):
            began = self.clock()
            batch = next(batches)
            self.waited.append(self.clock() - began)
            yield batch


def waiting(data: TrainingData, clock: Callable[[], float]) -> tuple[float, float]:
    """Train; return the time of training, and the part of it spent waiting for batches."""
    recipe, timed = Recipe(), TimedData(data=data, clock=clock)
    model = build_model(load_architecture(FASTEST).config)
    device = torch.device("cpu")
    context = partial(compute_context, resolve_precision(recipe.precision, device), device)
    began = clock()
    learner = make_learner(model, find_strategy("clip"), recipe=recipe, lr_peak=1e-3, steps=STEPS)
    schedule = StepSchedule(seed=0, steps=STEPS, batch_size=BATCH, lr_peak=1e-3, recipe=recipe)
    train(learner, timed, schedule, first_step=0, context=context)
    return clock() - began, sum(timed.waited)


def waits(folder: Path) -> tuple[float, float, float]:
    """Return the share waited with cached data, the worker's relative speed, and the share by wall clock."""
    pool = build_embedded_pool(folder / "scenes", pairs=PAIRS, seed=0, score=None, evaluation_sizes={})
    text = load_architecture(FASTEST).config["text_cfg"]
    to_ids = tokenizer(text["vocab_size"], text["context_length"], pool.vocabulary)
    rows = np.arange(pool.count)
    torch.set_num_threads(1)

    def ids(texts: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(to_ids(texts))

    def streamed(workers: int) -> StreamedSet:
        return StreamedSet(sources=[Source(pool=pool, rows=rows)], image_size=32, tokens=ids, workers=workers)

    took, waited = waiting(open_data(streamed(0)), time.process_time)
    both, loading = waiting(streamed(0), time.process_time)
    by_clock, without = waiting(streamed(1), time.perf_counter)
    return waited / took, (both - loading) / loading, without / by_clock


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4000)
    count: int = parser.parse_args().pairs
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pool"
        make_shards(folder, count)
        pool = build_pool(folder, Build(source=folder, in_place=True), lambda *_: None)
        rows = np.arange(count)
        length = sum(path.stat().st_size for path in folder.glob("*.tar"))
        print(f"{count:,} JPEGs of {length / count / 1000:.0f} kB")
        streamed = StreamedSet(sources=[Source(pool=pool, rows=rows)], image_size=SIZE, tokens=tokens)
        cached = open_data(streamed)
        if cached is streamed:
            raise SystemExit("too large to be decoded in advance; use fewer --pairs")
        steps = count // BATCH
        runs: dict[str, Callable[[], Iterator[Any]]] = {
            "webdataset": lambda: reference(folder, count),
            "streamed": lambda: streamed.batches(seed=0, batch_size=BATCH, first_step=0, steps=steps),
            "cached": lambda: cached.batches(seed=0, batch_size=BATCH, first_step=0, steps=steps),
        }
        best = dict.fromkeys(runs, 0.0)
        for _ in range(ROUNDS):
            for pipeline, batches in runs.items():
                best[pipeline] = max(best[pipeline], speed(batches(), time.process_time))
        # In a process like a trial's, which forks its loader workers.
        waited = pickle.loads(FreshProcess(pickle.dumps(partial(waits, Path(name)))).wait().pickled)  # noqa: S301 - our own data
    for pipeline, pairs_per_s in best.items():
        print(f"{pipeline}: {pairs_per_s:,.0f} pairs/s, best of {ROUNDS}")
    cached_share, faster, by_clock = waited
    print(f"streamed by a worker, the trainer waited {by_clock:.1%} of the wall-clock time")
    return verdict([
        at_least("loader_streamed_ratio", best["streamed"] / best["webdataset"], 1.0),
        at_least("loader_cached_ratio", best["cached"] / best["webdataset"], 10.0),
        at_least("loader_worker_faster", faster, 1.0),
        at_least("loader_ahead_cached", 1 - cached_share, 0.95),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
