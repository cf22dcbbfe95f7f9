"""The command that wrote a pool takes up the shards that have come to its source since."""

import os
import shutil
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.rescore import set_score, use_score
from runners.data.build.source import Columns, not_indexed
from runners.data.pool.pool import Pool, Scorer
from runners.data.pool.reader import read_pairs
from runners.data.pool.shards import encode_image
from runners.embedded.embedded_pool import TrainingPairs
from tests.runners.data.images import write_pool
from tests.runners.data.index.test_index import EACH, in_place, write_shards
from tests.runners.data.indexed import column
from tests.runners.data.pool.test_pool import write_tar

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.data.build.build_pool.PAIRS_PER_SHARD", 32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder of two shards."""
    write_shards(tmp_path / "source", range(2))
    return tmp_path / "source"


@pytest.fixture
def pool(source: Path, tmp_path: Path) -> Pool:
    return build(tmp_path / "pool", source)


def build(path: Path, source: Path, **options: object) -> Pool:
    return build_pool(path, Build(source=source, **options), lambda *_: None)  # type: ignore[arg-type]


def written(pool: Pool) -> dict[str, tuple[int, str]]:
    """Return the time and hash of each file of shards and of the index."""
    files = [*pool.path.glob("shards/*"), *pool.path.glob("index/*")]
    return {
        str(file): (file.stat().st_mtime_ns, blake2b(file.read_bytes()).hexdigest()) for file in sorted(files)
    }


def test_the_same_command_takes_up_what_is_new_and_leaves_the_rest(
    pool: Pool, source: Path, tmp_path: Path
) -> None:
    before = written(pool)
    assert build(pool.path, source).fingerprint == pool.fingerprint, "there is nothing new"
    write_shards(source, range(1, 3))
    os.utime(source / "0.tar")  # touched, not changed
    shutil.copy(source / "0.tar", source / "9.tar")  # its pairs again

    grown = build(pool.path, source)

    assert written(grown).items() >= before.items()
    assert grown.count == 3 * EACH
    assert grown.frame["hash"].is_unique
    assert grown.frame["key"].is_unique
    assert grown.left_out == {"duplicate": EACH}
    whole = build(tmp_path / "whole", source)
    assert sorted(grown.frame["hash"]) == sorted(whole.frame["hash"])
    assert [len(found.shards) for found in (pool, grown)] == [4, 6]
    for quality in ("all", "top20"):
        ours, theirs = (
            set(each.frame["hash"].iloc[each.subset(size=None, quality=quality).rows()])
            for each in (grown, whole)
        )
        assert ours == theirs
    everything = np.arange(grown.count)
    assert read_pairs(grown, everything, everything, 32).damage == ()
    assert Pool.open(pool.path, holding=pool.unranked).count == 2 * EACH
    assert not_indexed(grown) is None
    assert not list(pool.path.glob(".pool.building"))
    assert build(pool.path, source).fingerprint == grown.fingerprint


def test_a_killed_addition_leaves_the_pool_as_it_was_and_goes_on(
    pool: Pool, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written(pool)
    write_shards(source, range(4))
    for ended in ("new_shards._write_shard", "new_shards._write_index_part", "build_pool.describe_pool"):
        with monkeypatch.context() as patch:
            patch.setattr(f"runners.data.build.{ended}", _stop)
            with pytest.raises(RuntimeError, match="stopped"):
                build(pool.path, source)
        assert Pool.open(pool.path).fingerprint == pool.fingerprint
        assert not_indexed(Pool.open(pool.path)) is None, "what is being written is not reported as new"
    with monkeypatch.context() as patch:
        for done in ("build.pairs_of", "new_shards.write_pairs"):
            patch.setattr(f"runners.data.build.{done}", _stop)
        grown = build(pool.path, source)
    assert grown.count == 4 * EACH
    assert written(grown).items() >= before.items()


def _stop(*_words: object, **_named: object) -> None:
    raise RuntimeError("stopped")


def test_a_source_shard_that_changed_is_one_clear_error(pool: Pool, source: Path) -> None:
    before = written(pool)
    write_shards(source, range(3))
    content = (source / "1.tar").read_bytes()
    (source / "1.tar").write_bytes(content[:-512])
    size = f"{len(content):,} bytes, now {len(content) - 512:,}"
    with pytest.raises(ValueError, match=rf"^{source}/1\.tar has changed since the pool read it \({size}\)"):
        build(pool.path, source)
    assert written(Pool.open(pool.path)) == before
    (source / "1.tar").unlink()  # a shard that is gone is not missed
    assert build(pool.path, source).count == 3 * EACH


def test_another_source_or_other_options_are_refused(pool: Pool, source: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=rf"^{pool.path} was built with --score similarity, not clip: repeat the first"
    ):
        build(pool.path, source, columns=Columns(score="clip"))
    write_shards(tmp_path / "other", range(3))
    message = rf"^{pool.path} already exists; .+ such as into {pool.path}/later, and run `.+ --in-place`"
    with pytest.raises(ValueError, match=message):
        build(pool.path, tmp_path / "other")


def test_a_score_of_the_source_is_named_like_nothing_else(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^--score: 'top50' can't name a score"):
        build(tmp_path / "pool", source, columns=Columns(score="top50"))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_scores_of_a_pool_keep_their_cost_in_a_pool_that_is_built_from_it(tmp_path: Path) -> None:
    cost: dict[str, Any] = {"model": "trial x", "pairs": 20, "train_flops": 10**12, "scoring_flops": 10**9}
    rising, pairs = np.arange(20, dtype=np.float32), TrainingPairs(seed=0, count=20)
    first = write_pool(tmp_path / "first", pairs, rising, scorer=Scorer(name="small CLIP", **cost))
    set_score(first, -rising, Scorer(name="mine", model="other", pairs=20))
    second = build(tmp_path / "second", first.path)
    assert second.scores["similarity"].scorer == Scorer(name="similarity", **cost)
    third = build(tmp_path / "third", second.path)
    assert third.scores["similarity"].scorer == second.scores["similarity"].scorer
    other = build(tmp_path / "other", first.path, columns=Columns(score="kind"))
    assert not other.scores


def test_scores_go_with_later_shards(pool: Pool, source: Path) -> None:
    set_score(pool, np.arange(pool.count, dtype=np.float32), Scorer(name="mine"))
    write_shards(source, range(3))
    grown = build(pool.path, source)
    assert (grown.scored, grown.count) == (2 * EACH, 3 * EACH), "new pairs have no score of a model"
    similar = use_score(grown, "similarity")
    assert np.isfinite(column(similar, "score")).sum() == 3 * EACH
    write_shards(grown.path / "later", range(4, 5))
    assert (in_place(grown.path).count, in_place(grown.path).scored) == (4 * EACH, 4 * EACH)
    assert use_score(in_place(grown.path), "mine").scored == 2 * EACH


def test_no_score_is_named_like_the_first_one_in_another_case(pool: Pool) -> None:
    scores = np.arange(pool.count, dtype=np.float32)
    for again in range(2):
        with pytest.raises(ValueError, match=r"^Similarity differs .+ similarity only in case"):
            set_score(Pool.open(pool.path), scores, Scorer(name="Similarity"))
        mine = set_score(Pool.open(pool.path), scores + again, Scorer(name="mine"))
    assert mine.frame["score"].tolist() == (scores + 1).tolist(), "a score can be given again"


def test_a_table_that_was_touched_is_the_same_and_one_with_other_rows_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number, pair in enumerate(TrainingPairs(seed=3, count=4)):
        (tmp_path / "images" / f"{number}.png").write_bytes(encode_image(pair.image))
    table, rows = (
        tmp_path / "table.csv",
        ["image,caption", *(f"images/{n}.png,picture {n}" for n in range(4))],
    )
    table.write_text("\n".join(rows[:-1]), encoding="utf-8")
    pool = build(tmp_path / "pool", table)
    os.utime(table)
    assert build(pool.path, table).fingerprint == pool.fingerprint
    table.write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^{table} has changed since the pool read it"):
        build(pool.path, table)


def test_a_shard_without_any_new_pair_is_recorded(pool: Pool, source: Path) -> None:
    write_tar(source / "empty.tar", [("1", {"png": b"no image", "txt": b"a picture", "json": b"{}"})])
    assert build(pool.path, source).left_out == {"unreadable image": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runners.data.build.build.pairs_of", _stop)  # it is not read again
        assert build(pool.path, source).count == 2 * EACH


def test_second_build_of_the_same_pool_raises(source: Path, tmp_path: Path) -> None:
    def meanwhile(*_: object) -> None:
        with pytest.raises(ValueError, match=r"another build of the same pool is running in .*\.p\.building"):
            build(tmp_path / "p", source)

    assert build_pool(tmp_path / "p", Build(source=source), meanwhile).count == 2 * EACH
