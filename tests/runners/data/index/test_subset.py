"""Subsets by size and quality have the exact size, are nested, and do not depend on the order of rows."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from budgets.quality import count_available
from runners.data.index import selection
from runners.data.index.selection import BLOCK, Subset, bins, subset_of
from tests.runners.data.indexed import in_parts, rows_of

COUNT = 1037


@pytest.fixture(scope="module")
def index() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    # Coarse scores, so that ties stand on many borders.
    score = rng.integers(0, 30, COUNT).astype(np.float32)
    return pd.DataFrame({"score": score, "hash": rng.integers(0, 2**64, COUNT, np.uint64)})


@pytest.mark.parametrize("quality", ["top10", "top25", "all"])
def test_subsets_are_nested_in_size(index: pd.DataFrame, quality: str) -> None:
    subsets = [set(rows_of(index, size=size, quality=quality)) for size in (1, 10, 64, 100)]
    whole = set(rows_of(index, size=None, quality=quality))
    assert [len(subset) for subset in subsets] == [1, 10, 64, 100]
    for smaller, larger in zip(subsets, [*subsets[1:], whole], strict=True):
        assert smaller < larger


def test_whole_qualities_are_nested(index: pd.DataFrame) -> None:
    wholes = [set(rows_of(index, size=None, quality=q)) for q in ("top5", "top20", "top40", "top99", "all")]
    for narrower, wider in pairwise(wholes):
        assert narrower < wider


def test_at_one_size_the_good_part_of_a_wider_subset_is_in_the_narrower(index: pd.DataFrame) -> None:
    good = set(rows_of(index, size=None, quality="top20"))
    wider, narrower = (set(rows_of(index, size=150, quality=q)) for q in ("top60", "top20"))
    assert wider & good < narrower


@pytest.mark.parametrize("few", [selection._FEW, 5, 0])  # noqa: SLF001 - passes over the keys
def test_subsets_are_what_sorting_everything_gives(
    index: pd.DataFrame, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By score, ties by hash; then by hash: said plainly, at the price of sorting the whole pool twice.
    monkeypatch.setattr(selection, "_FEW", few)
    odd = np.tile(np.array([0.0, -0.0, np.inf, -np.inf, 1e-40, -3e38, 0.5], np.float32), COUNT)[:COUNT]
    coarse = index.assign(hash=index["hash"] % 50, score=np.where(index["score"] > 20, odd, -index["score"]))
    pool = in_parts(coarse)
    tenths = np.concatenate([*bins(pool, "score")])
    ordered = coarse.sort_values(["score", "hash"], ascending=[False, True], kind="stable")
    assert np.array_equal(tenths[ordered.index], np.arange(COUNT) * 10 // COUNT)
    for percent in (1, 10, 40, 70):
        best = ordered[: count_available(COUNT, f"top{percent}")]
        found = selection.select(pool, size=None, quality=f"top{percent}").rows()
        assert found.tolist() == sorted(best.index)
        assert percent % 10 or np.array_equal(found, np.flatnonzero(tenths < percent / 10))
        lowest = best.assign(row=best.index).sort_values(["hash", "row"])[:9]
        small = selection.select(pool, size=9, quality=f"top{percent}").rows()
        assert small.tolist() == sorted(lowest.index)


def test_a_named_subset_is_a_quality_of_its_own(index: pd.DataFrame) -> None:
    named = index.assign(**{"in:mine": np.arange(COUNT) % 3 == 0, "in:top20": np.arange(COUNT) < 9})
    assert np.array_equal(rows_of(named, size=40, quality="top20"), rows_of(index, size=40, quality="top20"))
    assert len(rows_of(named, size=None, quality="subset:top20")) == 9
    with pytest.raises(ValueError, match=r"no named subset for quality 'subset:other'"):
        rows_of(named, size=None, quality="subset:other")
    whole = rows_of(named, size=None, quality="subset:mine")
    assert whole.tolist() == list(range(0, COUNT, 3))
    assert set(rows_of(named, size=50, quality="subset:mine")) < set(
        rows_of(named, size=99, quality="subset:mine")
    )
    with pytest.raises(
        ValueError, match=r"400 pairs of quality 'subset:mine' requested, but the pool has 346"
    ):
        rows_of(named, size=400, quality="subset:mine")


def test_pairs_without_a_score_are_never_among_the_best(index: pd.DataFrame) -> None:
    some = index.copy()
    some.loc[::2, "score"] = np.nan
    rows = rows_of(some, size=None, quality="top40")
    assert some["score"].iloc[rows].notna().all()
    with pytest.raises(ValueError, match=r"'top60' needs scores, but 518 of the pool's 1,037 pairs have one"):
        rows_of(some, size=10, quality="top60")


@pytest.mark.parametrize("size", [0, -5, 105])
def test_more_pairs_than_available_raises(index: pd.DataFrame, size: int) -> None:
    with pytest.raises(
        ValueError,
        match=rf"{size} pairs of quality 'top10' requested, but the pool has 104 of that quality, 1,037",
    ):
        rows_of(index, size=size, quality="top10")


def test_a_subset_is_one_bit_a_row_in_memory_and_in_its_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random(10 * BLOCK + 777) < np.repeat([0.3, 0, 1], [5 * BLOCK, 2 * BLOCK, 3 * BLOCK + 777])
    subset_of(iter([mask[:777], mask[777:500_003], mask[500_003:]])).save(tmp_path / "subset")
    assert (tmp_path / "subset").stat().st_size == 11 * (BLOCK // 8 + 8)
    kept, rows = Subset.load(tmp_path / "subset", len(mask)), np.flatnonzero(mask)
    kept.save(tmp_path / "copy")
    (tmp_path / "subset").unlink()  # another process may drop it
    assert len(kept) == len(rows)
    assert np.array_equal(kept.rows(), rows)
    places = rng.integers(0, len(rows), 5_000)
    assert np.array_equal(kept[places], rows[places])
    assert np.array_equal(kept.mask(123, 456_789), mask[123:456_789])
    os.truncate(tmp_path / "copy", 10 * BLOCK // 8)
    with pytest.raises(ValueError, match="was cut short"):
        Subset.load(tmp_path / "copy", len(mask))
