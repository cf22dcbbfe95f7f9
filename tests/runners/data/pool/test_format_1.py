"""Pools that an earlier version wrote are read as they are, and take further scores and shards."""

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.rescore import set_score, use_score
from runners.data.pool.pool import Pool, Scorer
from tests.root import ROOT
from tests.runners.data.indexed import column
from tests.runners.data.pool.test_pool import sample, write_tar

POOLS = {
    "in-place": "similarity", "several": "both", "grown": "similarity", "replaced": "similarity",
    "by-file": "aes", "late": "similarity",
    "embedded": "mini-ConvNeXt trained on 2,048 clean pairs for 40,960 samples",
}  # fmt: skip
"""Pool of the archive → the score that ranks it."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of the pools, and of what the version that wrote them read in them.

    Instead of their shards there are empty files of the same sizes.
    """
    with tarfile.open(ROOT / "tests" / "data" / "pools_of_format_1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    for name in POOLS:
        for shard, size in Pool.open(tmp_path / name, tolerance=1).shards.items():
            (tmp_path / name / shard).parent.mkdir(exist_ok=True)
            (tmp_path / name / shard).touch()
            os.truncate(tmp_path / name / shard, size)
    return tmp_path


def test_pools_of_format_1_have_the_same_subsets_ids_and_costs(folder: Path) -> None:
    expected: dict[str, dict[str, Any]] = json.loads((folder / "expected.json").read_text())
    assert {name.split()[0] for name in expected} == POOLS.keys()
    for name, before in expected.items():
        path, _, version = name.partition(" ")
        pool = Pool.open(folder / path, holding=version)
        assert (pool.fingerprint, pool.unranked) == (before["fingerprint"], before["unranked"])
        assert pool.scored == before["scored"]
        rankings = {name: [score.fingerprint, score.pairs] for name, score in pool.scores.items()}
        assert rankings.items() >= before["rankings"].items()
        for quality, rows in before["rows"].items():
            whole, some = (pool.subset(size=size, quality=quality).rows().tolist() for size in (None, 3))
            assert [whole, some] == rows, (name, quality)
        flops = {of: [each.train_flops + each.scoring_flops for each in costs]
                 for of, costs in pool.score_costs.items()}  # fmt: skip
        assert flops.items() >= before["flops"].items()
        if not version:
            assert pool.ranked_by == POOLS[path]


def test_a_score_that_is_added_to_a_pool_of_format_1_keeps_the_others(folder: Path) -> None:
    for name, ranked_by in POOLS.items():
        before = Pool.open(folder / name)
        after = set_score(before, np.arange(before.count, dtype=np.float32), Scorer(name="new"))
        again = use_score(after, ranked_by)
        assert json.loads((folder / name / "pool.json").read_text())["format"] == 2
        assert after.subset(size=None, quality="top20").rows()[-1] == before.count - 1
        assert (again.fingerprint, again.unranked) == (before.fingerprint, before.unranked)
        assert again.scores.keys() == before.scores.keys() | {"new"}
        assert all(again.scores[name] == score for name, score in before.scores.items())
        old = column(before, "score")
        assert np.array_equal(column(again, "score"), old, equal_nan=True)
        assert np.array_equal(column(again, f"score:{ranked_by}"), old, equal_nan=True)


@pytest.mark.slow
def test_later_shards_of_a_pool_of_format_1_go_on_with_the_scores_of_its_shards(folder: Path) -> None:
    for name in ("in-place", "grown", "late", "several", "replaced"):
        before = Pool.open(folder / name)
        write_tar(folder / name / "9.tar", [sample(n, similarity=n / 99) for n in range(40, 44)])
        after = build_pool(folder / name, Build(source=folder / name, in_place=True), lambda *_: None)
        assert after.count == before.count + 4
        assert after.ranked_by == before.ranked_by
        lost = name == "replaced"  # a given score hides that of the shards
        assert after.scores["similarity"].pairs == before.scores["similarity"].pairs + 4 * (not lost)
        found = column(after, "score:similarity")
        assert np.array_equal(found[: before.count], column(before, "score:similarity"), equal_nan=True)
        assert found[before.count :].tolist() == pytest.approx(
            [np.nan] * 4 if lost else [n / 99 for n in range(40, 44)], nan_ok=True
        )
        assert Pool.open(folder / name, holding=before.unranked).fingerprint == before.fingerprint
