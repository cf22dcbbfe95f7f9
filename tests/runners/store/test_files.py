"""Atomic replacement of several files, even if the process is killed."""

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runners.store.files import commit_files, finish_files, locked, wait_until_free

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with an index, shards, and unrelated notes."""
    (tmp_path / "x" / "shards").mkdir(parents=True)
    for name in ("index", "shards/0", "shards/1", "notes"):
        (tmp_path / "x" / name).write_text("old")
    return tmp_path / "x"


def content(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def make(staged: Path) -> None:
    (staged / "shards").mkdir(parents=True)
    for name in ("index", "shards/0", "vocabulary"):
        (staged / name).write_text("new")


class Killed(BaseException):
    """Simulated end of the process."""


@pytest.mark.parametrize("steps", range(8))
def test_kill_at_any_step_leaves_all_old_or_all_new_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    make(folder.parent / "staged")
    before, left = content(folder), [steps]

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **options: Any) -> Any:  # noqa: ANN401 - of several signatures
            if not left[0]:
                raise Killed
            left[0] -= 1
            return original(*words, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "rmdir", "mkdir"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        patch.setattr(shutil, "rmtree", counted(shutil.rmtree))
        with suppress(Killed):
            commit_files(folder.parent / "staged", folder)
    finish_files(folder)
    finish_files(folder)
    after = {"index": "new", "shards/0": "new", "vocabulary": "new", "notes": "old"}
    assert content(folder) == (before if steps == 0 else after)
    assert {path.name for path in folder.iterdir()} <= {"index", "shards", "vocabulary", "notes"}


def test_waiting_for_a_lock_ends_at_its_timeout(tmp_path: Path) -> None:
    lock, held, let_go = tmp_path / ".lock", threading.Event(), threading.Event()
    wait_until_free(lock, 600)
    assert not lock.exists()

    def hold() -> None:
        with locked(lock):
            held.set()
            let_go.wait(600)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    began = time.monotonic()
    wait_until_free(lock, 0.3)
    assert time.monotonic() - began >= 0.3
    assert not let_go.is_set()
    threading.Timer(0.3, let_go.set).start()
    wait_until_free(lock, 600)
    assert let_go.is_set()
    assert time.monotonic() - began < 300
    holder.join()
