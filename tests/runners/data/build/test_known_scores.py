"""Scores that a pool's shards or a table of metadata hold."""

import os
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.known_scores import expression_scores, json_facts, metadata_facts
from runners.data.build.rescore import set_score, set_subset
from runners.data.pool.pool import COMPUTED, Pool, Scorer
from runners.host.workers import Processes
from runners.store.shared_folder import SharedFolder
from tests.runners.data.build.test_damaged_sources import NAMES
from tests.runners.data.indexed import field, indexed
from tests.runners.data.pool.test_pool import Sample, encoded, sample, write_tar
from tests.runners.tiny import tiny_pool


def test_scores_of_repeated_keys_go_to_their_own_pairs(tmp_path: Path) -> None:
    samples = [
        ("k", {"png": encoded(8, 8, "PNG", n), "txt": f"n{n}".encode(), "json": b'{"mine": %d}' % n})
        for n in range(4)
    ]
    write_tar(tmp_path / "x" / "0.tar", samples)
    pool = indexed(tmp_path / "x")
    assert field(pool, "mine").tolist() == [0, 1, 2, 3]


def test_shard_cut_short_is_scored_up_to_there(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write_tar(folder / "0.tar", [sample(n, mine=n) for n in range(6)])
    with tarfile.open(folder / "0.tar") as tar:
        end = tar.getmember(f"{NAMES[4]}.jpg").offset_data + 9
    os.truncate(folder / "0.tar", end)
    pool = indexed(folder)
    assert pool.count == 4
    assert field(pool, "mine").tolist() == [0, 1, 2, 3]


def test_metadata_may_be_any_table(tmp_path: Path) -> None:
    pool = Pool.open(tiny_pool(tmp_path / "x"))
    keys = pool.frame["key"].tolist()
    table = pd.DataFrame({"key": keys, "aes": np.arange(len(keys)) / 2, "lang": "en"})
    table.to_csv(tmp_path / "m.csv", index=False)
    facts = metadata_facts(pool, tmp_path / "m.csv", ["aes", "lang"])
    assert np.concatenate([*facts.numbers("aes")]).tolist() == table["aes"].tolist()
    with pytest.raises(ValueError, match=r"/m\.csv: column lang holds no numbers but texts, such as 'en'"):
        list(facts.numbers("lang"))


def test_metadata_by_a_repeated_key_or_of_booleans_scores_no_pair(tmp_path: Path) -> None:
    samples: list[Sample] = [
        (key, {"png": encoded(8, 8, "PNG", n), "txt": f"n{n}".encode()}) for n, key in enumerate("aba")
    ]
    write_tar(tmp_path / "x" / "0.tar", samples)
    table = pd.DataFrame({"key": ["a", "b"], "mine": [0.5, 0.25], "truth": [True, False]})
    table.to_parquet(tmp_path / "m.parquet")
    pool = indexed(tmp_path / "x")
    assert np.concatenate(
        [*metadata_facts(pool, tmp_path / "m.parquet", ["mine"]).numbers("mine")]
    ).tolist() == pytest.approx([np.nan, 0.25, np.nan], nan_ok=True)
    with pytest.raises(ValueError, match=r"column truth holds no numbers but texts, such as 'False'"):
        list(metadata_facts(pool, tmp_path / "m.parquet", ["truth"]).numbers("truth"))
    table.assign(key=[1, 2]).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(ValueError, match=r"m\.parquet: column key holds int64, but a pool's keys are texts"):
        metadata_facts(pool, tmp_path / "m.parquet", ["mine"]).numbers("mine")


def test_a_computed_score_whose_input_was_replaced_is_no_longer_found_by_its_expression(
    tmp_path: Path,
) -> None:
    pool = Pool.open(tiny_pool(tmp_path / "pool"))
    rising = np.arange(pool.count, dtype=np.float32)
    for name, convention in (("a", "given"), ("other", "given"), ("ab", f"{COMPUTED}a+other")):
        pool = set_score(pool, rising, Scorer(name=name, convention=convention))
    assert pool.computed == {"a+other": "ab"}
    pool = set_score(pool, -rising, Scorer(name="a", convention="given"))
    assert Pool.open(pool.path).computed == {}
    assert set(pool.scores) >= {"a", "other", "ab"}
    pool = set_score(pool, rising - rising, Scorer(name="ab", convention=f"{COMPUTED}a+other"))
    assert Pool.open(pool.path).computed == {"a+other": "ab"}


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["NOT (b > 0)", "b <> 7", "b IN (-1)"])
def test_a_condition_on_a_score_that_a_pair_lacks_is_not_met(tmp_path: Path, condition: str) -> None:
    pool = Pool.open(tiny_pool(tmp_path / "pool"))
    half = np.where(np.arange(pool.count) % 2, -1.0, np.nan).astype(np.float32)
    for name, scores in (("a", np.ones(pool.count, np.float32)), ("b", half)):
        pool = set_score(pool, scores, Scorer(name=name))
    found = np.concatenate(list(expression_scores(pool, f"a WHERE {condition}")))
    assert np.array_equal(np.isnan(found), np.isnan(half))


@pytest.fixture
def paired(tmp_path: Path) -> Pool:
    """Return a pool of six pairs in two parts with the scores a (1, 2, 3 …) and b."""
    pool = Pool.open(tiny_pool(tmp_path / "pool"))
    for name, sign in (("a", 1), ("b", -1)):
        pool = set_score(pool, sign * np.arange(1, pool.count + 1, dtype=np.float32), Scorer(name=name))
    return pool


def test_names_and_texts_may_hold_what_sql_gives_a_meaning(paired: Pool, tmp_path: Path) -> None:
    table = pd.DataFrame({"key": paired.frame["key"], 'a "&" b;': 0.5, "it's": 'say "hi" -- it\'s'})
    table.to_parquet(tmp_path / "m.parquet")
    text = """"a ""&"" b;" + a WHERE "it's" = 'say "hi" -- it''s' AND width > 0"""
    found = np.concatenate(
        [*expression_scores(paired, text, partial(metadata_facts, paired, tmp_path / "m.parquet"))]
    )
    assert found.tolist() == (np.arange(1, paired.count + 1) + 0.5).tolist()


@pytest.mark.slow
def test_a_pair_that_the_metadata_lack_meets_no_condition_on_them(paired: Pool, tmp_path: Path) -> None:
    key = paired.frame["key"].to_numpy()
    table = pd.DataFrame(
        {"key": key[1:4], "nsfw": [1, 0, 0], "lang": ["en", "de", "en"], "good": [True, False, True]}
    )
    table.to_parquet(tmp_path / "m.parquet")

    def kept(condition: str) -> list[int]:
        scores = expression_scores(
            paired, f"a WHERE {condition}", partial(metadata_facts, paired, tmp_path / "m.parquet")
        )
        return np.flatnonzero(np.isfinite(np.concatenate([*scores]))).tolist()

    assert kept("nsfw <> 1") == kept("NOT nsfw = 1") == [2, 3]
    assert kept("lang <> 'en'") == [2]
    assert kept("NOT good") == [2]
    assert kept("good") == [1, 3]
    others = [place for place in range(paired.count) if place not in {1, 2, 3}]
    assert kept("good IS NULL") == kept("lower(lang) IS NULL") == kept("nsfw IS NULL") == others
    assert kept("good IS NOT NULL") == [1, 2, 3]
    assert kept("coalesce(good, true)") == [place for place in range(paired.count) if place != 2]
    table.assign(A=1, Width=7).to_parquet(tmp_path / "case.parquet")
    with pytest.raises(ValueError, match="some of its names, A, a, differ only in case"):
        next(expression_scores(paired, "a + A", partial(metadata_facts, paired, tmp_path / "case.parquet")))
    wide = expression_scores(
        paired, '"Width" * 1000000000', partial(metadata_facts, paired, tmp_path / "case.parquet")
    )
    assert np.nanmax(np.concatenate([*wide])) == 7e9
    with pytest.raises(
        ValueError, match=r"m\.parquet: unknown column 'nfsw'; did you mean 'nsfw'\? allowed: g"
    ):
        next(metadata_facts(paired, tmp_path / "m.parquet", ["nfsw"]).numbers("nfsw"))


def test_metadata_and_uid_files_that_are_ambiguous_or_of_another_kind_are_refused(
    paired: Pool, tmp_path: Path
) -> None:
    table = pd.DataFrame(
        {"key": paired.frame["key"], "CLIP": 1.0, "clip": 2.0, "made": pd.Timestamp("2024-01-01")}
    )
    table.to_parquet(tmp_path / "m.parquet")
    with pytest.raises(ValueError, match="columns clip and CLIP differ only in case"):
        metadata_facts(paired, tmp_path / "m.parquet", ["clip"])
    with pytest.raises(ValueError, match=r"m\.parquet: column made holds timestamp\["):
        metadata_facts(paired, tmp_path / "m.parquet", ["made"])

    np.save(tmp_path / "scalar.npy", np.zeros((), "u8,u8"))
    np.save(tmp_path / "table.npy", np.zeros((2, 2), "u8,u8"))
    np.savez(tmp_path / "archive.npz", uids=np.zeros(2, "u8,u8"))
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    for file, message in {
        "scalar.npy": "not a list of pairs of u8 as DataComp's subset files",
        "table.npy": r"holds \[\('f0', '<u8'\), \('f1', '<u8'\)\] of shape \(2, 2\), not a list of",
        "archive.npy": r"archive\.npy holds an archive, not a list of pairs of u8",
    }.items():
        with pytest.raises(ValueError, match=message):
            set_subset(paired, "some", tmp_path / file)
    assert not Pool.open(paired.path).subsets


@pytest.mark.slow
def test_fields_of_the_samples_are_scores_or_texts_of_an_expression(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "x" / "0.tar", [sample(n, mine=n, lang="ende"[n:][:2], mixed="5%") for n in range(3)]
    )
    write_tar(
        tmp_path / "x" / "1.tar", [sample(n, mine="0.5", lang=None, mixed=2, good=True) for n in range(3, 5)]
    )
    pool = indexed(tmp_path / "x")
    facts = partial(json_facts, pool, Processes(), lambda *_: None, SharedFolder(path=pool.path))

    def found(text: str) -> list[float]:
        scores = expression_scores(pool, text, facts)
        return [*map(float, np.nan_to_num(np.concatenate([*scores]), nan=-1))]

    assert found("mine + 1 WHERE lang = 'en' OR lang IS NULL") == [1, -1, -1, 1.5, 1.5]
    assert found("width WHERE good") == [-1, -1, -1, 43, 44]
    assert field(pool, "mixed").tolist()[3:] == [2, 2]
    with pytest.raises(
        ValueError, match=r"json in .*/x: unknown column 'mne'; did you mean 'mine'\? allowed: "
    ):
        field(pool, "mne")
    with pytest.raises(
        ValueError, match=r"column lang holds no numbers but texts, such as 'en', which the cond"
    ):
        field(pool, "lang")


def test_metadata_by_key_are_refused_for_a_pool_whose_shards_were_written_anew(tmp_path: Path) -> None:
    write_tar(tmp_path / "x" / "0.tar", [
        (f"{n:09d}", {"png": encoded(8, 8, "PNG", n), "txt": b"t", "json": f'{{"similarity": {n}}}'.encode()})
        for n in range(4)
    ])  # fmt: skip
    pool = build_pool(tmp_path / "built", Build(source=tmp_path / "x"), lambda *_: None)
    table = pd.DataFrame({"key": [f"{n:09d}" for n in range(4)], "mine": [0.0, 1, 2, 3]})
    table.to_parquet(tmp_path / "m.parquet")

    with pytest.raises(
        ValueError, match=r"m\.parquet has no column uid. Its keys may be those of the source"
    ):
        metadata_facts(pool, tmp_path / "m.parquet", ["mine"]).numbers("mine")

    place = indexed(tmp_path / "x")
    assert np.concatenate(
        [*metadata_facts(place, tmp_path / "m.parquet", ["mine"]).numbers("mine")]
    ).tolist() == [0, 1, 2, 3]


def test_a_new_score_with_the_name_of_the_shards_own_replaces_it(tmp_path: Path) -> None:
    write_tar(tmp_path / "x" / "0.tar", [
        (str(n), {"png": encoded(8, 8, "PNG", n), "txt": b"t", "json": f'{{"similarity": {n}}}'.encode()})
        for n in range(4)
    ])  # fmt: skip
    pool = set_score(indexed(tmp_path / "x"), np.array([3, 2, 1, 0], np.float32), Scorer(name="similarity"))
    assert pool.frame["score"].tolist() == [3, 2, 1, 0]
    assert pool.subset(size=None, quality="top25").rows().tolist() == [0]
    assert pool.subset(size=None, quality="top25 by similarity").rows().tolist() == [0]

    write_tar(tmp_path / "x" / "1.tar", [
        (str(n), {"png": encoded(8, 8, "PNG", n), "txt": b"t", "json": f'{{"similarity": {n}}}'.encode()})
        for n in range(4, 6)
    ])  # fmt: skip
    grown = build_pool(tmp_path / "x", Build(source=tmp_path / "x", in_place=True), lambda *_: None)
    assert grown.frame["score"].tolist() == pytest.approx([3, 2, 1, 0, np.nan, np.nan], nan_ok=True)
