"""Indexing of tars where they lie: links, tars that change, builds that were killed."""

import gzip
import os
from dataclasses import replace
from pathlib import Path

import pytest

from runners.data.build import build_pool as module
from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.info import info_lines
from runners.data.build.source import not_indexed
from runners.data.pool.damage import NOT_READABLE
from runners.data.pool.pool import Pool
from tests.runners.data.build.test_damaged_sources import built, left_out, small
from tests.runners.data.indexed import indexed
from tests.runners.data.pool.test_pool import write_tar
from tests.runners.data.whole_set import write_plain_set


@pytest.mark.slow
def test_what_is_no_tar_among_shards_is_left_out_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write_tar(folder / "0.tar", [small(1), small(2)])
    (folder / "1.tar").symlink_to(folder / "gone.tar")
    (folder / "2.tar").symlink_to(folder / "2.tar")
    os.mkfifo(folder / "3.tar")
    (folder / "4.tar").symlink_to("/dev/zero")
    (folder / "5.tar").mkdir()
    (folder / "6.tgz").write_bytes(gzip.compress(bytes(9000)))
    (folder / "7.TAR.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(900))
    for name in ("0.json", "5.tar/a.png", "notes"):
        (folder / name).write_bytes(b"{}")
    expected = [
        (f"{NOT_READABLE}: No such file or directory"),
        (f"{NOT_READABLE}: Too many levels of symbolic links"),
        (f"{NOT_READABLE}: not a regular file"),
        (f"{NOT_READABLE}: not a regular file"),
        (f"{NOT_READABLE}: a folder, not a file"),
        (f"{NOT_READABLE}: compressed with gzip; unpack it"),
        (f"{NOT_READABLE}: compressed with zstd; unpack it"),
    ]
    assert [reason for _, _, reason in left_out(built(folder))] == expected
    pool = build_pool(folder, Build(source=folder, in_place=True), lambda *_: None)
    assert pool.count == 2
    assert [reason for _, _, reason in left_out(pool)] == expected
    assert Pool.open(folder).count == 2
    assert not_indexed(pool) is None
    beside = f"not read as pairs, which only tars hold, in {folder}: 1 .json, 1 .png, 1 notes"
    assert beside in list(info_lines(pool))


def test_a_folder_of_compressed_tars_alone_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "1.tar.gz").write_bytes(gzip.compress(bytes(9000)))
    with pytest.raises(ValueError, match=r"nor any \.tar shard; 1\.tar\.gz is not one: unpack it"):
        indexed(tmp_path)
    with pytest.raises(ValueError, match=r"holds no pair: .+ compressed with gzip; unpack it"):
        build_pool(tmp_path / "pool", Build(source=tmp_path / "1.tar.gz"), lambda *_: None)


def test_pairs_of_a_linked_tar_belong_to_the_file_and_not_to_the_link(tmp_path: Path) -> None:
    write_tar(tmp_path / "x" / "b.tar", [small(0), small(1)])
    (tmp_path / "x" / "a.tar").symlink_to("b.tar")
    pool = build_pool(tmp_path / "x", Build(source=tmp_path / "x", in_place=True), lambda *_: None)
    assert set(pool.frame["shard"]) == {"b.tar"}
    (tmp_path / "x" / "a.tar").unlink()
    assert Pool.open(tmp_path / "x").count == 2


def test_a_shard_that_was_still_empty_when_it_was_indexed_is_read_when_it_is_complete(tmp_path: Path) -> None:
    folder, how = tmp_path / "x", Build(source=tmp_path / "x", in_place=True)
    write_tar(folder / "a.tar", [small(0), small(1)])
    (folder / "b.tar").touch()
    assert build_pool(folder, how, lambda *_: None).count == 2
    assert build_pool(folder, how, lambda *_: None).count == 2
    assert not list((folder / "versions").glob("*")), "nothing was new"

    write_tar(folder / "b.tar", [small(2), small(3)])

    pool = build_pool(folder, how, lambda *_: None)
    assert sorted(pool.frame["caption"]) == [f"number {n}" for n in range(4)]
    assert pool.shards["b.tar"] == (folder / "b.tar").stat().st_size


def test_a_shard_that_was_read_before_it_was_complete_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    folder, how = tmp_path / "x", Build(source=tmp_path / "x", in_place=True)
    write_tar(folder / "a.tar", [small(number) for number in range(1000)])
    write_tar(folder / "b.tar", [small(1000)])  # too few to miss
    build_pool(folder, how, lambda *_: None)
    write_tar(folder / "b.tar", [small(number) for number in range(1000, 1030)])
    with pytest.raises(
        ValueError, match=r"x/b\.tar has changed since the pool read it.+pool\.json and index$"
    ):
        build_pool(folder, how, lambda *_: None)
    assert Pool.open(folder).count == 1001


def test_a_part_that_a_killed_build_left_does_not_enter_the_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, how = tmp_path / "x", Build(source=tmp_path / "x", in_place=True)
    write_tar(folder / "a.tar", [small(0), small(1)])
    build_pool(folder, how, lambda *_: None)
    write_tar(folder / "b.tar", [small(2), small(3)])
    with monkeypatch.context() as patched:
        patched.setattr(module, "describe_pool", fail)
        with pytest.raises(RuntimeError, match="killed"):
            build_pool(folder, how, lambda *_: None)
    (folder / "b.tar").unlink()
    write_tar(folder / "c.tar", [small(0), small(1)])  # duplicates alone

    pool = build_pool(folder, how, lambda *_: None)

    assert set(pool.frame["shard"]) == {"a.tar"}
    assert set(pool.shards) == {"a.tar", "c.tar"}


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("killed")


def test_a_file_is_not_indexed_in_place(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [small(0)])
    how = Build(source=tmp_path / "0.tar", in_place=True)
    with pytest.raises(ValueError, match=r"^--in-place indexes a folder of tar shards; .*0\.tar is a file$"):
        build_pool(tmp_path / "0.tar", how, lambda *_: None)


@pytest.mark.slow
def test_other_options_for_a_folder_that_is_indexed_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "x" / "0.tar", [small(n) for n in range(3)])
    write_plain_set(tmp_path / "sets" / "ev")
    plain = Build(source=tmp_path / "x", in_place=True)
    without = replace(plain, evaluation=(tmp_path / "sets" / "ev",))
    build_pool(tmp_path / "x", plain, lambda *_: None)

    with pytest.raises(
        ValueError, match=r"x was built with --without none, not ev: .* delete its pool.json and index"
    ):
        build_pool(tmp_path / "x", without, lambda *_: None)

    (tmp_path / "x" / "pool.json").unlink()
    assert indexed(tmp_path / "x").count == 3
    with pytest.raises(ValueError, match=r"built with --without none, not ev"):
        build_pool(tmp_path / "x", without, lambda *_: None)

    (tmp_path / "x" / "pool.json").unlink()
    build_pool(tmp_path / "x", without, lambda *_: None)
    build_pool(tmp_path / "x", without, lambda *_: None)
    write_tar(tmp_path / "x" / "1.tar", [small(n) for n in range(3, 5)])
    with pytest.raises(ValueError, match=r"x was built with --without ev, not none"):
        build_pool(tmp_path / "x", plain, lambda *_: None)
    assert build_pool(tmp_path / "x", without, lambda *_: None).count == 5
