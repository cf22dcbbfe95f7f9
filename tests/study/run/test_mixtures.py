"""A study of mixtures of two small pools, from YAML to the report, without Ray."""

import re
from pathlib import Path

import pandas as pd
import pytest

from budgets.machine_cache import CACHE
from runners.data.pool.pool import Pool
from runners.data.pool.tokenizer import mixed_words
from runners.embedded.embedded_pool import build_embedded_pool
from tests.runners.store.bucket import Bucket
from tests.study.conftest import SIZES
from tests.study.tiny_study import TinyStudy, read_json

pytestmark = pytest.mark.slow

MIXTURES = """
pools: {{small: {small}, other: {{path: {other}}}}}
mixtures:
  alone: {{small: {{quality: top50}}}}
  half: {{small: 1, other: 1}}
  best: {{small: {{quality: top50, weight: 3}}, other: {{weight: 1, pairs: 128}}}}
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pools") / "other"
    build_embedded_pool(path, pairs=256, seed=8, score=None, evaluation_sizes=SIZES)
    return path


def mixed(place: Path, pool: Path, other: Path, name: str = "mixed", **changes: str) -> TinyStudy:
    """Return a study of mixtures of the two pools."""
    study = TinyStudy(place, pool, name, **changes)
    mixtures = MIXTURES.format(small=pool, other=other)
    study.edit(("    quality: [top50]\n", ""), (f"pool: {{path: {pool}}}", mixtures))
    return study


@pytest.mark.usefixtures("undrawn")
def test_mixtures_are_planned_run_and_compared(pool: Path, other: Path, tmp_path: Path) -> None:
    study = mixed(tmp_path, pool, other, levels="2 GFLOP, 3 GFLOP")

    said = study.says("plan")
    assert "mixture:half: 50.0 %" in said
    assert re.search(r"25\.0 % .*other \(all, 128 pairs,", said)
    study.run()
    results = study.table()
    assert set(results["status"]) == {"finished"}
    assert results.groupby("quality")["subset_size"].first().to_dict() == {
        "mixture:alone": 512,
        "mixture:best": 512 + 128,
        "mixture:half": 1024 + 256,
    }
    assert len(set(results["trial"])) == 6

    one = results[results["quality"] == "mixture:half"].iloc[0]
    explained = study.says(f"plan --explain {one['trial']}")
    share = one["samples_seen"] / 2
    assert f"50.00 % of the samples from 256 pairs of other (all): {share / 256:.3f} epochs" in explained
    assert "all     6" in study.says("status")
    study.says("report")
    assert "mixture half" in (study.folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "mixture" in study.says("recommend --flops 3GFLOP --pairs 2000")

    study.says(f"export {one['trial']} {tmp_path / 'exported'}")
    words = (tmp_path / "exported" / "vocabulary.txt").read_text(encoding="utf-8").split()
    assert words == list(mixed_words([Pool.open(other).vocabulary, Pool.open(pool).vocabulary]))[: len(words)]
    assert read_json(study.folder / "pool-version.json")["pools"].keys() == {"small", "other"}


def test_a_mixture_of_one_pool_takes_the_results_of_the_pool_alone(
    tiny: TinyStudy, pool: Path, other: Path, tmp_path: Path
) -> None:
    tiny.run()
    plain, study = tiny.table(), mixed(tmp_path, pool, other)
    study.run()
    results = study.table()
    same = results[results["quality"] == "mixture:alone"].reset_index(drop=True)
    pd.testing.assert_frame_equal(same.drop(columns="quality"), plain.drop(columns="quality"))

    # The same study, now with mixtures: what is finished counts, under the name that it has here.
    study.edit(("study: mixed", "study: tiny"))
    assert "2 to run" in study.run("--dry-run")
    study.run()
    pd.testing.assert_frame_equal(tiny.table(), results)


def test_trials_read_their_pools_from_a_bucket(
    pool: Path, other: Path, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    on_paths = mixed(tmp_path / "here", pool, other)
    in_bucket = mixed(tmp_path / "there", pool, other, more=f"storage: {bucket.url}\n")

    on_paths.run()

    assert in_bucket.run().count("/clip/pools/") == 2
    assert in_bucket.tables() == on_paths.tables()


def test_what_the_pools_lack_is_said_with_file_and_line(pool: Path, other: Path, tmp_path: Path) -> None:
    def said(old: str, new: str) -> str:
        study = mixed(tmp_path, pool, other)
        study.edit((old, new))
        return study.says("plan", code=2)

    lacking = said("small: 1", "small: {weight: 1, quality: top20 by mine}")
    assert "mixed.yaml:7: quality top20 by mine of the pool small: " in lacking
    same = said("half: {small: 1, other: 1}", "half: {small: {quality: top50, weight: 2}}")
    assert "mixture:half and mixture:alone" in same
    (tmp_path / "theirs").symlink_to(tmp_path / "copied")
    sizes = {"held-out": 100, "retrieval": 32}
    build_embedded_pool(tmp_path / "copied", pairs=64, seed=1, score=None, evaluation_sizes=sizes)
    different = said(f"path: {other}", f"path: {tmp_path / 'theirs'}")
    assert "evaluation: {held-out:" in different
