"""Hostile sources of pools: each pair is used or left out with its reason, and nothing hangs or escapes."""

import gzip
import io
import json
import os
import shutil
import struct
import tarfile
from operator import methodcaller
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import webdataset
from PIL import Image

from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.pool.damage import NOT_READABLE
from runners.data.pool.pool import Pool
from runners.data.pool.reader import decode_image, read_pairs
from runners.data.pool.shards import image_size, score_of
from runners.embedded.embedded_pool import TrainingPairs
from tests.runners.data.images import write_pool
from tests.runners.data.pool.test_pool import Sample, encoded, write_tar

NAMES = [f"{n:09d}" for n in range(100)]


def built(source: Path, **options: object) -> Pool:
    name = source.parent / f"built-{len(list(source.parent.iterdir()))}"
    return build_pool(name, Build(source=source, **options), lambda *_: None)  # type: ignore[arg-type]


def left_out(pool: Pool) -> list[tuple[str, str, str]]:
    tables = [pd.read_parquet(pool.path / name) for name in pool.left_out_files]
    rows = (row for table in tables for row in table[["shard", "key", "reason"]].itertuples(index=False))
    return [(Path(shard).name, key, reason) for shard, key, reason in rows]


def small(number: int) -> Sample:
    members = {"png": encoded(8, 8, "PNG", colour=number), "txt": f"number {number}".encode()}
    return f"{number:09d}", members


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **facts: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for fact, value in facts.items():
        setattr(member, fact, value)
    tar.addfile(member, io.BytesIO(content))


def add_sample(tar: tarfile.TarFile, number: int) -> None:
    key, members = small(number)
    for ending, content in members.items():
        add(tar, f"{key}.{ending}", content)


def test_samples_behind_a_hole_are_used_and_the_hole_is_counted_as_a_range(tmp_path: Path) -> None:
    shard = tmp_path / "x" / "0.tar"
    write_tar(shard, [small(n) for n in range(100)])
    with tarfile.open(shard) as tar:
        start, stop = (tar.getmember(f"{NAMES[n]}.png").offset for n in (50, 80))
    content = bytearray(shard.read_bytes())
    content[start:stop] = bytes(stop - start)
    shard.write_bytes(content)
    pool = built(tmp_path / "x")
    captions = {f"number {n}" for n in (*range(50), *range(80, 100))}
    assert set(pool.frame["caption"]) == captions
    reason = f"bytes {start:,} to {stop:,} are zeros: a stretch of {stop - start:,} bytes"
    assert left_out(pool) == [("0.tar", NAMES[49], f"{NOT_READABLE}: {reason}")]
    summary = "a range of bytes is zeros, with an unknown number of samples"
    assert pool.left_out == {f"{NOT_READABLE}: {summary}": 1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", f"{NOT_READABLE}: empty file"),
        (bytes(10240), "shard without samples"),
        (bytes(100_352), f"{NOT_READABLE}: bytes 0 to 100,352 are zeros: a stretch of 100,352 bytes"),
        (gzip.compress(bytes(50_000), mtime=0), f"{NOT_READABLE}: compressed with gzip; unpack it"),
    ],
    ids=["empty", "end of a tar", "zeros", "gzip"],
)
def test_shards_without_a_sample_are_counted(tmp_path: Path, content: bytes, reason: str) -> None:
    write_tar(tmp_path / "x" / "0.tar", [small(1)])
    (tmp_path / "x" / "1.tar").write_bytes(content)
    pool = built(tmp_path / "x")
    assert pool.count == 1
    assert left_out(pool) == [("1.tar", "", reason)]


def test_upper_case_endings_and_linked_folders_belong_to_a_source(tmp_path: Path) -> None:
    write_tar(tmp_path / "x" / "0.TAR", [("a", {"JPG": encoded(9, 9), "TXT": b"a"})])
    write_tar(tmp_path / "elsewhere" / "1.tar", [small(1)])
    (tmp_path / "x" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "x" / "again").symlink_to(tmp_path / "x")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    pool = built(tmp_path / "x")
    assert (sorted(pool.frame["caption"]), pool.left_out) == (["a", "number 1"], {})


def test_adjacent_samples_of_one_key_are_two_samples(tmp_path: Path) -> None:
    samples = [("k", {"png": encoded(8, 8, "PNG", n), "txt": f"n{n}".encode()}) for n in range(3)]
    write_tar(tmp_path / "x" / "0.tar", samples)
    assert sorted(built(tmp_path / "x").frame["caption"]) == ["n0", "n1", "n2"]


def test_a_member_given_twice_side_by_side_ends_in_one_account_of_each_image(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with tarfile.open(tmp_path / "x" / "0.tar", "w") as tar:
        for colour in (1, 2):
            add(tar, "k.png", encoded(8, 8, "PNG", colour=colour))
        add(tar, "k.txt", b"words")
        add_sample(tar, 3)
    pool = built(tmp_path / "x")
    assert sorted(pool.frame["caption"]) == ["number 3", "words"]
    assert pool.left_out == {"no caption": 1}


def test_sample_with_members_apart_is_counted_once(tmp_path: Path) -> None:
    apart = [(NAMES[n], {"png": small(n)[1]["png"]}) for n in range(50, 100)]
    texts = [(NAMES[n], {"txt": small(n)[1]["txt"]}) for n in range(50, 100)]
    write_tar(tmp_path / "x" / "0.tar", [*(small(n) for n in range(50)), *apart, *texts])
    pool = built(tmp_path / "x")
    assert (pool.count, pool.left_out) == (50, {"members apart": 50})


def test_links_devices_and_sparse_members_are_refused_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(8, 8, "PNG"))
    (tmp_path / "x").mkdir()
    with tarfile.open(tmp_path / "x" / "0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        add_sample(tar, 1)
        for key, kind in (("s", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE), ("f", tarfile.FIFOTYPE)):
            add(tar, f"{key}.png", type=kind, linkname=str(secret))
            add(tar, f"{key}.txt", b"words")
        add(tar, "i.png", type=tarfile.LNKTYPE, linkname=f"{NAMES[1]}.png")
        add(tar, "i.txt", b"words")
        add(tar, "z.png", small(9)[1]["png"], type=tarfile.GNUTYPE_SPARSE)
        add(tar, "z.txt", b"words")
        add_sample(tar, 2)
    pool = built(tmp_path / "x")
    assert sorted(pool.frame["caption"]) == ["number 1", "number 2"]
    reasons = {key: reason for _, key, reason in left_out(pool)}
    assert reasons == dict.fromkeys("shi", "png is a link, which is not followed") | {
        "f": "png is not a file",
        "z": "png is a sparse file",
    }


def test_pax_headers_are_read_and_broken_ones_counted(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with tarfile.open(tmp_path / "x" / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for number in (1, 2, 3, 4):
            key = f"{number}" * 150
            add(tar, f"{key}.png", small(number)[1]["png"], pax_headers={"size": "-5"} if number == 3 else {})
            add(tar, f"{key}.txt", f"number {number}".encode())
    pool = built(tmp_path / "x")
    assert sorted(pool.frame["caption"]) == ["number 1", "number 2", "number 4"]
    assert any(reason.startswith(NOT_READABLE) for _, _, reason in left_out(pool))


def test_json_too_deep_or_with_a_huge_number_costs_no_pair(tmp_path: Path) -> None:
    image = encoded(8, 8, "PNG")
    for number, depth in enumerate((900, 990, 3000, 200_000)):
        facts = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
        samples: list[Sample] = [(f"{depth}", {"png": image, "json": facts, "txt": f"deep {depth}".encode()})]
        write_tar(tmp_path / "x" / f"{number}.tar", samples)
    huge = b'{"similarity": 1' + b"0" * 400 + b"}"
    truth = b'{"similarity": true}'
    more: list[Sample] = [("h", {"png": image, "json": huge, "txt": b"huge"})]
    more += [("t", {"png": image, "json": truth, "txt": b"truth"})]
    more += [("s", {"png": image, "json": b'{"similarity": 0.25}', "txt": b"scored"})]
    write_tar(tmp_path / "x" / "9.tar", more)
    pool = built(tmp_path / "x")
    assert (pool.count, pool.scored, pool.left_out) == (7, 1, {})
    assert (score_of(0.25), score_of(3)) == (0.25, 3.0)
    assert np.isnan([score_of(value) for value in (True, 10**400, 1e39, "-1e39")]).all()


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, MemoryError, struct.error, IndexError])
def test_the_next_pair_replaces_one_whose_decoder_raises_any_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    pool = write_pool(tmp_path / "p", TrainingPairs(seed=1, count=6), None)
    places = np.arange(6)
    whole = read_pairs(pool, places, places, 32)
    opened = iter(range(6))

    def fails(*arguments: object, **options: object) -> Image.Image:
        if next(opened, None) == 3:
            raise error("from inside")
        return original(*arguments, **options)  # type: ignore[arg-type]

    original = Image.open
    monkeypatch.setattr(Image, "open", fails)
    pairs = read_pairs(pool, places, places, 32)
    assert [each.reason for each in pairs.damage] == ["unreadable image"]
    assert np.array_equal(pairs.images, whole.images[[0, 1, 2, 4, 4, 5]])


def dds(width: int = 8, height: int = 8) -> bytes:
    """A DDS file with a pixel format that PIL does not know."""
    header = struct.pack("<7I", 124, 0x1007, height, width, 0, 0, 0) + bytes(44)
    return b"DDS " + header + struct.pack("<2I4s5I", 32, 4, b"ABCD", 0, 0, 0, 0, 0) + bytes(20 + 64)


def test_cut_avif_and_unknown_dds_are_unreadable(tmp_path: Path) -> None:
    avif = encoded(64, 64, "AVIF")
    for content in (avif[: len(avif) // 2], avif[:-9], dds()):
        assert image_size(content, methodcaller("load")) == "unreadable image"
        with pytest.raises(OSError, match="unreadable image"):
            decode_image(content, 32)
    write_tar(tmp_path / "x" / "0.tar", [small(1), ("d", {"png": dds(), "txt": b"words"})])
    assert built(tmp_path / "x").left_out == {"unreadable image": 1}


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    shades = np.linspace(0, 65_535, 32 * 32).astype(np.uint16).reshape(32, 32)
    file = io.BytesIO()
    Image.fromarray(shades).save(file, "PNG")
    decoded = decode_image(file.getvalue(), 32)
    assert np.array_equal(decoded, np.stack([shades >> 8] * 3).astype(np.uint8))
    assert len(np.unique(decoded)) == 256


def test_strips_are_left_out_and_long_images_cropped_before_they_are_enlarged() -> None:
    assert image_size(encoded(20_000, 1, "PNG"), methodcaller("load")) == "image too narrow"
    with pytest.raises(OSError, match="image too narrow"):
        decode_image(encoded(20_000, 1, "PNG"), 224)
    long = decode_image(encoded(900, 1, "PNG"), 224)
    assert np.array_equal(long, decode_image(encoded(30, 1, "PNG"), 224))
    file = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(file, "PNG")
    with pytest.raises(OSError, match="image too large"):
        decode_image(file.getvalue(), 32)


def test_names_and_captions_that_are_not_utf8_leave_out_their_sample_alone(tmp_path: Path) -> None:
    image = encoded(8, 8, "PNG")
    surrogate: Sample = ("s", {"png": image, "json": b'{"caption": "\\ud800 x", "uid": "\\udfff"}'})
    write_tar(tmp_path / "x" / "0.tar", [small(1), ("n\udcff", {"png": image, "txt": b"words"}), surrogate])
    pool = built(tmp_path / "x")
    assert pool.count == 1
    assert [each[1:] for each in left_out(pool)] == [
        ("n\\udcff", "name is not UTF-8"),
        ("s", "caption is not UTF-8"),
    ]


def test_rows_of_a_table_that_cannot_be_used_are_left_out_alone(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    for name in ("a.PNG", "b.png", "c.png"):
        (tmp_path / "t" / name).write_bytes(encoded(8, 8, "PNG", ord(name[0])))
    os.mkfifo(tmp_path / "t" / "pipe.png")
    (tmp_path / "t" / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "t" / "loop.png").symlink_to("loop.png")
    lines = "image,caption\na.PNG,one\npipe.png,three\nzero.png,four\nloop.png,five\nc.png,six\n"
    (tmp_path / "t" / "t.csv").write_text(lines)
    pool = built(tmp_path / "t" / "t.csv")
    assert sorted(pool.frame["caption"]) == ["one", "six"]
    assert [each[1:] for each in left_out(pool)] == [
        ("row 1", "not a regular file"),
        ("row 2", "not a regular file"),
        ("row 3", "no such image file"),
    ]
    rows = [{"image": "a.PNG", "caption": "one"}, {"image": "b\0.png", "caption": "two"}]
    (tmp_path / "t" / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert built(tmp_path / "t" / "t.jsonl").left_out == {"no such image file": 1}


# webdataset leaves its shards to the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_members_without_a_stem_or_ending_are_passed_over_as_by_webdataset(tmp_path: Path) -> None:
    shard = tmp_path / "x" / "0.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for number in range(3):
            key, members = small(number)
            for ending, content in members.items():
                add(tar, f"._{key}.{ending}", b"AppleDouble")
                add(tar, "README", b"about")
                add(tar, f"{key}.{ending}", content)

    pool = built(tmp_path / "x")

    theirs = [each["txt"].decode() for each in webdataset.WebDataset([str(shard)], shardshuffle=False)]
    assert sorted(pool.frame["caption"]) == sorted(theirs) == ["number 0", "number 1", "number 2"]
    assert left_out(pool) == []


def test_captions_in_a_txt_that_are_not_utf8_are_left_out_and_a_byte_order_mark_is_not_kept(
    tmp_path: Path,
) -> None:
    texts = [b"caf\xe9", b"\xef\xbb\xbfmarked", b"\xef\xbb\xbf"]
    samples = [(NAMES[n], {"png": encoded(8, 8, "PNG", n), "txt": text}) for n, text in enumerate(texts)]
    write_tar(tmp_path / "x" / "0.tar", samples)
    pool = built(tmp_path / "x")
    assert pool.frame["caption"].tolist() == ["marked"]
    assert pool.left_out == {"caption is not UTF-8": 1, "no caption": 1}


def test_a_build_that_finds_no_pair_leaves_no_files(tmp_path: Path) -> None:
    write_tar(tmp_path / "x" / "0.tar", [("a", {"png": b"no image", "txt": b"text"})])
    shutil.copy(tmp_path / "x" / "0.tar", tmp_path / "x" / "\udcff.tar")
    message = r"x holds no pair: name is not UTF-8 \(\\udcff\.tar\), unreadable image \(0\.tar a\)$"
    with pytest.raises(ValueError, match=message):
        build_pool(tmp_path / "new", Build(source=tmp_path / "x"), lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
