"""A node that cannot run trials is named with what is wrong and what to do."""

from pathlib import Path

import pytest

from runners.trials.preflight import PreflightCheck, check_node, check_ranks, package_versions


def found(tmp_path: Path, **changes: object) -> dict[str, PreflightCheck]:
    needed = {"expected": package_versions(), "gpus": 0, "shared_bytes": 2**20, "folder": tmp_path} | changes
    _, checks = check_node(**needed)  # type: ignore[arg-type]
    return {check.what: check for check in checks}


def test_sound_node_passes_every_check(tmp_path: Path) -> None:
    checks = found(tmp_path)

    assert set(checks) == {"versions", "GPUs", "shared memory", "storage"}
    assert {check.verdict for check in checks.values()} <= {"ok", "slow"}
    assert "MB/s" in checks["storage"].found
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "name", "found_at_the_end", "advice"),
    [
        ({"expected": {"torch": "2.6.0"}}, "versions", package_versions()["torch"], "torch 2.6.0"),
        ({"gpus": 64}, "GPUs", "64", "CUDA"),
        ({"shared_bytes": 2**50}, "shared memory", "1,073,741,824 MiB needed", "--shm-size"),
        ({"folder": Path("/away")}, "storage", "/away: No such file or directory", "storage:"),
        ({"folder": Path("/dev/null/below")}, "storage", "/dev/null/below: Not a directory", "storage:"),
    ],
)
def test_what_a_node_lacks_is_named_with_advice(
    tmp_path: Path, changes: dict[str, object], name: str, found_at_the_end: str, advice: str
) -> None:
    check = found(tmp_path, **changes)[name]

    assert check.verdict == "failed"
    assert check.found.endswith(found_at_the_end)
    assert advice in check.advice


@pytest.mark.ray
def test_ranks_compute_the_loss_of_one_rank() -> None:
    check = check_ranks(2, gpus=False)

    assert check.verdict == "ok"
    assert check.found.startswith("2 over gloo: sum 1, loss within ")
