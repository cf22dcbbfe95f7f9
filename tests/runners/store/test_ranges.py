"""Ranges of shards below a URL: those with little between them are fetched together."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from runners.store.location import Location
from runners.store.place import NEAR, ranges_at

SIZE = 12 * 2**20


@pytest.fixture
def requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Return a list that takes the requests of two shards in a folder."""
    rng, found = np.random.default_rng(0), list[tuple[str, int, int]]()
    read_range = Location._range  # noqa: SLF001 - each call is a request
    for shard in ("a.tar", "b.tar"):
        (tmp_path / shard).write_bytes(rng.bytes(SIZE))

    def counted(storage: Location, name: str, start: int, stop: int) -> bytes:
        found.append((name, start, stop))
        return read_range(storage, name, start, stop)

    monkeypatch.setattr(Location, "_range", counted)
    return found


def slices(folder: Path, ranges: list[tuple[str, int, int]]) -> list[bytes]:
    return [(folder / shard).read_bytes()[offset : offset + length] for shard, offset, length in ranges]


def test_ranges_with_less_than_a_piece_between_them_are_one_request(
    tmp_path: Path, requests: list[tuple[str, int, int]]
) -> None:
    ranges = [
        ("a.tar", 100, 50),
        ("a.tar", 150, 10),
        ("a.tar", 159 + NEAR, 7),
        ("a.tar", 166 + 2 * NEAR, 9),
        ("b.tar", 400, 20),
    ]

    read = ranges_at(f"file://{tmp_path}", ranges)

    assert read == slices(tmp_path, ranges)
    first, last = 166 + NEAR, 166 + 2 * NEAR
    assert sorted(requests) == [("a.tar", 100, first), ("a.tar", last, last + 9), ("b.tar", 400, 420)]


def test_no_request_is_longer_than_eight_mib_unless_its_range_is(
    tmp_path: Path, requests: list[tuple[str, int, int]]
) -> None:
    starts = range(0, 10 * 2**20, 2**17)

    read = ranges_at(f"file://{tmp_path}", [*(("a.tar", start, 100) for start in starts), ("b.tar", 0, SIZE)])

    assert [len(each) for each in read] == [100] * len(starts) + [SIZE]
    *some, whole = sorted(requests)
    assert whole == ("b.tar", 0, SIZE)
    assert len(some) == 2
    assert all(stop - start <= 8 * 2**20 for _, start, stop in some)
    assert all(before[2] <= after[1] for before, after in pairwise(some))


def test_a_range_behind_the_end_of_a_shard_or_of_none_is_short(
    tmp_path: Path, requests: list[tuple[str, int, int]]
) -> None:
    ranges = [("a.tar", SIZE - 40, 10), ("a.tar", SIZE - 20, 30), ("c.tar", 0, 10)]

    assert [len(each) for each in ranges_at(f"file://{tmp_path}", ranges)] == [10, 20, 0]
    assert len(requests) == 2


def test_ranges_may_overlap_and_come_in_any_order(
    tmp_path: Path, requests: list[tuple[str, int, int]]
) -> None:
    ranges = [
        ("a.tar", 500, 1000),
        ("a.tar", 600, 10),
        ("a.tar", 500, 1000),
        ("a.tar", 0, 7),
        ("b.tar", 0, 0),
    ]

    read = ranges_at(f"file://{tmp_path}", ranges)

    assert read == slices(tmp_path, ranges)
    assert sorted(requests) == [("a.tar", 0, 7), ("a.tar", 500, 1500), ("b.tar", 0, 0)]
