"""The cache of remote shards under torture: two pools, failing writes, too little room, and random kills."""

import os
import random
import resource
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from budgets.machine_cache import CACHE
from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.pool.pool import Pool
from runners.embedded.embedded_pool import TrainingPairs
from runners.store import shard_reader
from runners.store.cache import CACHE_SIZE
from runners.store.location import Location
from tests.runners.data.images import members_of, read_images
from tests.runners.data.pool.test_pool import write_tar
from tests.runners.store.bucket import Bucket

pytestmark = pytest.mark.slow

PAIRS, PIECE, KILLS, SEED = 120, 2**14, 24, 0
LIMIT = 4 * PIECE  # less than one block of neighbours, and shared by both studies
Reader = tuple[BaseProcess, Connection]


@pytest.fixture
def pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Yield the indices of two pools in a bucket, whose shards have the same names."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv(CACHE_SIZE, str(LIMIT))
    monkeypatch.setattr(shard_reader, "PIECE", PIECE)
    monkeypatch.setattr("runners.store.cache._FOLDERS", 2)
    bucket = Bucket(monkeypatch)
    paths = []
    for seed in (1, 2):
        shard = tmp_path / f"{seed}.tar"
        pairs = enumerate(TrainingPairs(seed=seed, count=PAIRS))
        write_tar(shard, [(f"{number:03d}", members_of(pair, {})) for number, pair in pairs])
        Location(bucket.url).put(shard, f"{seed}/0.tar")
        build = Build(source=tmp_path, url=f"{bucket.url}/{seed}", in_place=True)
        paths.append(build_pool(tmp_path / f"pool{seed}", build, lambda *_: None).path)
    yield paths
    bucket.go_away()


def read_blocks(path: Path, expected: NDArray[np.uint8], seed: int, sends: Connection) -> None:
    """Read random blocks until killed; tell after each whether its images were right."""
    draw = random.Random(seed)
    while True:
        # Files longer than this are cut with an error, as on a full disk.
        largest = draw.choice((PIECE // 2, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
        start = draw.randrange(PAIRS - 40)
        block = np.arange(start, start + 40)
        sends.send(np.array_equal(read_images(Pool.open(path), block, 32), expected[block]))


def test_random_kills_and_failing_writes_give_the_same_samples_and_keep_the_limit(pools: list[Path]) -> None:
    draw, processes = random.Random(SEED), get_context("fork")
    whole = [read_images(Pool.open(path), np.arange(PAIRS), 32) for path in pools]
    assert not np.array_equal(whole[0], whole[1])

    def start(study: int) -> Reader:
        receives, sends = processes.Pipe(duplex=False)
        words = (pools[study], whole[study], draw.randrange(2**32), sends)
        reader = processes.Process(target=read_blocks, args=words)
        reader.start()
        sends.close()
        return reader, receives

    readers = {study: start(study) for study in (0, 1)}
    for _ in range(KILLS):
        study = draw.randrange(2)
        reader, pipe = readers[study]
        assert pipe.recv(), "a reader got other samples"
        time.sleep(draw.random() / 20)  # into the next block
        reader.kill()
        reader.join()
        while pipe.poll():
            try:
                assert pipe.recv(), "a reader got other samples"
            except EOFError:
                break
        readers[study] = start(study)
    for reader, pipe in readers.values():
        assert pipe.recv()
        reader.kill()
        reader.join()

    for path, expected in zip(pools, whole, strict=True):
        assert np.array_equal(read_images(Pool.open(path), np.arange(PAIRS), 32), expected)
    files = [path for path in Path(os.environ[CACHE]).rglob("*") if path.is_file()]
    # Every folder keeps its part; a process that was killed leaves at most the piece that it wrote.
    assert sum(path.stat().st_size for path in files) <= LIMIT + KILLS * PIECE
