"""A node that cannot run trials is named with what is wrong and what to do."""

from pathlib import Path

import pytest

from runners.trials.speed.preflight import PreflightCheck, check_node, check_ranks, versions


def found(tmp_path: Path, **changes: object) -> dict[str, PreflightCheck]:
    needed = {"expected": versions(), "gpus": 0, "shared_bytes": 2**20, "folder": tmp_path} | changes
    _, checks = check_node(**needed)  # type: ignore[arg-type]
    return {each.what: each for each in checks}


def test_sound_node_passes_every_check(tmp_path: Path) -> None:
    checks = found(tmp_path)

    assert set(checks) == {"versions", "GPUs", "shared memory", "storage"}
    assert {each.verdict for each in checks.values()} <= {"ok", "slow"}
    assert "MB/s" in checks["storage"].found
    assert not list(tmp_path.iterdir())


def test_other_torch_than_the_drivers_is_named(tmp_path: Path) -> None:
    check = found(tmp_path, expected=versions() | {"torch": "2.6.0"})["versions"]

    assert (check.verdict, check.advice) == ("failed", "the driver has torch 2.6.0")
    assert check.found == f"torch {versions()['torch']}"


def test_missing_gpus_are_counted(tmp_path: Path) -> None:
    check = found(tmp_path, gpus=64)["GPUs"]

    assert check.verdict == "failed"
    assert check.found.endswith("a trial takes 64")


def test_shared_memory_without_room_is_measured(tmp_path: Path) -> None:
    check = found(tmp_path, shared_bytes=2**50)["shared memory"]

    assert check.verdict == "failed"
    assert "1,073,741,824 MiB needed" in check.found
    assert "--shm-size" in check.advice


@pytest.mark.parametrize(
    ("folder", "why"), [("away", "No such file or directory"), ("file/below", "Not a directory")]
)
def test_storage_that_is_not_there_is_named(tmp_path: Path, folder: str, why: str) -> None:
    (tmp_path / "file").touch()
    check = found(tmp_path, folder=tmp_path / folder)["storage"]

    assert check.verdict == "failed"
    assert check.found == f"{tmp_path / folder}: {why}"


@pytest.mark.ray
def test_ranks_compute_the_loss_of_one_rank() -> None:
    check = check_ranks(2, gpus=False)

    assert check.verdict == "ok"
    assert check.found.startswith("2 over gloo: sum 1, loss within ")
