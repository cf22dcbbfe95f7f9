"""Passes over all pairs: the result is the same in one share of the rows as in many."""

import errno
from pathlib import Path

import duckdb
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


@pytest.mark.slow
def test_a_join_compares_no_more_rows_at_once_than_the_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A join of all rows at once fails with so little memory."""
    rows = 2_000_000
    monkeypatch.setattr(merge, "_ROWS_AT_ONCE", rows // 10)
    monkeypatch.setattr(merge, "_MEMORY", "60MB")
    hashes = np.random.default_rng(3).permutation(rows).astype(np.uint64)
    own = write(tmp_path, "own", hash=hashes)
    columns = write(tmp_path, "columns", hash=np.arange(rows, dtype=np.uint64), score=np.arange(rows) + 0.5)

    found = np.concatenate([*merge.look_up([own], "hash", [columns], "score", tmp_path)])

    np.testing.assert_array_equal(found, hashes + 0.5)


def test_a_folder_named_like_a_column_is_not_one_and_an_empty_id_finds_nothing(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "value=9" / "hash=9"
    folder.mkdir(parents=True)
    own = write(folder, "own", uid=["a", "", "b"], hash=np.arange(3, dtype=np.uint64), image_hash=[1, 2, 3])
    other = write(folder, "other", uid=["b", "", "a"], value=[0.5, 1, 0.25])
    found = np.concatenate([*merge.look_up([own], "uid", [other], "value", folder)])
    np.testing.assert_array_equal(found, [0.25, np.nan, 0.5])
    merge.find_duplicates([own], [], folder / "found.parquet")
    assert pq.read_table(folder / "found.parquet").num_rows == 0


def test_values_that_are_not_numbers_are_one_clear_error(tmp_path: Path) -> None:
    own = write(tmp_path, "own", uid=["a"])
    other = write(tmp_path, "other", uid=["a"], value=["text"])
    with pytest.raises(ValueError, match=r"^can't merge tables in .*: Conversion Error: .*'text'"):
        list(merge.look_up([own], "uid", [other], "value", tmp_path))


@pytest.mark.slow
def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(0, 2**62, (2, 1_000_000))
    table = write(tmp_path, "pairs", hash=rows[0], image_hash=rows[1])
    monkeypatch.setattr(merge, "_MEMORY", "30MB")
    connect = duckdb.connect
    monkeypatch.setattr(
        duckdb, "connect", lambda config: connect(config={**config, "max_temp_directory_size": "1MB"})
    )
    with pytest.raises(OSError, match="No space left on device") as error:
        merge.find_duplicates([table], [], tmp_path / "repeated.parquet")
    assert error.value.errno == errno.ENOSPC
    assert not list(tmp_path.glob(".merge-*"))
