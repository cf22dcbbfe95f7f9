"""Scores that a pool's shards or a table of metadata hold."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from runners.data.build.in_place import index_shards, open_pool
from runners.data.build.known_scores import column_scores, expression_scores, metadata_scores
from runners.data.build.rescore import set_score
from runners.data.places.shared_folder import SharedFolder
from runners.data.pool.pool import COMPUTED, Pool, Scorer
from runners.host.workers import Processes
from tests.runners.data.build.test_damaged_sources import NAMES
from tests.runners.data.pool.test_pool import Sample, encoded, sample, write_tar
from tests.runners.tiny import tiny_pool


def test_scores_of_repeated_keys_go_to_their_own_pairs(tmp_path: Path) -> None:
    samples = [
        ("k", {"png": encoded(8, 8, "PNG", n), "txt": f"n{n}".encode(), "json": b'{"mine": %d}' % n})
        for n in range(4)
    ]
    write_tar(tmp_path / "x" / "0.tar", samples)
    pool = open_pool(tmp_path / "x")
    scores = column_scores(pool, "mine", Processes(), lambda *_: None, SharedFolder(path=pool.path))
    assert np.concatenate([*scores]).tolist() == [0, 1, 2, 3]


def test_shard_cut_short_is_scored_up_to_there(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write_tar(folder / "0.tar", [sample(n, mine=n) for n in range(6)])
    with tarfile.open(folder / "0.tar") as tar:
        end = tar.getmember(f"{NAMES[4]}.jpg").offset_data + 9
    os.truncate(folder / "0.tar", end)
    pool = index_shards(folder, tolerance=1.0)
    assert pool.count == 4
    scores = column_scores(pool, "mine", Processes(), lambda *_: None, SharedFolder(path=pool.path))
    assert np.concatenate([*scores]).tolist() == [0, 1, 2, 3]


def test_metadata_by_a_repeated_key_or_of_booleans_scores_no_pair(tmp_path: Path) -> None:
    samples: list[Sample] = [
        (key, {"png": encoded(8, 8, "PNG", n), "txt": f"n{n}".encode()}) for n, key in enumerate("aba")
    ]
    write_tar(tmp_path / "x" / "0.tar", samples)
    table = pd.DataFrame({"key": ["a", "b"], "mine": [0.5, 0.25], "truth": [True, False]})
    table.to_parquet(tmp_path / "m.parquet")
    pool = open_pool(tmp_path / "x")
    assert np.concatenate([*metadata_scores(pool, "mine", tmp_path / "m.parquet")]).tolist() == pytest.approx(
        [np.nan, 0.25, np.nan], nan_ok=True
    )
    with pytest.raises(ValueError, match=r"column truth holds bool, not numbers"):
        metadata_scores(pool, "truth", tmp_path / "m.parquet")
    table.assign(key=[1, 2]).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(ValueError, match=r"m\.parquet: column key holds int64, but a pool's keys are texts"):
        metadata_scores(pool, "mine", tmp_path / "m.parquet")


def test_a_computed_score_whose_input_was_replaced_no_longer_stands_for_its_expression(
    tmp_path: Path,
) -> None:
    pool = Pool.open(tiny_pool(tmp_path / "pool"))
    rising = np.arange(pool.count, dtype=np.float32)
    for name, convention in (("a", "given"), ("other", "given"), ("ab", f"{COMPUTED}a+other")):
        pool = set_score(pool, rising, Scorer(name=name, convention=convention))
    assert pool.computed == {"a+other": "ab"}
    pool = set_score(pool, -rising, Scorer(name="a", convention="given"))
    assert Pool.open(pool.path).computed == {}
    assert set(pool.scorers) >= {"a", "other", "ab"}
    pool = set_score(pool, rising - rising, Scorer(name="ab", convention=f"{COMPUTED}a+other"))
    assert Pool.open(pool.path).computed == {"a+other": "ab"}


@pytest.mark.parametrize("condition", ["not (b > 0)", "b != 7", "~(b > 0)"])
def test_a_condition_on_a_score_that_a_pair_lacks_is_not_met(tmp_path: Path, condition: str) -> None:
    pool = Pool.open(tiny_pool(tmp_path / "pool"))
    half = np.where(np.arange(pool.count) % 2, -1.0, np.nan).astype(np.float32)
    for name, scores in (("a", np.ones(pool.count, np.float32)), ("b", half)):
        pool = set_score(pool, scores, Scorer(name=name))
    found = np.concatenate(list(expression_scores(pool, f"a if {condition}")))
    assert np.array_equal(np.isnan(found), np.isnan(half))
