"""The machine's cache: one limit for all that it keeps, nothing goes that is in use, and locks."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from budgets.machine_cache import CACHE
from runners.store import cache
from runners.store.cache import CACHE_SIZE, Cache, local_cache
from runners.store.files import locked, matching


def fill(size: int, path: Path) -> None:
    path.mkdir()
    (path / "content").write_bytes(bytes(size))


def used(folder: Path, name: str, at: float) -> None:
    os.utime(folder / "kept" / f".{name}.use", (at, at))


def test_the_least_recently_used_pieces_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_FOLDERS", 1)
    small = Cache(tmp_path, 4000)
    for number in range(4):
        small.write(str(number), bytes([number]) * 1000)
        os.utime(small._path(str(number)), (number, number))  # noqa: SLF001 - the file's time is what counts
    assert small.read("0", 1000, 5, 7) == b"\0\0"
    for number in range(4, 6):
        small.write(str(number), bytes(1000))
    assert [small.has(str(number), 1000) for number in range(6)] == [True, False, False, True, True, True]


def test_one_limit_holds_for_pieces_folders_files_and_counts_and_what_is_used_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_FOLDERS", 1)
    small = Cache(tmp_path, 100_000)
    (tmp_path / "counts").mkdir()
    (tmp_path / "counts" / "old.json").write_bytes(bytes(1000))
    os.utime(tmp_path / "counts" / "old.json", (1, 1))
    for number in range(3):
        small.write(str(number), bytes(10_000))
        os.utime(small._path(str(number)), (number + 2, number + 2))  # noqa: SLF001 - as above
    keep = "from pathlib import Path; from runners.store.cache import local_cache; import sys; "
    keep += (
        "local_cache().keep('other', lambda path: (path.mkdir(), (path / 'x').write_bytes(bytes(30_000))))"
    )
    environment = {**os.environ, CACHE: str(tmp_path), CACHE_SIZE: "1 MB"}
    command = [sys.executable, "-c", f"{keep}; print('kept', flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, env=environment, stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"kept\n"
        used(tmp_path, "other", 1)
        small.keep("file", lambda path: path.write_bytes(bytes(20_000)))
        used(tmp_path, "file", 2.5)
        mine = small.keep("mine", lambda path: fill(30_000, path))

        assert (tmp_path / "kept" / "other").exists(), "another process uses it"
        assert (mine / "content").exists()
        assert not (tmp_path / "counts" / "old.json").exists()
        assert [small.has(str(number)) for number in range(3)] == [False, True, True]
        assert not (tmp_path / "kept" / "file").exists(), "it was unused for longer than the second piece"
        other.kill()
    small.keep("more", lambda path: fill(80_000, path))
    assert not (tmp_path / "kept" / "other").exists()
    assert (mine / "content").exists()


def test_what_was_removed_or_left_half_made_is_made_again_and_what_is_there_is_not(tmp_path: Path) -> None:
    made, room = list[Path](), Cache(tmp_path, 10**6)

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("x")

    for _ in range(2):
        room.keep("x", make)
    assert len(made) == 1
    made[0].unlink()
    (tmp_path / "kept" / ".x.partial-1").write_text("half")
    room.keep("x", make)
    assert len(made) == 2
    assert not list((tmp_path / "kept").glob(".x.partial*"))


def test_the_environment_sets_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_SIZE, "33 GB")
    assert local_cache().limit == 33 * 10**9
    monkeypatch.setenv(CACHE_SIZE, "large")
    with pytest.raises(ValueError, match=r"STUDY_CACHE_SIZE: 'large'"):
        local_cache()


@pytest.mark.slow
def test_waiting_for_a_lock_ends_at_its_timeout(tmp_path: Path) -> None:
    lock, held, let_go = tmp_path / ".lock", threading.Event(), threading.Event()

    def hold() -> None:
        with locked(lock):
            held.set()
            let_go.wait(600)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    began = time.monotonic()
    with locked(lock, wait_s=0.3) as got:
        assert got is None
    assert time.monotonic() - began >= 0.3
    assert not let_go.is_set()
    threading.Timer(0.3, let_go.set).start()
    with locked(lock, wait_s=600) as got:
        assert got is not None
    assert let_go.is_set()
    assert time.monotonic() - began < 300
    holder.join()


def test_a_folder_that_cannot_be_read_is_an_error_and_a_missing_one_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoint-1").touch()
    (tmp_path / ".checkpoint-2").touch()
    assert matching(tmp_path, "checkpoint-*") == [tmp_path / "checkpoint-1"]
    assert matching(tmp_path / "missing", "*") == matching(tmp_path / "checkpoint-1", "*") == []

    def stale(path: Path) -> None:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    monkeypatch.setattr(os, "scandir", stale)
    with pytest.raises(OSError, match="Stale file handle"):
        matching(tmp_path, "*")
