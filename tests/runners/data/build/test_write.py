"""Writing of a pool: deterministic bytes, complete or absent, best pairs first."""

import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from numpy.typing import NDArray
from PIL import Image

from runners.data.index.selection import bins
from runners.data.pool.pool import Pool, Scorer
from runners.embedded.embedded_pool import TrainingPairs, build_embedded_pool
from runners.store.files import new_folder
from tests.runners.data.images import write_pool

pytestmark = pytest.mark.slow


def test_two_builds_give_the_same_bytes_in_every_file(
    pool: Pool, tmp_path: Path, build_again: Callable[[Path], Pool]
) -> None:
    again = build_again(tmp_path / "small").path
    files = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(pool.path) for p in pool.path.rglob("*") if p.is_file())
    assert len(files) > 10
    for file in files:
        assert (again / file).read_bytes() == (pool.path / file).read_bytes(), file


def test_rows_are_sorted_by_quality_bin_then_hash(pool: Pool) -> None:
    tenths = np.concatenate([*bins(pool.index, "score")])
    assert np.array_equal(np.lexsort((pool.frame["hash"], tenths)), np.arange(503))
    assert np.bincount(tenths).tolist() == [51, 50, 50, 51, 50, 50, 51, 50, 50, 50]
    scores = pool.frame.groupby(tenths)["score"]
    assert (scores.min()[:-1].to_numpy() >= scores.max()[1:].to_numpy()).all()


def test_index_offsets_agree_with_tarfile(pool: Pool) -> None:
    for shard, rows in pool.frame.groupby("shard"):
        with tarfile.open(pool.path / str(shard)) as tar:
            members = {member.name: member for member in tar}
        for row in rows.itertuples():
            member = members[f"{row.key}.png"]
            assert (member.offset_data, member.size) == (row.offset, row.length)
            assert (member.mtime, member.uid, member.uname) == (0, 0, "")


# webdataset leaves its shards to the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_shards_as_img2dataset_writes_them(pool: Pool) -> None:
    shards = sorted(str(path) for path in (pool.path / "shards").glob("*.tar"))
    dataset = webdataset.WebDataset(shards, shardshuffle=False).decode("pil")
    samples = list(dataset)
    assert [sample["__key__"] for sample in samples] == pool.frame["key"].tolist()
    assert [sample["txt"] for sample in samples] == pool.frame["caption"].tolist()
    first = samples[0]
    assert isinstance(first["png"], Image.Image)
    assert first["json"]["caption"] == first["txt"]
    assert first["json"]["kind"] in {"full", "medium", "vague", "near-miss", "swapped"}
    assert first["json"]["similarity"] == pytest.approx(pool.frame["score"].iloc[0])


def test_recorded_scorer_and_source_are_read_back(tmp_path: Path) -> None:
    scorer = Scorer(name="small CLIP", train_flops=10**12, scoring_flops=10**9, convention="3 x 2 x MACs")
    pairs, provenance = TrainingPairs(seed=0, count=10), {"from": "tests"}
    pool = write_pool(tmp_path / "p", pairs, np.arange(10, dtype=np.float32), scorer, provenance)
    assert (pool.name, pool.provenance) == ("p", provenance)
    assert pool.scores[pool.ranked_by].scorer == replace(scorer, name="similarity")


def test_the_fingerprint_follows_content_and_scores(tmp_path: Path) -> None:
    def fingerprint(name: str, seed: int, scores: NDArray[np.float32]) -> str:
        return write_pool(tmp_path / name, TrainingPairs(seed=seed, count=20), scores).fingerprint

    rising = np.arange(20, dtype=np.float32)
    first = fingerprint("a", 0, rising)
    assert fingerprint("b", 0, rising) == first
    assert fingerprint("c", 1, rising) != first
    assert fingerprint("d", 0, rising[::-1].copy()) != first


def test_a_pool_spans_shards_of_4096_pairs(tmp_path: Path) -> None:
    one = TrainingPairs(seed=0, count=1)[0]
    pool = write_pool(tmp_path / "p", [one] * 4100, None)
    assert pool.frame["shard"].value_counts().to_dict() == {"shards/00000.tar": 4096, "shards/00001.tar": 4}
    assert pool.frame["key"].iloc[[0, 4096]].tolist() == ["000000000", "000004096"]


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fails(_images: NDArray[np.uint8], _captions: list[str]) -> NDArray[np.float32]:
        raise RuntimeError("the scorer broke")

    with pytest.raises(RuntimeError, match="the scorer broke"):
        build_embedded_pool(tmp_path / "p", pairs=20, seed=0, score=fails)
    assert list(tmp_path.iterdir()) == []


def test_first_finished_of_two_builds_wins(tmp_path: Path) -> None:
    path = tmp_path / "p"
    with pytest.raises(ValueError, match="was created by another process meanwhile"), new_folder(path):
        first = write_pool(path, TrainingPairs(seed=0, count=5), None)
    assert Pool.open(path).fingerprint == first.fingerprint
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_folder_is_never_overwritten(pool: Pool) -> None:
    before = (pool.path / "pool.json").read_bytes()
    with pytest.raises(ValueError, match="already exists; remove it or choose another path"):
        build_embedded_pool(pool.path, pairs=5, seed=0, score=None)
    assert (pool.path / "pool.json").read_bytes() == before


@pytest.mark.parametrize("count", [5, 0])
def test_pairs_need_a_score_each_and_a_pool_needs_pairs(tmp_path: Path, count: int) -> None:
    scores = np.zeros(4, np.float32) if count else None
    with pytest.raises(ValueError, match=rf"one score each; found {count} pairs, scores of shape"):
        write_pool(tmp_path / "p", TrainingPairs(seed=0, count=count), scores)
