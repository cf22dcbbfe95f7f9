"""A node that cannot run trials is named with what is wrong and what to do."""

import resource
from pathlib import Path

import pytest

from runners.trials.preflight import (
    PreflightCheck,
    check_node,
    check_ranks,
    holding_lock,
    package_versions,
)


def found(tmp_path: Path, **changes: object) -> dict[str, PreflightCheck]:
    needed = {"expected": package_versions(), "gpus": 0, "shared_bytes": 2**20, "compiled": True}
    with holding_lock(tmp_path) as lock:
        _, checks = check_node(**needed | {"lock": lock} | changes)  # type: ignore[arg-type]
    return {check.what: check for check in checks}


def test_sound_node_passes_every_check(tmp_path: Path) -> None:
    checks = found(tmp_path)

    assert set(checks) == {"versions", "GPUs", "shared memory", "compiler", "locks", "storage"}
    assert {check.verdict for check in checks.values()} <= {"ok", "slow"}
    assert "MB/s" in checks["storage"].found
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "name", "found_at_the_end", "advice"),
    [
        ({"expected": {"torch": "2.6.0"}}, "versions", package_versions()["torch"], "torch 2.6.0"),
        ({"gpus": 64}, "GPUs", "64", "CUDA"),
        ({"shared_bytes": 2**50}, "shared memory", "1,073,741,824 MiB needed", "--shm-size"),
        ({"lock": Path("/away/lock")}, "storage", "/away: No such file or directory", "storage:"),
        ({"lock": Path("/dev/null/below/lock")}, "storage", "/dev/null/below: Not a directory", "storage:"),
        ({"lock": Path("/away/lock")}, "locks", "/away: No such file or directory", "Lustre: -o flock"),
    ],
)
def test_what_a_node_lacks_is_named_with_advice(
    tmp_path: Path, changes: dict[str, object], name: str, found_at_the_end: str, advice: str
) -> None:
    check = found(tmp_path, **changes)[name]

    assert check.verdict == "failed"
    assert check.found.endswith(found_at_the_end)
    assert advice in check.advice


def test_a_lock_that_a_node_can_take_though_the_driver_holds_it_is_named(tmp_path: Path) -> None:
    check = found(tmp_path, lock=tmp_path / "not-held")["locks"]

    assert (check.verdict, check.found) == (
        "failed",
        f"{tmp_path}: another node can take a lock that the driver holds",
    )


@pytest.mark.parametrize(
    ("compiler", "error"), [("no-such-compiler", "No such file"), ("false", "compiles nothing")]
)
def test_a_compiler_that_does_not_work_is_named_if_trials_are_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, error: str
) -> None:
    monkeypatch.setenv("CXX", compiler)

    check = found(tmp_path)["compiler"]

    assert (check.verdict, check.found.startswith(f"{compiler}: {error}")) == ("failed", True)
    assert "training.compile" in check.advice
    assert "compiler" not in found(tmp_path, compiled=False)


def test_few_open_files_are_named_where_loader_workers_need_them(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    try:
        check = found(tmp_path, gpus=1)["open files"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert (check.verdict, check.found) == ("slow", "up to 1,024 at once, 4,096 wanted")
    assert "ulimit -n 4096" in check.advice


@pytest.mark.ray
def test_ranks_compute_the_loss_of_one_rank() -> None:
    check = check_ranks(2, gpus=False)

    assert check.verdict == "ok"
    assert check.found.startswith("2 over gloo: sum 1, loss within ")
