"""Damaged shards are found, counted and reported by shard and key; training stops above the tolerance."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.info import unreadable_lines
from runners.data.build.source import not_indexed
from runners.data.pool.damage import Damage, check_tolerance
from runners.data.pool.pool import Pool
from runners.data.pool.reader import read_pairs
from runners.embedded.embedded_pool import TrainingPairs
from tests.runners.data.images import captions, read_images, write_pool
from tests.runners.data.indexed import indexed
from tests.runners.data.pool.test_pool import encoded, sample, write_tar

ALL = np.arange(60)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return write_pool(tmp_path / "p", TrainingPairs(seed=1, count=60), None)


def shard_of(pool: Pool) -> Path:
    return pool.path / "shards" / "00000.tar"


def flip_byte(pool: Pool, *rows: int) -> None:
    content = bytearray(shard_of(pool).read_bytes())
    for row in rows:
        content[pool.frame["offset"][row] + pool.frame["length"][row] - 40] ^= 1
    shard_of(pool).write_bytes(content)


def cut(pool: Pool, row: int) -> None:
    shard_of(pool).write_bytes(shard_of(pool).read_bytes()[: pool.frame["offset"][row] + 5])


def test_a_flipped_byte_is_noticed_even_where_the_image_still_decodes(pool: Pool) -> None:
    flip_byte(pool, 7)
    expected = Damage(shard="shards/00000.tar", key="000000007", reason="not the bytes that were indexed")
    assert read_pairs(pool, ALL, ALL, 32).damage == (expected,)
    with pytest.raises(ValueError, match=r"image 000000007 of shard .*00000\.tar: not the bytes"):
        read_images(pool, ALL, 32)


@pytest.mark.parametrize(
    ("damage", "rows", "reason"),
    [
        (lambda pool: cut(pool, 58), [58, 59], "shard cut short"),
        (lambda pool: flip_byte(pool, 0, 1, 59), [0, 1, 59], "not the bytes"),
    ],
)
def test_damaged_pair_is_replaced_by_the_next_undamaged_one(
    pool: Pool, damage: Callable[[Pool], None], rows: list[int], reason: str
) -> None:
    whole, texts = read_images(pool, ALL, 32), captions(pool, ALL)
    damage(pool)
    pairs = read_pairs(pool, ALL, ALL, 32)
    sound = [row for row in range(60) if row not in rows]
    stand_in = [next(s for s in [*sound, *(s + 60 for s in sound)] if s >= row) % 60 for row in range(60)]
    assert np.array_equal(pairs.images, whole[stand_in])
    assert pairs.rows["caption"].tolist() == [texts[row] for row in stand_in]
    assert [int(each.key) for each in sorted(pairs.damage, key=lambda d: d.key)] == rows
    assert all(each.reason.startswith(reason) for each in pairs.damage)


@pytest.mark.slow
def test_tolerated_missing_shard_is_reported_per_pair(pool: Pool) -> None:
    again = write_pool(pool.path.parent / "two", [TrainingPairs(seed=1, count=60)[0]] * 4100, None)
    (again.path / "shards" / "00001.tar").unlink()
    with pytest.raises(ValueError, match=r"00001\.tar is missing .*4 of 4,100 pairs, more .* 0\.05 %"):
        Pool.open(again.path, tolerance=0.0005)
    opened = Pool.open(again.path)  # 4 of 4,100 are within one in a thousand
    pairs = read_pairs(opened, np.arange(4090, 4100), np.arange(10), 32)
    assert {each.reason for each in pairs.damage} == {"shard missing"}
    assert len(pairs.damage) == 4
    assert len(pairs.rows) == 10


def test_subset_without_undamaged_pair_raises(pool: Pool) -> None:
    cut(pool, 0)
    with pytest.raises(ValueError, match="no pair of the subset can be read"):
        read_pairs(pool, ALL, ALL[:4], 32)


def test_damage_above_the_tolerance_raises_with_counts() -> None:
    some = [Damage(shard="7.tar", key=f"k{n}", reason="unreadable image") for n in range(11)]
    check_tolerance(some[:10], pool=Path("pools/web"), of=10_000, tolerance=0.001)
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is looked at below
        check_tolerance(some, pool=Path("pools/web"), of=10_000, tolerance=0.001)
    assert str(raised.value) == (
        "pools/web: 11 of 10,000 pairs are damaged, more than the tolerated 0.10 % (11 unreadable image): "
        "k0 of shard 7.tar: unreadable image; k1 of shard 7.tar: unreadable image; "
        "k2 of shard 7.tar: unreadable image; k3 of shard 7.tar: unreadable image; "
        "k4 of shard 7.tar: unreadable image; and 6 more"
    )


@pytest.mark.slow
def test_indexing_lists_what_it_leaves_out_by_shard_and_key(tmp_path: Path) -> None:
    huge = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(huge, "PNG")  # 18 kB that decode to 432 MB
    samples = [
        sample(1),
        ("b/empty-file", {"jpg": b"", "txt": b"words"}),
        ("b/bomb", {"png": huge.getvalue(), "txt": b"words"}),
        ("b/text", {"jpg": b"<html>not found</html>", "txt": b"words"}),
        ("b/silent", {"jpg": encoded(8, 8), "txt": b" \n"}),
        ("b/alone", {"jpg": encoded(8, 8)}),
        ("b/words", {"txt": b"words alone"}),
    ]
    write_tar(tmp_path / "x" / "0.tar", samples)
    pool = indexed(tmp_path / "x")
    left_out = pd.read_parquet(pool.path / "left-out.parquet")
    assert left_out.to_numpy().tolist() == [
        ["0.tar", "b/empty-file", "empty image file"],
        ["0.tar", "b/bomb", "image too large"],
        ["0.tar", "b/text", "unreadable image"],
        ["0.tar", "b/silent", "no caption"],
        ["0.tar", "b/alone", "no caption"],
        ["0.tar", "b/words", "no image"],
    ]
    assert pool.left_out == left_out["reason"].value_counts().to_dict()


@pytest.mark.slow
def test_truncated_tar_does_not_stop_a_build_and_is_reported(tmp_path: Path) -> None:
    write_tar(tmp_path / "x" / "0.tar", [sample(n) for n in range(10)])
    write_tar(tmp_path / "x" / "1.tar", [sample(n) for n in range(10, 20)])
    with tarfile.open(tmp_path / "x" / "0.tar") as tar:
        end = tar.getmember("000000006.jpg").offset_data + 9
    os.truncate(tmp_path / "x" / "0.tar", end)
    for path, how in (
        (tmp_path / "built", Build(source=tmp_path / "x")),
        (tmp_path / "x", Build(source=tmp_path / "x", in_place=True)),
    ):
        pool = build_pool(path, how, lambda *_: None)
        assert pool.count == 16
        (line,) = unreadable_lines(pool)
        assert line == "0.tar, after sample 000000006: shard not readable after this: unexpected end of data"
        assert not_indexed(pool) is None
