"""A folder that can't be read is not an empty one, as `Path.glob` of Python 3.13 has it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from budgets.machine_cache import CACHE
from runners.store.copies import trial_copies
from runners.store.location import Location
from runners.trials.run_on_node import upload_left
from study.state.study import known_studies, own_sets
from study.storage.bucket_storage import BucketStorage

BUCKET = Location("memory://bucket")


def _left(_folder: Path) -> Path:
    return trial_copies(BUCKET) / "results/mine/trials"


@pytest.mark.parametrize(
    ("at", "read"),
    [
        (lambda folder: folder / "evaluation", own_sets),
        (lambda folder: folder, known_studies),
        (_left, lambda _: upload_left(BUCKET, "results/mine")),
        (
            lambda folder: folder / "trials",
            lambda folder: BucketStorage(BUCKET, "results/mine", folder).announce("0123456789ab"),
        ),
    ],
    ids=["sets of a pool", "studies", "trials left on a node", "trials of a driver"],
)
def test_a_stale_handle_is_an_error(
    at: Callable[[Path], Path],
    read: Callable[[Path], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    folder, scan = at(tmp_path), os.scandir
    folder.mkdir(parents=True, exist_ok=True)
    read(tmp_path)

    def stale(path: Path) -> object:
        if str(path) == str(folder):
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", stale)
    with pytest.raises(OSError, match="Stale"):
        read(tmp_path)


def test_a_study_that_may_not_be_read_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("private", "shared"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.yaml").touch()
    stat = os.stat

    def forbidden(path: str | Path, **options: bool) -> os.stat_result:
        if str(path).startswith(str(tmp_path / "private/")):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", forbidden)
    assert {"shared"} == {*known_studies(tmp_path)} & {"private", "shared"}
