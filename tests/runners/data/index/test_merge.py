"""Passes over all pairs: the result is the same in one share of the rows as in many."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from runners.data.index import merge


@pytest.fixture(params=[2**26, 50])
def _shares(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "_ROWS_AT_ONCE", request.param)


def write(folder: Path, name: str, **columns: object) -> Path:
    path = folder / f"{name}.parquet"
    pd.DataFrame(columns).to_parquet(path)
    return path


@pytest.mark.usefixtures("_shares")
def test_numbers_are_looked_up_by_id_and_the_first_row_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 90, 100), rng.integers(0, 90, 40)]
    files = [write(tmp_path, f"own{n}", uid=[f"{i:032X}" for i in each]) for n, each in enumerate(ids)]
    theirs = rng.integers(0, 60, 200)
    value = np.arange(200)
    others = [write(tmp_path, "other", uid=[f"{i:032x}" for i in theirs], value=value)]
    first = {i: value[np.flatnonzero(theirs == i)[0]] for i in set(theirs.tolist())}

    found = np.concatenate([*merge.look_up(files, "uid", others, "value", tmp_path)])

    expected = [first.get(i, np.nan) for i in np.concatenate(ids).tolist()]
    np.testing.assert_array_equal(found, np.array(expected, np.float64))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "other.parquet",
        "own0.parquet",
        "own1.parquet",
    ]


@pytest.mark.usefixtures("_shares")
def test_pairs_that_repeat_earlier_or_known_ones_are_found_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    parts = [rng.integers(0, 80, 100).astype(np.uint64) for _ in range(3)]
    files = [write(tmp_path, str(n), hash=each, image_hash=each) for n, each in enumerate(parts)]
    known = [write(tmp_path, "known", hash=np.arange(5, dtype=np.uint64))]

    merge.find_duplicates(files, known, tmp_path / "found.parquet")

    seen, expected = set(range(5)), []
    for part, each in enumerate(parts):
        for row, one in enumerate(each.tolist()):
            if one in seen:
                expected.append((part, row))
            seen.add(one)
    found = pq.read_table(tmp_path / "found.parquet")
    assert [*zip(found["part"].to_pylist(), found["row"].to_pylist(), strict=True)] == expected
