"""The index of a pool: parts, added columns, versions."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from runners.data.build import new_shards
from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.known_scores import expression_scores, metadata_facts
from runners.data.build.rescore import set_score, set_subset, use_score
from runners.data.index import writing
from runners.data.index.parts import Index
from runners.data.index.selection import nth_values
from runners.data.pool import pool as pool_file
from runners.data.pool.pool import Pool, Scorer
from runners.data.pool.tokenizer import vocabulary_of
from runners.data.reading.training_data import Source
from runners.data.reading.training_set import RowsByBlock
from runners.embedded.embedded_pool import TrainingPairs
from tests.runners.data.images import members_of
from tests.runners.data.indexed import column
from tests.runners.data.pool.test_pool import write_tar

pytestmark = pytest.mark.slow

SHARDS, EACH = 6, 50


def write_shards(folder: Path, numbers: range, seed: int = 8) -> None:
    """Write shards of pairs with scores and uids; the same numbers give the same shards."""
    drawn = list(TrainingPairs(seed=seed, count=SHARDS * EACH))
    for number in numbers:
        samples = [
            (
                f"{place:04d}",
                members_of(drawn[place], {"similarity": place % 97 / 97, "uid": f"{place:032x}"}),
            )
            for place in range(number * EACH, (number + 1) * EACH)
        ]
        write_tar(folder / f"{number}.tar", samples)


def in_place(folder: Path) -> Pool:
    return build_pool(folder, Build(source=folder, in_place=True), lambda *_: None)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make parts of two shards, of row groups of 40 rows, and no pool small enough to be held in memory."""
    monkeypatch.setattr(new_shards, "ROWS_PER_PART", 2 * EACH)
    monkeypatch.setattr(writing, "ROWS_PER_GROUP", 40)
    monkeypatch.setattr(pool_file, "_FEW", 0)


@pytest.fixture
def whole(tmp_path: Path) -> Pool:
    """Return a pool in one part."""
    write_shards(tmp_path / "whole", range(SHARDS))
    return in_place(tmp_path / "whole")


@pytest.fixture
def divided(tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch) -> Pool:  # noqa: ARG001
    """Return the same pool in three parts."""
    monkeypatch.setenv("STUDY_CACHE", str(tmp_path / "cache"))
    write_shards(tmp_path / "divided", range(SHARDS))
    return in_place(tmp_path / "divided")


def test_a_pool_in_parts_is_the_pool_in_one(whole: Pool, divided: Pool) -> None:
    assert len(whole.index.parts) == 1
    assert [[*part.group_rows] for part in divided.index.parts] == [[40, 40, 20]] * 3
    assert divided.fingerprint == whole.fingerprint
    assert divided.vocabulary == whole.vocabulary == tuple(vocabulary_of(whole.frame["caption"]))
    assert divided.shards == whole.shards
    assert divided.frame.equals(whole.frame)
    rows = np.random.default_rng(0).integers(0, whole.count, 90)
    columns = ["key", "caption", "score"]
    found = divided.index.rows(rows, columns).reset_index(drop=True)
    assert found.equals(whole.frame[columns].iloc[rows].reset_index(drop=True))
    for quality, size in (("all", 70), ("top37", None), ("top60", 31)):
        subset = divided.subset(size=size, quality=quality)
        assert np.array_equal(subset.rows(), whole.subset(size=size, quality=quality).rows())
        again = Pool.open(divided.path).subset(size=size, quality=quality)  # kept on this machine
        assert np.array_equal(again.rows(), subset.rows())


def test_only_the_parts_that_are_needed_are_read(divided: Pool) -> None:
    rows = divided.subset(size=40, quality="all").rows()
    first = rows[rows < 100]
    expected = divided.index.rows(first, ["key"])["key"].tolist()
    for file in ("index/00001.parquet", "index/00002.parquet"):
        (divided.path / file).unlink()
    assert Pool.open(divided.path).index.rows(first, ["key"])["key"].tolist() == expected
    with pytest.raises(ValueError, match=r"index/00001\.parquet, a part of the pool's index, is damaged"):
        Pool.open(divided.path).index.rows(np.array([150]), ["key"])


def test_rows_of_a_block_of_a_subset_are_read_once(divided: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = RowsByBlock(Source(pool=divided, rows=np.arange(10, 290, 2)))
    assert look_up(np.array([139, 0, 139]))["key"].tolist() == ["0288", "0010", "0288"]
    monkeypatch.setattr(Index, "rows", lambda *_: pytest.fail("they were read again"))
    assert look_up(np.array([70]))["key"].tolist() == ["0150"]


def test_a_damaged_part_is_one_clear_error(divided: Pool) -> None:
    part = divided.path / "index" / "00001.parquet"
    content = bytearray(part.read_bytes())
    content[100] ^= 1  # in the first page, whose checksum tells
    part.write_bytes(content)
    with pytest.raises(ValueError, match=r"00001\.parquet, a part of the pool's index, is damaged .*restore"):
        column(divided, "hash"), [*divided.index.frames(["key"])]
    part.write_bytes(content[:200])
    with pytest.raises(ValueError, match=r"00001\.parquet, a part of the pool's index, is damaged"):
        column(Pool.open(divided.path), "hash")
    (divided.path / json.loads((divided.path / "pool.json").read_text())["manifest"]).unlink()
    with pytest.raises(ValueError, match=r"which lists the parts of the pool's index, can't be read"):
        Pool.open(divided.path)


def test_a_computed_score_may_use_columns_of_metadata_also_texts(divided: Pool, tmp_path: Path) -> None:
    keys = [*pd.concat(divided.index.frames(["key"]))["key"]]
    table = pd.DataFrame({
        "key": keys[::-1], "lang": ["en" if n % 3 == 0 else "de" for n in range(len(keys))][::-1],
        "aesthetic": np.arange(len(keys), dtype=np.float64)[::-1],
    })  # fmt: skip
    table[table["key"] != keys[6]].to_parquet(tmp_path / "facts.parquet")

    text = "similarity + 2*aesthetic WHERE lang = 'en' AND aesthetic < 100"
    facts = partial(metadata_facts, divided, tmp_path / "facts.parquet")
    found = np.concatenate([*expression_scores(divided, text, facts)])

    english = np.setdiff1d(np.arange(0, 100, 3), [6])
    assert np.flatnonzero(np.isfinite(found)).tolist() == english.tolist()
    own = column(divided, "score")
    assert np.allclose(found[english], own[english] + 2 * english)
    with pytest.raises(
        ValueError, match=r"unknown name 'en'; .*lang, .*; texts stand in single quotation marks"
    ):
        next(expression_scores(divided, "similarity WHERE lang = en", facts))


def test_scores_and_subsets_are_added_beside_the_parts(divided: Pool, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in divided.path.rglob("0*.parquet")}
    mine = np.arange(divided.count, dtype=np.float32)[::-1].copy()
    mine[:20] = np.nan
    scored = set_score(divided, mine, Scorer(name="mine"))
    assert {path: path.read_bytes() for path in before} == before
    assert np.array_equal(column(scored, "score"), mine, equal_nan=True)
    assert scored.subset(size=None, quality="top10").rows().tolist() == list(range(20, 50))
    first = scored.subset(size=None, quality="top10 by similarity").rows()
    assert np.array_equal(first, divided.subset(size=None, quality="top10").rows())
    np.save(tmp_path / "uids.npy", np.array([(0, uid) for uid in (3, 150, 299)], "u8,u8"))
    named = set_subset(scored, "few", tmp_path / "uids.npy")
    assert named.subsets == {"few": 3}
    assert named.subset(size=None, quality="subset:few").rows().tolist() == [3, 150, 299]
    few = np.concatenate([*expression_scores(named, "2*mine WHERE few AND mine > 100")])
    assert np.flatnonzero(np.isfinite(few)).tolist() == [150]
    again = set_score(named, -np.nan_to_num(mine), Scorer(name="mine"))  # of the same name
    assert again.subset(size=None, quality="top10").rows().tolist() != list(range(20, 50))
    assert use_score(again, "similarity").fingerprint == divided.fingerprint


def test_later_shards_make_a_new_version_and_the_earlier_one_stays(
    tmp_path: Path,
    whole: Pool,
    small_parts: None,  # noqa: ARG001
) -> None:
    folder = tmp_path / 'it\'s [a] "*?"'
    write_shards(folder, range(3))
    first = in_place(folder)
    assert in_place(folder).unranked == first.unranked  # nothing new
    written = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    words = first.vocabulary

    write_shards(folder, range(SHARDS))
    shutil.copy(folder / "0.tar", folder / "again.tar")  # pairs that the pool has
    second = in_place(folder)

    assert second.count == whole.count
    assert sorted(second.frame["hash"]) == sorted(whole.frame["hash"])
    assert second.fingerprint == whole.fingerprint
    assert second.vocabulary == whole.vocabulary
    assert second.left_out == {"duplicate": EACH}
    assert second.shards.keys() == {*whole.shards, "again.tar"}
    changed = {path.name for path, content in written.items() if path.read_bytes() != content}
    assert changed == {"pool.json"}

    earlier = Pool.open(folder, holding=first.fingerprint)
    assert (earlier.count, earlier.fingerprint) == (3 * EACH, first.fingerprint)
    assert earlier.vocabulary == words
    rows = earlier.subset(size=20, quality="top40").rows()
    assert np.array_equal(rows, first.subset(size=20, quality="top40").rows())
    assert Pool.open(folder, holding="of no version").count == second.count

    write_shards(folder / "third", range(1), seed=10)
    third = in_place(folder)
    for each in (first, second, third):
        found = Pool.open(folder, holding=each.unranked)
        assert found.vocabulary == tuple(vocabulary_of(found.frame["caption"]))
        assert sum(len(pd.read_parquet(found.path / name)) for name in found.left_out_files) == sum(
            found.left_out.values()
        )


def test_an_index_that_is_made_again_has_nothing_of_the_former(tmp_path: Path) -> None:
    folder = tmp_path / "again"
    write_shards(folder, range(2))
    in_place(folder)
    write_shards(folder, range(3))
    in_place(folder)
    (folder / "pool.json").unlink()
    (folder / "2.tar").unlink()
    assert in_place(folder).count == 2 * EACH
    assert not (folder / "versions").exists()
    assert sorted(path.name for path in (folder / "index").glob("0*")) == [
        "00000.parquet",
        "00000.words.parquet",
    ]


def test_values_in_order_and_cut_columns_are_those_of_whole_columns(divided: Pool) -> None:
    lengths = column(divided, "length")
    numbers = [1, 2, 150, 299, 300]
    expected = np.sort(lengths)[::-1][[number - 1 for number in numbers]]
    assert nth_values(divided.index, "length", numbers) == expected.tolist()
    values = np.arange(divided.count)
    cut = [*divided.index.cut(iter(np.array_split(values, 7)))]
    assert [len(each) for each in cut] == [part.rows for part in divided.index.parts]
    assert np.array_equal(np.concatenate(cut), values)
    for wrong, message in ((values[:-1], "there are fewer"), (np.append(values, 0), "there are more")):
        with pytest.raises(ValueError, match=message):
            list(divided.index.cut([wrong]))
