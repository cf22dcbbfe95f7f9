"""A study of mixtures of two small pools, from YAML to the report, without Ray."""

import json
from pathlib import Path

import pandas as pd
import pytest

from budgets.hardware.machine_cache import CACHE
from runners.data.pool.pool import Pool
from runners.data.pool.tokenizer import mixed_words
from runners.embedded.embedded_pool import build_embedded_pool
from tests.runners.host.bucket import Bucket
from tests.study.conftest import SIZES, Run, write_declaration

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


def declare(folder: Path, pool: Path, other: Path, name: str = "mixed", **changes: str) -> Path:
    path = write_declaration(folder, pool, name, **changes)
    text = path.read_text(encoding="utf-8").replace("    quality: [top50]\n", "")
    mixtures = MIXTURES.format(small=pool, other=other)
    path.write_text(text.replace(f"pool: {{path: {pool}}}", mixtures), encoding="utf-8")
    return path


@pytest.mark.usefixtures("undrawn")
def test_mixtures_are_planned_run_and_compared(pool: Path, other: Path, tmp_path: Path, run: Run) -> None:
    declaration = declare(tmp_path, pool, other, levels="2 GFLOP, 3 GFLOP", seeds="0, 1")
    there = f"{declaration} --results {tmp_path}"

    said = run(f"plan {there}")
    assert "mixture:half: 50.0% of the samples from" in said
    assert "25.0% of the samples from other (all, 128 pairs," in said
    run(f"run {there} --backend local")
    results = pd.read_parquet(tmp_path / "mixed" / "results.parquet")
    assert set(results["status"]) == {"finished"}
    assert results.groupby("quality")["subset_size"].first().to_dict() == {
        "mixture:alone": 512,
        "mixture:best": 512 + 128,
        "mixture:half": 1024 + 256,
    }
    assert len(set(results["trial"])) == 12

    one = results[results["quality"] == "mixture:half"].iloc[0]
    explained = run(f"plan {there} --explain {one['trial']}")
    share = one["samples_seen"] / 2
    assert f"50.00% of the samples from 256 pairs of other (all): {share / 256:.3f} epochs" in explained
    assert "all    12" in run(f"status {there}")
    run(f"report {there}")
    frames = (tmp_path / "mixed" / "report" / "report.html").read_text(encoding="utf-8")
    assert "Which mixture of pools?" in frames
    assert "mixture half" in frames
    assert "mixture" in run(f"recommend {there} --flops 3GFLOP --pairs 2000")

    run(f"export {there} {one['trial']} {tmp_path / 'exported'}")
    words = (tmp_path / "exported" / "vocabulary.txt").read_text(encoding="utf-8").split()
    assert words == list(mixed_words([Pool.open(other).vocabulary, Pool.open(pool).vocabulary]))[: len(words)]
    assert json.loads((tmp_path / "mixed" / "pool-version.json").read_text()).keys() == {
        "small", "other",
    }  # fmt: skip


def test_a_mixture_of_one_pool_takes_the_results_of_the_pool_alone(
    pool: Path, other: Path, tmp_path: Path, run: Run
) -> None:
    alone = write_declaration(tmp_path, pool, "tiny")
    run(f"run {alone} --results {tmp_path} --backend local")
    mixed = declare(tmp_path, pool, other)
    run(f"run {mixed} --results {tmp_path} --backend local")
    plain = pd.read_parquet(tmp_path / "tiny" / "results.parquet")
    results = pd.read_parquet(tmp_path / "mixed" / "results.parquet")
    same = results[results["quality"] == "mixture:alone"].reset_index(drop=True)
    pd.testing.assert_frame_equal(same.drop(columns="quality"), plain.drop(columns="quality"))

    # The same study, now with mixtures: what is finished counts, under the name that it has here.
    mixed.write_text(mixed.read_text().replace("study: mixed", "study: tiny"), encoding="utf-8")
    assert "2 to run" in run(f"run {mixed} --results {tmp_path} --backend local --dry-run")
    run(f"run {mixed} --results {tmp_path} --backend local")
    taken = pd.read_parquet(tmp_path / "tiny" / "results.parquet")
    pd.testing.assert_frame_equal(taken, results)


def test_trials_of_a_mixture_share_a_trunk(pool: Path, other: Path, tmp_path: Path, run: Run) -> None:
    tables = {}
    for name, levels in (("both", "3 GFLOP, 4 GFLOP"), ("long", "4 GFLOP")):
        path = declare(tmp_path, pool, other, name, levels=levels)
        text = path.read_text().replace("training:", "training:\n  schedule: trunk\n  warmup: 64 samples")
        text = text.replace("strategies: [clip]", "strategies: [clip]\n    mixtures: [half]")
        path.write_text(text, encoding="utf-8")
        run(f"run {path} --results {tmp_path} --backend local")
        tables[name] = pd.read_parquet(tmp_path / name / "results.parquet").set_index("trial")
    shared = tables["both"].loc[tables["long"].index]
    assert (shared["paid_flops"] < shared["train_flops"]).all()
    pd.testing.assert_frame_equal(
        shared.drop(columns="paid_flops"), tables["long"].drop(columns="paid_flops")
    )


def test_trials_read_their_pools_from_a_bucket(
    pool: Path, other: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration = declare(tmp_path, pool, other)
    run(f"run {declaration} --results {tmp_path / 'here'} --backend local")
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    bucket = Bucket(monkeypatch)
    with declaration.open("a", encoding="utf-8") as file:
        file.write(f"storage: {bucket.url}\n")
    said = run(f"run {declaration} --results {tmp_path / 'there'} --backend local")
    assert said.count("/clip/pools/") == 2
    here, there = (tmp_path / each / "mixed" / "results.parquet" for each in ("here", "there"))
    assert here.read_bytes() == there.read_bytes()
    bucket.go_away()


def test_what_the_pools_lack_is_said_with_file_and_line(
    pool: Path, other: Path, tmp_path: Path, run: Run
) -> None:
    declaration = declare(tmp_path, pool, other)
    text = declaration.read_text(encoding="utf-8")

    def said(old: str, new: str) -> str:
        assert text.count(old) == 1
        declaration.write_text(text.replace(old, new), encoding="utf-8")
        return run(f"plan {declaration} --results {tmp_path}", code=2)

    assert "mixed.yaml:7: quality top20 by mine of the pool small: the pool has no score" in said(
        "small: 1", "small: {weight: 1, quality: top20 by mine}"
    )
    same = said("half: {small: 1, other: 1}", "half: {small: {quality: top50, weight: 2}}")
    assert "mixture:half and mixture:alone select the same pairs; declare only one" in same
    (tmp_path / "theirs").symlink_to(tmp_path / "copied")
    build_embedded_pool(
        tmp_path / "copied", pairs=64, seed=1, score=None, evaluation_sizes={"held-out": 100, "retrieval": 32}
    )
    different = said(f"path: {other}", f"path: {tmp_path / 'theirs'}")
    assert "the pools contain different evaluation sets named held-out; declare which to use" in different
    assert "evaluation: {held-out:" in different
