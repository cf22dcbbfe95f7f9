"""Subsets by size and quality have the exact size, are nested, and do not depend on the order of rows."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from budgets.quality import count_available, quality_percent
from runners.data.index import selection
from runners.data.index.selection import bins, bins_of
from runners.data.index.subset import BLOCK, Subset, subset_of
from tests.runners.data.indexed import in_parts, rows_of

COUNT = 1037


@pytest.fixture(scope="module")
def index() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    # Coarse scores, so that ties stand on many borders.
    score = rng.integers(0, 30, COUNT).astype(np.float32)
    return pd.DataFrame({"score": score, "hash": rng.integers(0, 2**64, COUNT, np.uint64)})


@pytest.mark.parametrize(
    ("count", "quality", "kept"),
    [(1000, "top20", 200), (1001, "top20", 201), (7, "top1", 1), (32768, "top40", 13108), (5, "all", 5)],
)
def test_a_quality_keeps_its_percentage_rounded_up(count: int, quality: str, kept: int) -> None:
    assert count_available(count, quality) == kept


def test_qualities_are_fractions() -> None:
    assert [quality_percent(quality) for quality in ("top5", "top20", "all")] == [5, 20, 100]


@pytest.mark.parametrize("quality", ["top0", "top100", "best", "top 20", "top20%", "TOP20", "", "top020"])
def test_an_unknown_quality_is_answered_with_what_is_allowed(quality: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown quality '{quality}'; allowed: 'all', 'top1' to 'top99'"):
        count_available(10, quality)


@pytest.mark.parametrize("quality", ["top1", "top10", "top33", "top70", "all"])
def test_the_best_are_kept_and_no_better_one_is_left_out(index: pd.DataFrame, quality: str) -> None:
    rows = rows_of(index, size=None, quality=quality)
    assert len(rows) == count_available(COUNT, quality)
    assert (np.diff(rows) > 0).all()
    left = index["score"].drop(index.index[rows])
    assert left.empty or index["score"].iloc[rows].min() >= left.max()


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


def test_a_subset_does_not_depend_on_the_order_of_rows(index: pd.DataFrame) -> None:
    order = np.random.default_rng(1).permutation(COUNT)
    shuffled = index.iloc[order].reset_index(drop=True)
    rows = rows_of(index, size=200, quality="top30")
    assert set(order[rows_of(shuffled, size=200, quality="top30")]) == set(rows)


@pytest.mark.parametrize("few", [selection._FEW, 5, 0])  # noqa: SLF001 - passes over the keys
def test_subsets_are_what_sorting_everything_gives(
    index: pd.DataFrame, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By score, ties by hash; then by hash: said plainly, at the price of sorting the whole pool twice.
    monkeypatch.setattr(selection, "_FEW", few)
    odd = np.tile(np.array([0.0, -0.0, np.inf, -np.inf, 1e-40, -3e38, 0.5], np.float32), COUNT)[:COUNT]
    coarse = index.assign(hash=index["hash"] % 50, score=np.where(index["score"] > 20, odd, -index["score"]))
    best = coarse.sort_values(["score", "hash"], ascending=[False, True], kind="stable").head(
        count_available(COUNT, "top40")
    )
    lowest = best.assign(row=best.index).sort_values(["hash", "row"]).head(100)
    assert rows_of(coarse, size=None, quality="top40").tolist() == sorted(best.index)
    assert rows_of(coarse, size=100, quality="top40").tolist() == sorted(lowest.index)
    assert np.array_equal(
        np.concatenate([*bins(in_parts(coarse), "score")]),
        bins_of(coarse["score"].to_numpy(np.float32), coarse["hash"].to_numpy()),
    )


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


def test_deciles_are_the_bins_of_the_index(index: pd.DataFrame) -> None:
    by_rank = bins_of(index["score"].to_numpy(), index["hash"].to_numpy())
    assert np.array_equal(np.concatenate([*bins(in_parts(index), "score")]), by_rank)
    for tenths in range(1, 10):
        rows = rows_of(index, size=None, quality=f"top{10 * tenths}")
        assert np.array_equal(np.flatnonzero(by_rank < tenths), rows)


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
