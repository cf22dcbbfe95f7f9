"""Evaluation sets are decoded once on a node, in bounded memory and disk, to the same pixels as each time."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from runners.data.evaluation.evaluation_set import EvaluationSet, write_evaluation_set, write_split
from runners.data.evaluation.set_reader import BATCH, SetReader
from runners.store.cache import Cache
from tests.runners.data.whole_set import write_training_split

COUNT = 2 * BATCH + 40
SIZE = 12  # in the files; 16 when they are read, so that every image is resized


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a set with two whole batches and a part of one in each split."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * COUNT, 3, SIZE, SIZE), dtype=np.uint8)
    labels = np.arange(2 * COUNT) % 7
    path = tmp_path_factory.mktemp("sets") / "noise"
    write_evaluation_set(
        path,
        EvaluationSet(
            images=images[:COUNT], labels=labels[:COUNT], classnames=tuple("abcdefg"), templates=("a {c}",)
        ),
    )
    write_training_split(path, images[COUNT:], labels[COUNT:])
    return path


@pytest.fixture
def reader(written: Path, tmp_path: Path) -> SetReader:
    return SetReader(path=written, decode=16, cache=Cache(tmp_path / "cache", 10**9))


def read(reader: SetReader, split: str = "test") -> tuple[list[int], bytes, list[int]]:
    """Return the sizes of the batches, all pixels and all labels."""
    batches = list(reader.labelled(split))
    pixels = b"".join(images.tobytes() for images, _ in batches)
    return (
        [len(labels) for _, labels in batches],
        pixels,
        np.concatenate([each for _, each in batches]).tolist(),
    )


def files(reader: SetReader) -> list[Path]:
    """Return the splits in the cache."""
    assert reader.cache is not None
    folder = reader.cache._folder  # noqa: SLF001 - a test of what is on the disk
    return [path for path in folder.rglob("[!.]*") if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize("split", ["test", "train"])
def test_kept_images_equal_decoded_ones_and_no_shard_is_read_again(
    reader: SetReader, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read(replace(reader, cache=None), split)
    assert expected[0] == [BATCH, BATCH, 40]
    assert read(replace(reader, threads=3), split) == expected
    assert not reader.is_filled(split)
    reader.fill(split)

    def no_more(*_: object) -> Iterator[tuple[str, bytes, str]]:
        raise AssertionError("a shard was read again")
        yield

    monkeypatch.setattr(SetReader, "samples", no_more)
    assert reader.is_filled(split)
    assert read(reader, split) == expected


def test_captions_are_kept_with_their_images(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    captions = (("one", "two words"), ("três\u2028",), ("x",))
    write_evaluation_set(tmp_path / "r", EvaluationSet(images=images, captions=captions))
    reader = SetReader(path=tmp_path / "r", decode=8, cache=Cache(tmp_path / "cache", 10**9))
    for filled in (False, True):
        assert reader.is_filled() == filled
        ((pixels, texts),) = reader.captioned()
        assert np.array_equal(pixels, images)
        assert texts == [("one", "two words"), ("três",), ("x",)]
        reader.fill()


def test_labels_in_the_cache_are_not_taken_for_captions(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    folder = tmp_path / "set"
    folder.mkdir()
    write_split(folder / "test", images, [{"cls": b"1", "txt": b"a cat"}, {"cls": b"0", "txt": b"a dog"}])
    (folder / "classnames.txt").write_text("\ufeffdog\ncat\n", encoding="utf-8")
    (folder / "zeroshot_classification_templates.txt").write_text("{c}\n", encoding="utf-8")
    cache = Cache(tmp_path / "cache", 10**9)
    labelled = SetReader(path=folder, decode=8, cache=cache)
    assert labelled.classnames == ("dog", "cat"), "without the byte-order mark"
    ((_, labels),) = labelled.labelled()
    assert labels == [1, 0]
    labelled.fill()

    (folder / "dataset_type.txt").write_text("retrieval", encoding="utf-8")
    ((_, captions),) = SetReader(path=folder, decode=8, cache=cache).captioned()
    assert captions == [("a cat",), ("a dog",)]

    (folder / "dataset_type.txt").write_text("retreival", encoding="utf-8")
    message = r"dataset_type\.txt: unknown type 'retreival'; did you mean 'retrieval'"
    with pytest.raises(ValueError, match=message):
        next(SetReader(path=folder, decode=8, cache=cache).captioned())


def test_a_set_that_changed_is_decoded_again(written: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(written, changed)
    reader = SetReader(path=changed, decode=16, cache=Cache(tmp_path / "cache", 10**9))
    reader.fill()
    before = read(reader)
    shard = changed / "test" / "0.tar"
    content = bytearray(shard.read_bytes())
    content[content.index(b"IDAT") + 40] ^= 1  # a pixel of the first image
    shard.write_bytes(content)
    os.utime(shard, (1, 1))
    with pytest.raises(ValueError, match="cannot decode image 000000000 of"):  # PNG has a checksum
        reader.fill()
    (changed / "test" / "0.tar").write_bytes((written / "train" / "0.tar").read_bytes())
    reader.fill()
    assert read(reader)[1] != before[1]


def test_a_split_that_was_cut_is_decoded_again(reader: SetReader) -> None:
    reader.fill()
    expected = read(reader)
    (kept,) = files(reader)
    kept.write_bytes(kept.read_bytes()[:-7])  # after a power failure
    assert read(reader) == expected
    assert not reader.is_filled()
    reader.fill()
    assert reader.is_filled()
    assert read(reader) == expected


@pytest.mark.parametrize(
    ("folder", "limit", "free"), [("/dev/null/x", 10**9, 0), ("", 5e5, 0), ("", 10**9, 1)]
)
def test_a_small_cache_or_a_disk_that_is_full_or_cannot_be_written_costs_the_cache_alone(
    reader: SetReader, folder: str, limit: int, free: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.store.cache._FREE", free)
    small = replace(reader, cache=Cache(Path(folder or tmp_path / "small"), limit))
    small.fill()
    assert not small.is_filled()
    assert not files(small)
    assert read(small) == read(reader)


@pytest.mark.slow
def test_a_split_that_another_process_decodes_is_waited_for_or_left_to_it(reader: SetReader) -> None:
    assert reader.cache is not None
    with reader.cache.turn(reader._key("test"), wait_s=0) as mine:  # noqa: SLF001 - as that process holds it
        assert mine
        reader.fill(wait=False)
        assert not reader.is_filled()
        assert not files(reader)
        process = get_context("forkserver").Process(target=reader.fill)
        process.start()
        time.sleep(0.3)
        assert process.is_alive()
        assert not files(reader)
        assert read(reader) == read(replace(reader, cache=None)), "an evaluation waits for nobody"
    process.join(60)
    assert reader.is_filled()


READ_ALL = """
import sys
from pathlib import Path
from runners.data.evaluation.set_reader import SetReader
from runners.store.cache import Cache

path, cache = map(Path, sys.argv[1:])
reader = SetReader(path=path, decode=224, threads=2, cache=Cache(cache, 10**10) if cache.name else None)
next(reader.labelled("train"))
own = lambda: int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])
before = own()
read, most = 0, 0
for _ in range(2):
    for images, _ in reader.labelled():
        read, most = read + len(images), max(most, own() - before)
    reader.fill()
print(read, most // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["cache", ""])
def test_memory_does_not_grow_with_a_set(tmp_path: Path, cache: str) -> None:
    """2,048 images of 224 pixels are 294 MiB decoded, a batch is 36.75."""
    images = np.zeros((8 * BATCH, 3, 2, 2), np.uint8)
    path = tmp_path / "set"
    write_evaluation_set(
        path,
        EvaluationSet(
            images=images, labels=np.zeros(len(images), np.int64), classnames=("x",), templates=("{c}",)
        ),
    )
    write_training_split(path, images[:1], np.zeros(1, np.int64))
    command = [sys.executable, "-c", READ_ALL, str(path), str(tmp_path / cache) if cache else ""]
    read_images, mebibytes = map(int, subprocess.check_output(command).split())
    assert read_images == 2 * len(images)
    assert mebibytes < 5 * 36.75
