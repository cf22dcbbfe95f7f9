"""Copies of subsets: the same pairs in the same order as from the pool, read at about their size."""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from budgets.machine_cache import CACHE
from runners.data.build import subset_copy as module
from runners.data.build.rescore import set_column, set_score
from runners.data.build.subset_copy import SubsetCopy, amplification, copy_subsets
from runners.data.index.writing import write_parts
from runners.data.pool.describe import describe_pool
from runners.data.pool.pool import Pool, Scorer, tree_name
from runners.data.pool.reader import Pairs, read_pairs
from runners.host.workers import Processes, Workers
from runners.store.copies import SHARDS_AT, pool_at
from runners.store.location import Location
from runners.store.shared_folder import SharedFolder, open_shared
from tests.runners.data.pool.test_damage import flip_byte
from tests.runners.store.bucket import Bucket

SUBSETS = (40, "top20 by mine"), (60, "all"), (150, "top50 by mine"), (252, "top50 by mine")

pytestmark = pytest.mark.slow
T = TypeVar("T")


@pytest.fixture
def pool(tmp_path: Path, build_again: Callable[[Path], Pool], monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Return a pool whose shards are in the order of another score than the one that selects."""
    monkeypatch.setattr(module, "_SHARD_BYTES", 300_000)
    built = build_again(tmp_path / "pool")
    draw = np.random.default_rng(0)
    scores = draw.normal(size=built.count).astype(np.float32)
    teacher = draw.normal(size=(built.count, 4)).astype(np.float16)
    return set_column(set_score(built, scores, Scorer(name="mine")), {"teacher_image": [teacher]})


def copied(
    pool: Pool, to: SharedFolder, side: int | None = None, workers: Workers | None = None
) -> tuple[Pool, list[tuple[int, int]]]:
    """Copy the subsets, and return the copy and its progress."""
    done: list[tuple[int, int]] = []
    subsets = [(pool.fingerprint, size, quality) for size, quality in SUBSETS]
    copy = SubsetCopy(pool=pool, subsets=subsets, side=side, tolerance=0.01)
    copy_subsets(copy, to, workers or Processes(), lambda *counts: done.append(counts))
    return Pool.open(to.path, holding=pool.fingerprint), done


def read(pool: Pool, size: int, quality: str) -> Pairs:
    """Read a subset in its order."""
    subset = pool.subset(size=size, quality=quality)
    return read_pairs(pool, subset, np.arange(len(subset)), 32)


def test_trials_read_the_same_pairs_in_the_same_order_in_one_run_a_shard(pool: Pool, tmp_path: Path) -> None:
    copy, done = copied(pool, SharedFolder(path=tmp_path / "copy"))
    assert (done[0], done[-1]) == ((0, copy.count), (copy.count, copy.count))
    assert len(copy.shards) > 3
    assert copy.vocabulary == pool.vocabulary
    assert tree_name(copy.path, pool.fingerprint) != tree_name(pool.path, pool.fingerprint)
    assert copy.columns == pool.columns
    for size, quality in SUBSETS:
        before, after = read(pool, size, quality), read(copy, size, quality)
        columns = [
            each.index.rows(each.subset(size=size, quality=quality).rows(), ("teacher_image",))
            for each in (pool, copy)
        ]
        assert columns[0]["teacher_image"].tolist() == columns[1]["teacher_image"].tolist()
        assert (before.images == after.images).all()
        assert before.rows["caption"].tolist() == after.rows["caption"].tolist()
    smallest = copy.frame.loc[copy.subset(size=40, quality="top20 by mine").rows()]
    for shard, rows in smallest.groupby("shard"):
        theirs = np.sort(copy.frame["offset"][copy.frame["shard"] == shard])
        assert (np.sort(rows["offset"]) == theirs[: len(rows)]).all()
    assert not (tmp_path / "copy" / ".copying").exists()


class Killed(Processes):
    """Workers that are killed after two shards."""

    def map(self, task: Callable[[int], T], items: Sequence[int], *_: object) -> Iterator[tuple[int, T]]:
        yield from super().map(task, items[:2])
        raise KeyboardInterrupt


def test_a_copy_that_was_killed_continues_with_the_shards_that_it_lacks(pool: Pool, tmp_path: Path) -> None:
    whole, _ = copied(pool, SharedFolder(path=tmp_path / "whole"))
    to = SharedFolder(path=tmp_path / "copy")
    with pytest.raises(KeyboardInterrupt):
        copied(pool, to, workers=Killed())
    kept = {path: path.stat().st_mtime_ns for path in to.path.glob("shards/*")}
    copy, done = copied(pool, to)
    assert len(kept) == 2
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert done[1][0] > copy.count // 3
    for name in ("pool.json", *copy.shards, "index/00000.parquet", "vocabulary.txt"):
        assert (copy.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_a_damaged_pair_is_replaced_as_in_the_pool_and_too_many_are_read_again(
    pool: Pool, tmp_path: Path
) -> None:
    rows = pool.frame.loc[pool.subset(size=40, quality="top20 by mine").rows()]
    whole = {shard: (pool.path / shard).read_bytes() for shard in pool.shards}
    flip_byte(pool, *rows.index[:8])
    to = SharedFolder(path=tmp_path / "copy")
    with pytest.raises(ValueError, match=r"8 of \d+ pairs are damaged, more than the tolerated 1\.00 %"):
        copied(pool, to)
    for shard, content in whole.items():
        (pool.path / shard).write_bytes(content)
    flip_byte(pool, rows.index[5])
    copy, _ = copied(pool, to)
    assert copy.provenance["damaged"] == 1
    before, after = read(pool, 40, "top20 by mine"), read(copy, 40, "top20 by mine")
    assert len(before.damage) == len(after.damage) == 1
    assert (before.images == after.images).all()


def test_resized_images_have_the_shorter_side_and_smaller_ones_stay(pool: Pool, tmp_path: Path) -> None:
    stay, _ = copied(pool, SharedFolder(path=tmp_path / "stay"), side=32)
    small, _ = copied(pool, SharedFolder(path=tmp_path / "small"), side=16)
    assert set(stay.frame["hash"]) <= set(pool.frame["hash"])
    assert set(small.frame["width"]) == {16}
    place = small.frame.iloc[7]
    content = (small.path / place["shard"]).read_bytes()[place["offset"] :][: place["length"]]
    assert Image.open(io.BytesIO(content)).size == (16, 16)
    before, after = (read(each, 60, "all").images.astype(float) for each in (pool, small))
    assert not read(small, 60, "all").damage
    assert 0 < np.abs(before - after).mean() < 30


def test_a_copy_of_a_bucket_in_a_bucket_is_read_at_its_size(
    pool: Pool, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHARD_BYTES", 2**27)
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    for path in pool.path.rglob("*"):
        if path.is_file():
            Location(bucket.url).put(path, f"pool/{path.relative_to(pool.path)}")
    there = Pool.open(pool_at(f"{bucket.url}/pool", tmp_path / "described"))
    with open_shared(f"{bucket.url}/copy") as shared:
        copied(there, shared)
    copy = Pool.open(pool_at(f"{bucket.url}/copy", tmp_path / "copy"))
    size, quality = SUBSETS[0]
    factors = [amplification(each, each.subset(size=size, quality=quality)) for each in (there, copy)]
    assert factors[0] > 15
    assert factors[1] < 2.5, "a piece of 256 KiB for 40 pairs of 3 KB"
    assert (read(pool, size, quality).images == read(copy, size, quality).images).all()


def test_amplification_is_what_a_server_counted_of_images_of_25_kilobytes(tmp_path: Path) -> None:
    count, rng = 30_000, np.random.default_rng(0)
    lengths = rng.integers(10_000, 40_000, count)
    columns = {
        "key": "x", "shard": "0.tar", "offset": np.cumsum(lengths + 2500), "length": lengths, "caption": "a",
        "width": 1, "height": 1, "hash": rng.integers(2**63, size=count).astype(np.uint64),
        "score:mine": rng.normal(size=count).astype(np.float32),
    }  # fmt: skip
    new = Pool.without_pairs(tmp_path, "web", {SHARDS_AT: f"file://{tmp_path}/shards"})
    sizes = {"0.tar": int((lengths + 2500).sum()) + 50_000}
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.tar").touch()
    os.truncate(tmp_path / "shards" / "0.tar", sizes["0.tar"])
    files = write_parts(tmp_path, pd.DataFrame(columns))
    describe_pool(new, files, sizes=sizes, scorer=Scorer(name="mine"))
    pool = Pool.open(tmp_path)
    found = [amplification(pool, pool.subset(size=None, quality=each)) for each in ("top1", "top10", "top25")]
    assert found == pytest.approx([11.8, 8.6, 4.2], rel=0.1)
