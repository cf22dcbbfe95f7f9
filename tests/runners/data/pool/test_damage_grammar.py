"""Random damage of a tar: each of its samples is used, or counted by its key, or lies in a counted range."""

import io
import math
import re
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from runners.data.pool.damage import NOT_READABLE, Damage
from runners.data.pool.pictures import load
from runners.data.pool.reader import decode_image
from runners.data.pool.shards import entries_of, image_size
from tests.runners.data.pool.test_pool import encoded

_BLOCK = tarfile.BLOCKSIZE
_IMAGE = encoded(16, 16, "PNG")
_ENDINGS = ("png", "json", "txt")
_IMAGES = {kind: encoded(40, 30, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """The bytes of one sample in the sound tar."""

    key: str
    start: int
    stop: int


def sound(count: int, first: int = 0) -> tuple[bytes, list[Stretch]]:
    file, stretches = io.BytesIO(), []
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(first, first + count):
            start = tar.offset
            contents = {"png": _IMAGE, "json": b'{"similarity": 0.5}', "txt": f"number {number}".encode()}
            for ending in _ENDINGS:
                member = tarfile.TarInfo(f"{number:06d}.{ending}")
                member.size = len(contents[ending])
                tar.addfile(member, io.BytesIO(contents[ending]))
            stretches.append(Stretch(key=f"{number:06d}", start=start, stop=tar.offset))
    return file.getvalue(), stretches


def accounts_of(content: bytes) -> tuple[Counter[str], Counter[str], list[tuple[int, int]]]:
    """Returns how often each key is used, how often it is counted, and the ranges that are counted."""
    used, counted, ranges = Counter[str](), Counter[str](), []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "0.tar"
        path.write_bytes(content)
        for found in entries_of(path, "0.tar", score_field="similarity", inspect=load):
            if not isinstance(found, Damage):
                assert found[0].score == 0.5
                assert found[0].caption == f"number {int(found[0].key)}"
                used[found[0].key] += 1
            elif not found.reason.startswith(NOT_READABLE):
                counted[found.key] += 1
            elif span := re.search(r"bytes ([\d,]+) to ([\d,]+) are", found.reason):
                first, last = (int(each.replace(",", "")) for each in span.groups())
                ranges.append((first, last))
            else:
                assert found.reason.endswith("unexpected end of data")
                ranges.append((-1, -1))
    return used, counted, ranges


def check(content: bytes, samples: list[Stretch], touched: Callable[[Stretch], bool], end: int) -> None:
    used, counted, ranges = accounts_of(content)
    for each in samples:
        accounts = used[each.key] + counted[each.key]
        in_range = any(first < each.stop and last > each.start for first, last in ranges) or (
            (-1, -1) in ranges and each.stop > end
        )
        assert accounts <= 1, (each, used, counted, ranges)
        assert accounts or in_range, (each, used, counted, ranges)
        if not touched(each):
            assert used[each.key] or any(each.stop == s for s, _ in ranges) or in_range or counted[each.key]
    lost = sum(not used[each.key] for each in samples)
    # Beside a damaged stretch, at most its two neighbours are given up.
    assert lost <= sum(map(touched, samples)) + 2


places = st.floats(0, 1, exclude_max=True)
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(
    count=st.integers(2, 12), at=places, length=st.integers(1, 9000), fill=st.sampled_from([b"\0", b"\xa5"])
)
def test_overwritten_bytes_lose_no_sample_unsaid(count: int, at: float, length: int, fill: bytes) -> None:
    content, samples = sound(count)
    end = samples[-1].stop
    start = int(at * end)
    stop = min(start + length, end)
    check(
        content[:start] + fill * (stop - start) + content[stop:],
        samples,
        lambda each: each.start < stop and each.stop > start,
        len(content),
    )


@few
@given(count=st.integers(2, 12), at=places)
def test_cut_tars_lose_no_sample_unsaid(count: int, at: float) -> None:
    content, samples = sound(count)
    cut = 1 + int(at * samples[-1].stop)
    check(content[:cut], samples, lambda each: each.stop > cut, cut)


@few
@given(count=st.integers(1, 8), at=places, place=st.integers(0, _BLOCK - 1), value=st.integers(1, 255))
def test_changed_header_bytes_lose_no_sample_unsaid(count: int, at: float, place: int, value: int) -> None:
    content, samples = sound(count)
    hit = samples[int(at * count)]
    changed = bytearray(content)
    changed[hit.start + place] ^= value
    check(bytes(changed), samples, lambda each: each is hit, len(content))


@few
@given(
    count=st.integers(2, 8),
    at=places,
    size=st.one_of(st.integers(0, 20_000), st.just(8**11 - 1)),
    ending=st.integers(0, 2),
)
def test_wrong_sizes_with_a_valid_checksum_lose_no_sample_unsaid(
    count: int, at: float, size: int, ending: int
) -> None:
    content, samples = sound(count)
    hit = samples[int(at * count)]
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        member = tar.getmember(f"{hit.key}.{_ENDINGS[ending]}")
    # A size that ends within the content's own blocks changes the content, not the tar.
    assume(size > member.size and -(-size // _BLOCK) != -(-member.size // _BLOCK))
    offset, member.size = member.offset, size
    changed = content[:offset] + member.tobuf(tarfile.USTAR_FORMAT) + content[offset + _BLOCK :]
    check(changed, samples, lambda each: each is hit, len(content))


@few
@given(
    order=st.permutations([(key, ending) for key in range(4) for ending in _ENDINGS]),
    links=st.sets(st.integers(0, 11), max_size=3),
)
def test_members_in_any_order_and_links_count_each_sample_once(
    order: list[tuple[int, str]], links: set[int]
) -> None:
    file = io.BytesIO()
    contents = {"png": _IMAGE, "json": b'{"similarity": 0.5}', "txt": b""}
    with tarfile.open(fileobj=file, mode="w") as tar:
        for place, (key, ending) in enumerate(order):
            member = tarfile.TarInfo(f"{key:06d}.{ending}")
            content = contents[ending] or f"number {key}".encode()
            member.size = len(content)
            if place in links:
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(member, io.BytesIO(content))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "0.tar"
        path.write_bytes(file.getvalue())
        found = list(entries_of(path, "0.tar", score_field="similarity", inspect=load))
    keys = Counter(each.key if isinstance(each, Damage) else each[0].key for each in found)
    assert keys == {f"{key:06d}": 1 for key in range(4)}


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]),
    edits=st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=8),
    kept=st.floats(0.1, 1),
)
def test_damaged_images_have_a_size_or_a_reason(
    kind: str, edits: list[tuple[float, int]], kept: float
) -> None:
    changed = bytearray(_IMAGES[kind])
    for at, value in edits:
        changed[int(at * len(changed))] ^= value
    content = bytes(changed[: math.ceil(kept * len(changed))])
    found = image_size(content, load)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert decode_image(content, 24).shape == (3, 24, 24)
        except OSError as error:
            assert re.match("unreadable image|image too (large|narrow)", str(error))  # noqa: PT017
    assert isinstance(found, tuple) or found in {"unreadable image", "image too large", "image too narrow"}


@few
@given(counts=st.lists(st.integers(1, 5), min_size=2, max_size=4))
def test_tars_behind_each_other_are_read_to_the_last(counts: list[int]) -> None:
    content, keys = b"", list[str]()
    for count in counts:
        more, samples = sound(count, first=len(keys))
        content += more
        keys += [each.key for each in samples]
    used, counted, ranges = accounts_of(content)
    assert (used, counted, ranges) == (dict.fromkeys(keys, 1), {}, [])
