"""Rewriting of a pool's shards keeps every pair, or leaves the pool as it is."""

import os
import shutil
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from runners.data.build import new_shards
from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.rescore import rewrite_shards, set_score, set_subset
from runners.data.pool.pool import Pool, Scorer
from runners.host.workers import Processes
from tests.runners.data.index.test_index import EACH, write_shards

pytestmark = pytest.mark.slow


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Return a pool of four shards that is ranked by a second score, in another order than the shards'."""
    monkeypatch.setattr(new_shards, "PAIRS_PER_SHARD", 32)
    write_shards(tmp_path / "source", range(2))
    built = build(tmp_path / "pool", tmp_path / "source")
    return set_score(built, np.arange(built.count, dtype=np.float32), Scorer(name="mine"))


def build(path: Path, source: Path) -> Pool:
    return build_pool(path, Build(source=source), lambda *_: None)


def rewrite(pool: Pool) -> Pool:
    return rewrite_shards(pool, workers=Processes(), report=lambda *_: None)


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    return ((path.name, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file())


def overwrite(pool: Pool, row: int, member: bytes, by: bytes) -> str:
    """Overwrite bytes after the first ``member`` behind the start of a pair's image, and name the pair."""
    pair = pool.frame.iloc[row]
    shard = pool.path / pair["shard"]
    content = bytearray(shard.read_bytes())
    place = content.index(member, pair["offset"]) + len(member)
    content[place : place + len(by)] = by
    shard.write_bytes(content)
    return f"{pair['key']} in {pair['shard']}"


def test_pairs_that_are_damaged_are_named_and_the_pool_stays_as_it_is(pool: Pool, tmp_path: Path) -> None:
    lost = overwrite(pool, 5, b"IHDR", bytes(60))
    before = [*files(pool.path)]
    with pytest.raises(ValueError, match="would lose") as error:
        rewrite(pool)
    assert str(error.value) == (
        f"shards of {pool.path} stay as they are, because rewriting them would lose 1 of 100 pairs "
        f"(1 unreadable image): {lost}; restore the shards from a copy, or build another pool of what they "
        f"hold with `data build NEW --from {pool.path}`"
    )
    assert [*files(pool.path)] == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert build(tmp_path / "new", pool.path).count == 2 * EACH - 1, "what the error advises"


def test_pairs_that_have_changed_are_named_though_as_many_can_be_read(pool: Pool) -> None:
    captions = pool.frame["caption"]
    changed = [overwrite(pool, row, captions[row][:-1].encode(), b"~") for row in (3, 7, 8, 9)]
    before = [*files(pool.path)]
    with pytest.raises(ValueError, match="would lose") as error:
        rewrite(pool)
    named = ", ".join(changed[:3])
    assert f"lose 4 of 100 pairs (they have changed): {named} …, and would take up 4 other" in str(
        error.value
    )
    assert [*files(pool.path)] == before


def test_shards_that_are_whole_are_written_in_the_new_order(pool: Pool) -> None:
    rewritten = rewrite(pool)
    assert not (np.diff(pool.frame["bin"]) >= 0).all()
    assert (np.diff(rewritten.frame["bin"]) >= 0).all()
    assert (
        rewritten.frame.set_index("hash")["score"].to_dict()
        == pool.frame.set_index("hash")["score"].to_dict()
    )


def killed_rewrite(path: Path) -> None:
    """Rewrite a pool's shards in this process, which is killed while it writes them."""
    pytest.MonkeyPatch().setattr("runners.data.build.rescore.build_pool", lambda *_: os._exit(9))
    rewrite(Pool.open(path))


def test_nothing_is_left_beside_the_pool_when_a_killed_rewriting_is_repeated(
    pool: Pool, tmp_path: Path
) -> None:
    for _ in range(2):
        process = get_context("spawn").Process(target=killed_rewrite, args=(pool.path,))
        process.start()
        process.join()
        assert process.exitcode == 9
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert left == [".pool.columns.parquet"], "a second one replaces what the first one left"
    assert rewrite(pool).count == pool.count
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_pool_whose_shards_were_rewritten_keeps_its_tables_of_left_out_samples(
    pool: Pool, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copy(source / "1.tar", source / "2.tar")
    grown = rewrite(build(pool.path, source))
    left_out = grown.path / "left-out-2.parquet"
    assert grown.left_out_files == (left_out.name,)
    before, words = left_out.read_bytes(), {grown.unranked: grown.vocabulary}
    for number, more in enumerate((0, 0, EACH), 3):
        write_shards(source / str(number), range(number, number + 1))
        if more:
            shutil.copy(source / "1.tar", source / str(number) / "again.tar")
        grown = build(grown.path, source)
        assert (grown.count, left_out.read_bytes()) == (number * EACH, before)
        assert grown.left_out == {"duplicate": EACH + more}
        tables = [pd.read_parquet(grown.path / name) for name in grown.left_out_files]
        assert [len(table) for table in tables] == [EACH, *([EACH] if more else [])]
        words[grown.unranked] = grown.vocabulary
    assert {each: Pool.open(grown.path, holding=each).vocabulary for each in words} == words
    assert rewrite(grown).left_out == build(grown.path, source).left_out == grown.left_out


def test_a_named_subset_keeps_its_pairs(pool: Pool, tmp_path: Path) -> None:
    np.save(tmp_path / "uids.npy", np.array([(0, uid) for uid in (3, 50, 99, 5000)], "u8,u8"))
    named = set_subset(pool, "few", tmp_path / "uids.npy")
    rewritten = rewrite(named)
    assert rewritten.subsets == named.subsets == {"few": 3}
    rows = rewritten.subset(size=None, quality="subset:few").rows()
    assert sorted(int(uid, 16) for uid in rewritten.frame["uid"].iloc[rows]) == [3, 50, 99]


def test_no_score_is_named_like_the_first_one_in_another_case(tmp_path: Path) -> None:
    write_shards(tmp_path / "source", range(1))
    built = build(tmp_path / "pool", tmp_path / "source")
    scores = np.arange(built.count, dtype=np.float32)
    for again in range(2):
        with pytest.raises(ValueError, match=r"^Similarity differs .+ similarity only in case"):
            set_score(Pool.open(built.path), scores, Scorer(name="Similarity"))
        mine = set_score(Pool.open(built.path), scores + again, Scorer(name="mine"))
    assert mine.frame["score"].tolist() == (scores + 1).tolist(), "a score can be given again"
    assert set(rewrite(mine).index.columns) >= {"score:mine", "score:similarity"}


def test_tars_that_are_not_in_the_index_are_not_taken_up(pool: Pool) -> None:
    write_shards(pool.path / "later", range(2, 3))
    before = [*files(pool.path)]
    message = "not rewritten: 1 tars in .+ are not in its index, the first is later/2.tar; .+ --in-place`"
    with pytest.raises(ValueError, match=message):
        rewrite(pool)
    assert [*files(pool.path)] == before


def test_shards_of_an_addition_that_was_stopped_are_not_taken_up(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path / "source", range(3))
    with monkeypatch.context() as patch:
        patch.delattr("runners.data.build.build_pool.describe_pool")
        with pytest.raises(NameError):
            build(pool.path, tmp_path / "source")
    before = [*files(pool.path)]
    with pytest.raises(ValueError, match=r"2 of them are not in its index, the first is shards/00004\.tar"):
        rewrite(pool)
    assert [*files(pool.path)] == before
    assert rewrite(build(pool.path, tmp_path / "source")).count == 3 * EACH
