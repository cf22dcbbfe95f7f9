"""Training data: the same samples in the same order, cached or streamed, on any number of ranks."""

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from budgets.machine_cache import CACHE
from runners.data.pool.pool import Pool
from runners.data.pool.reader import Pairs, read_pairs
from runners.data.reading import training_set
from runners.data.reading.order import batch_positions, positions
from runners.data.reading.training_data import Source, TrainingData
from runners.data.reading.training_set import (
    InMemorySet,
    RowsByBlock,
    StreamedSet,
    loading_ahead,
    open_data,
)
from runners.embedded.embedded_pool import TrainingPairs
from runners.host.process import FreshProcess
from tests.runners.data.images import read_images, write_pool
from tests.runners.data.pool.test_damage import flip_byte
from tests.waiting import wait_for

BATCH = 64


def lengths(texts: Sequence[str]) -> Tensor:
    return torch.tensor([[len(text)] for text in texts])


def streamed(
    pool: Pool, *, workers: int = 0, rank: int = 0, ranks: int = 1, tolerance: float = 0.001
) -> StreamedSet:
    return StreamedSet(
        sources=[Source(pool=pool, rows=np.arange(0, pool.count, 2))],
        image_size=32,
        tokens=lengths,
        workers=workers,
        rank=rank,
        ranks=ranks,
        tolerance=tolerance,
    )


def seen(data: TrainingData, first_step: int, steps: int) -> list[bytes]:
    batches = data.batches(seed=5, batch_size=BATCH, first_step=first_step, steps=steps)
    return [image.numpy().tobytes() for batch in batches for image in batch.images]


@pytest.fixture(params=["in memory", "streamed"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(kind: str, pool: Pool, **how: int) -> TrainingData:
    """Open every second pair of a pool, as a trial does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_set, "IN_MEMORY_BYTES", 0 if kind == "streamed" else 2**30)
        data = open_data(streamed(pool, **how))
    assert isinstance(data, StreamedSet) == (kind == "streamed")
    return data


def planned(kind: str, pool: Pool, steps: int) -> list[str]:
    """Return the keys in the planned order, from the start."""
    rows = np.arange(0, pool.count, 2)
    in_order = batch_positions if kind == "streamed" else positions
    starts = [step * BATCH for step in range(steps)]
    each = [in_order(seed=5, count=len(rows), start=start, stop=start + BATCH) for start in starts]
    order = np.concatenate(each)
    keys: list[str] = pool.frame["key"].iloc[rows[order]].tolist()
    return keys


def keys_seen(kind: str, pool: Pool, first_step: int, steps: int, *, workers: int, ranks: int) -> list[str]:
    """Return the keys that all ranks together see, step by step."""
    keys = dict(zip(map(bytes, read_images(pool, np.arange(pool.count), 32)), pool.frame["key"], strict=True))
    parts = [
        seen(opened(kind, pool, workers=workers, rank=rank, ranks=ranks), first_step, steps)
        for rank in range(ranks)
    ]
    size = BATCH // ranks
    return [
        keys[image]
        for step in range(steps - first_step)
        for part in parts
        for image in part[step * size : (step + 1) * size]
    ]


# Four workers are more than torch likes on a small machine.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("ranks", [1, 2])
def test_order_does_not_depend_on_workers_and_ranks(pool: Pool, kind: str, ranks: int) -> None:
    expected = planned(kind, pool, 10)
    assert len(expected) == 10 * BATCH
    for workers in (0, 1, 4):
        assert keys_seen(kind, pool, 0, 10, workers=workers, ranks=ranks) == expected
    assert keys_seen(kind, pool, 3, 6, workers=0, ranks=ranks) == expected[3 * BATCH : 6 * BATCH]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_in_small_parts_are_the_same(
    workers: int, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seven_each = 2 * 7 * 3 * 32**2
    whole = seen(streamed(pool, rank=1, ranks=2), 1, 5)
    handed: list[int] = []

    def read(
        pool: Pool, rows: NDArray[np.int64], places: NDArray[np.int64], size: int, *, look_up: RowsByBlock
    ) -> Pairs:
        handed.append(len(places))
        return read_pairs(pool, rows, places, size, look_up=look_up)

    monkeypatch.setattr(training_set, "read_pairs", read)
    small = replace(streamed(pool, rank=1, ranks=2, workers=workers), loader_bytes=seven_each)

    assert seen(small, 1, 5) == whole
    assert len(whole) == 4 * BATCH // 2
    if not workers:  # else they are read elsewhere
        assert handed == [14, 14, 4] * 4


@pytest.mark.parametrize(
    ("size", "image_size", "workers", "pairs", "parts"),
    [
        (32_768, 224, 16, 256, 3),  # a batch is 4.9 GB: 256 pairs are 38.5 MB
        (32_768, 224, 64, 222, 1),
        (1024, 224, 8, 256, 2),  # four batches fit
        (64, 32, 4, 64, 1),
        (8, 2**15, 4, 1, 1),  # a single pair is larger than the bound
    ],
)
def test_loader_fills_at_most_two_gibibytes(
    size: int, image_size: int, workers: int, pairs: int, parts: int
) -> None:
    found = loading_ahead(size, image_size, workers)

    assert found == (pairs, parts)
    if pairs > 1:
        assert found[0] * found[1] * workers * 3 * image_size**2 <= 2 * 2**30


def hold(path: str, mark: str) -> None:
    """Read a batch by loader workers that do not look after this process, then wait."""
    vars(import_module("torch.utils.data._utils.worker"))["MP_STATUS_CHECK_INTERVAL"] = 1000.0
    batches = streamed(Pool.open(path), workers=2).batches(seed=1, batch_size=BATCH, first_step=0, steps=40)
    next(batches)
    Path(mark).touch()
    time.sleep(1000.0)


@pytest.mark.slow
def test_loader_workers_end_with_their_rank_whose_end_is_seen_at_once(pool: Pool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    rank = FreshProcess(pickle.dumps(partial(hold, str(pool.path), str(mark))))
    wait_for(mark.exists, 120.0)
    rank.kill()
    assert rank.ended(60.0)
    assert rank.wait().reason == "the trial's process died by SIGKILL"


def test_batch_that_cannot_be_split_equally_raises(pool: Pool, kind: str) -> None:
    with pytest.raises(ValueError, match="a batch of 64 cannot be split into 3 equal parts"):
        next(opened(kind, pool, ranks=3).batches(seed=0, batch_size=64, first_step=0, steps=1))


@pytest.mark.slow
def test_streamed_damage_is_reported_once_with_replacements_independent_of_workers(tmp_path: Path) -> None:
    damaged = write_pool(tmp_path / "p", TrainingPairs(seed=1, count=100), None)
    flip_byte(damaged, 10)
    flip_byte(damaged, 12)
    runs = []
    for workers, ranks in ((0, 1), (1, 1), (0, 2)):
        parts = [
            streamed(damaged, workers=workers, rank=rank, ranks=ranks, tolerance=0.04)
            for rank in range(ranks)
        ]
        runs.append(sorted(image for part in parts for image in seen(part, 0, 4)))
        keys = {each.key for part in parts for each in part.damage}
        assert keys == {"000000010", "000000012"}
    assert runs[0] == runs[1] == runs[2]
    with pytest.raises(ValueError, match=r"of 50 pairs are damaged, more than the tolerated 0\.10 %"):
        seen(streamed(damaged), 0, 4)


def decoded(data: StreamedSet) -> InMemorySet:
    found = open_data(data)
    assert isinstance(found, InMemorySet)
    return found


def without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, "/dev/null/cache")


def of_a_large_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_set, "IN_MEMORY_BYTES", 97 * 3 * 32**2)  # the size of the subset


@pytest.mark.parametrize("otherwise", [without_a_cache, of_a_large_pool])
def test_images_of_the_cache_of_a_subset_and_of_own_memory_are_the_same_with_the_same_replacements(
    otherwise: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    damaged = write_pool(tmp_path / "p", TrainingPairs(seed=1, count=100), None)
    for row in (3, 4, 98):
        flip_byte(damaged, row)
    data = StreamedSet(
        sources=[Source(pool=damaged, rows=np.arange(2, 99))], image_size=32, tokens=lengths, tolerance=0.04
    )
    whole = decoded(data)
    otherwise(monkeypatch)
    own = decoded(data)
    assert [len(each.parts[0].images) for each in (whole, own)] == [100, 97]
    assert seen(whole, 0, 3) == seen(own, 0, 3)
    assert torch.equal(whole.parts[0].tokens, own.parts[0].tokens)
    assert [each.key for each in whole.damage] == ["000000003", "000000004", "000000098"]
    assert whole.damage == own.damage
    with pytest.raises(ValueError, match=r"3 of 97 pairs are damaged"):
        decoded(replace(data, tolerance=0.03))


def test_a_pool_is_decoded_once_and_again_when_its_file_was_cut(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    expected = seen(opened("in memory", pool), 0, 4)
    (file,) = (tmp_path / "kept" / "decoded").glob("[!.]*")
    decoded = file.stat().st_ino
    assert seen(opened("in memory", pool), 0, 4) == expected
    assert file.stat().st_ino == decoded
    file.write_bytes(file.read_bytes()[:-7])  # after a power failure
    assert seen(opened("in memory", pool), 0, 4) == expected
    assert len(file.read_bytes()) > 503 * 3 * 32**2


def test_images_are_gathered_once_in_the_memory_that_is_asked_for(pool: Pool, kind: str) -> None:
    made: list[torch.Tensor] = []

    def empty(*sizes: int, dtype: torch.dtype) -> torch.Tensor:  # pinned memory, for a GPU
        made.append(torch.zeros(*sizes, dtype=dtype))
        return made[-1]

    data = opened(kind, pool)
    batches = data.batches(seed=5, batch_size=BATCH, first_step=1, steps=4, empty=empty)
    images = [batch.images for batch in batches]

    assert [each.data_ptr() for each in images] == [each.data_ptr() for each in made]
    assert [image.numpy().tobytes() for each in images for image in each] == seen(data, 1, 4)
