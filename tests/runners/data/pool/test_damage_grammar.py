"""Tars from a grammar of damage: each sample is used, or counted by its key, or lies in a counted range."""

import io
import itertools
import math
import re
import tarfile
import warnings
from collections import Counter
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from runners.data.pool.damage import NOT_READABLE, Damage
from runners.data.pool.reader import decode_image
from runners.data.pool.shards import entries_of, image_size
from tests.runners.data.pool.test_pool import encoded

_BLOCK, _RECORD, _PAGE = tarfile.BLOCKSIZE, tarfile.RECORDSIZE, 4096
_FORMATS: tuple[Literal[0, 1, 2], ...] = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
_LAYOUTS = (("png", "json", "txt"), ("txt", "png"), ("json", "png", "txt"), ("png", "npy", "txt"))
_NAMES = ("{:06d}", "sub/{:09d}", "x" * 120 + "/{:05d}", "img_{}")
_OVERWRITTEN = ("page hole", "page junk", "samples of zeros", "zeros to a record", "blocks of zeros", "junk")
_KINDS = (*_OVERWRITTEN, "cut", "header byte", "wrong size", "behind each other", "appended", "twice")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tar:
    """A tar, with the ranges of its samples when it was sound and the range of bytes that were changed."""

    content: bytes
    samples: list[tuple[str, int, int]]
    touched: tuple[int, int]  # empty in a sound tar


def samples_of(rng: np.random.Generator, first: int, count: int) -> list[tuple[str, bytes]]:
    layout, name = _LAYOUTS[rng.integers(len(_LAYOUTS))], _NAMES[rng.integers(len(_NAMES))]
    how = _FORMATS[rng.integers(len(_FORMATS))]
    found = []
    for key in map(name.format, range(first, first + count)):
        size = int(rng.integers(1, 90))
        contents = {
            "png": encoded(8 + size % 40, 16, "PNG", size),
            "json": b'{"similarity": 0.5}',
            "txt": f"number {key}".encode(),
            "npy": bytes([7]) * size * 37,
        }
        members = (member_of(f"{key}.{ending}", contents[ending], how) for ending in layout)
        found.append((key, b"".join(members)))
    return found


def member_of(name: str, content: bytes, how: Literal[0, 1, 2] = tarfile.USTAR_FORMAT) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header.tobuf(how) + content + bytes(-header.size % _BLOCK)


def closed(samples: list[tuple[str, bytes]], *, records: bool) -> list[tuple[str, bytes]]:
    size = sum(len(content) for _, content in samples) + 2 * _BLOCK
    return [*samples, ("", bytes(2 * _BLOCK + (-size % _RECORD if records else 0)))]


def tar_of(seed: int) -> Tar:
    """Returns a tar of at least three samples with one kind of damage, or none."""
    rng, kind = np.random.default_rng(seed), _KINDS[seed % len(_KINDS)]
    count, records = int(rng.integers(3, 15)), bool(rng.random() < 0.6)
    pieces = samples_of(rng, 0, count)
    first, last = sorted(rng.integers(0, count, 2).tolist())
    if kind == "twice":
        pieces.insert(first, pieces[last])
    elif kind == "appended":
        pieces += samples_of(rng, 50, 4)
    elif kind == "zeros to a record":  # from one sample to another, as long as the end of a tar
        size = -sum(len(content) for _, content in pieces[:last]) % _RECORD
        pieces.insert(0, ("", member_of("README", b"r" * ((size or _RECORD) - _BLOCK))))
    pieces = closed(pieces, records=records)
    for number in range(1, int(rng.integers(2, 5)) if kind == "behind each other" else 0):
        pieces += closed(samples_of(rng, 100 * number, int(rng.integers(1, 5))), records=records)
    stops = itertools.accumulate(len(content) for _, content in pieces)
    samples = [
        (key, stop - len(content), stop) for (key, content), stop in zip(pieces, stops, strict=True) if key
    ]
    return damaged(rng, kind, b"".join(content for _, content in pieces), samples, first, last)


def damaged(
    rng: np.random.Generator,
    kind: str,
    content: bytes,
    samples: list[tuple[str, int, int]],
    first: int,
    last: int,
) -> Tar:
    start, end = samples[first][1], samples[-1][2]
    page, byte = _PAGE * int(rng.integers(end // _PAGE + 1)), int(rng.integers(1, end))
    block = int(rng.integers(start, samples[first][2])) // _BLOCK * _BLOCK
    begin, stop = {
        "page hole": (page, page + _PAGE * int(rng.integers(1, 4))),
        "page junk": (page, page + _PAGE * int(rng.integers(1, 4))),
        "samples of zeros": (start, samples[last][2]),
        "zeros to a record": (start, samples[last][1]),
        "blocks of zeros": (block, block + _BLOCK * int(rng.integers(1, 9))),
        "junk": (byte, min(end, byte + int(rng.integers(1, 9000)))),
        "cut": (byte, len(content)),
        "header byte": (start + byte % _BLOCK, start + byte % _BLOCK + 1),
        "wrong size": (start, start + _BLOCK),
    }.get(kind, (0, 0))
    now = content[begin:stop]
    if kind == "cut":
        now = b""
    elif kind == "wrong size":
        header = tarfile.TarInfo.frombuf(now, "utf-8", "strict")
        header.size += _BLOCK * int(rng.integers(1, 40))
        now = header.tobuf(tarfile.GNU_FORMAT)
    else:
        now = bytes(len(now)) if "hole" in kind or "zeros" in kind else bytes(each ^ 0xA5 for each in now)
    return Tar(content=content[:begin] + now + content[stop:], samples=samples, touched=(begin, stop))


@pytest.mark.parametrize("seed", range(8 * len(_KINDS)))
def test_damaged_tars_lose_no_sample_unsaid(tmp_path: Path, seed: int) -> None:
    check(tar_of(seed), tmp_path / "0.tar")


def check(tar: Tar, path: Path) -> None:
    path.write_bytes(tar.content)
    used, counted, ranges = Counter[str](), Counter[str](), list[tuple[float, float]]()
    end = len(tar.content)
    for found in entries_of(path, "0.tar", score_field="similarity", inspect=methodcaller("load")):
        if not isinstance(found, Damage):
            assert found[0].caption == f"number {found[0].key}"
            used[found[0].key] += 1
        elif not found.reason.startswith(NOT_READABLE):
            counted[found.key] += 1
        elif span := re.search(r"bytes ([\d,]+) to ([\d,]+) are", found.reason):
            first, last = (int(place.replace(",", "")) for place in span.groups())
            ranges.append((first, math.inf if last == end else last))
        else:
            assert found.reason.endswith("unexpected end of data")
            ranges.append((end - _BLOCK, math.inf))
    there = Counter(key for key, _, _ in tar.samples)
    begin, stop = tar.touched
    zeros = end - len(tar.content.rstrip(b"\0"))
    for key, first, last in tar.samples:
        what = key, first, last, used, counted, ranges, tar.samples, tar.touched
        accounts = used[key] + counted[key]
        in_range = any(start < last and stop > first for start, stop in ranges)
        # Samples of zeros before the end of a tar, all in its last record, leave no trace.
        traceless = first >= end - zeros and zeros < _RECORD + 2 * _BLOCK
        assert accounts <= there[key], ("counted too often", what)
        assert accounts == there[key] or in_range or traceless, ("lost unsaid", what)
        assert used[key] or (begin - _RECORD < last and stop + _RECORD > first), ("intact, not used", what)
    if begin == stop:
        assert (used, counted, ranges) == (there, {}, []), ("counted though intact", counted, ranges)


@pytest.mark.parametrize("seed", range(20))
def test_members_in_any_order_and_links_count_each_sample_once(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    contents = {"png": encoded(16, 16, "PNG"), "json": b'{"similarity": 0.5}', "txt": b"words"}
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for place in rng.permutation(12).tolist():
            ending = [*contents][place % 3]
            member = tarfile.TarInfo(f"{place // 3:06d}.{ending}")
            member.size = len(contents[ending])
            if rng.random() < 0.2:
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(member, io.BytesIO(contents[ending]))
    found = entries_of(tmp_path / "0.tar", "0.tar", score_field="similarity", inspect=methodcaller("load"))
    keys = Counter(each.key if isinstance(each, Damage) else each[0].key for each in found)
    assert keys == {f"{key:06d}": 1 for key in range(4)}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_damaged_images_have_a_size_or_a_reason(kind: str) -> None:
    rng, whole = np.random.default_rng(len(kind)), encoded(40, 30, kind)
    for _ in range(30):
        changed = bytearray(whole)
        for at in rng.integers(0, len(changed), int(rng.integers(1, 9))).tolist():
            changed[at] ^= int(rng.integers(1, 256))
        content = bytes(changed[: math.ceil(rng.uniform(0.1, 1) * len(changed))])
        found = image_size(content, methodcaller("load"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert decode_image(content, 24).shape == (3, 24, 24)
            except OSError as error:
                assert re.match("unreadable image|image too (large|narrow)", str(error))  # noqa: PT017
        assert isinstance(found, tuple) or found in {
            "unreadable image",
            "image too large",
            "image too narrow",
        }
