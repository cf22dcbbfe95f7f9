"""Faults of a real trial process: the row stays the same, and every FLOP is counted."""

import os
import pickle
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from runners.host.faults import (
    Left,
    Notice,
    ProcessEnded,
    fault_of,
    format_error,
    lost_connection_of,
    patiently,
)
from runners.host.process import FreshProcess
from runners.results import read_table
from runners.store.files import locked
from runners.trials.trial import run_trial
from runners.trials.trial_files import MIDWAY, Outcome, checkpoints, kept_steps
from runners.trials.trial_job import TrialJob
from tests.holding import hold, let_go
from tests.runners.host.quiet_trial import (
    ALL,
    BATCH,
    FLOPS,
    STEPS,
    pid_of,
    quiet_row,
    row_of,
    run_quietly,
)
from tests.runners.tiny import counted_flops
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quiet(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> TrialJob:
    """Run the trial without faults."""
    return run_quietly(pool, tmp_path_factory.mktemp("quiet") / "trial")


@pytest.fixture
def job(quiet: TrialJob, tmp_path: Path) -> TrialJob:
    (tmp_path / "results").mkdir()
    return replace(quiet, folder=tmp_path / "results" / "trial")


def start(job: TrialJob) -> FreshProcess:
    return FreshProcess(pickle.dumps(partial(run_trial, job)))


def lost_flops(job: TrialJob, kept_steps: int = STEPS) -> int:
    return counted_flops(job.folder) - kept_steps * BATCH * FLOPS


@pytest.mark.parametrize("notice", [signal.SIGTERM, signal.SIGUSR1])
def test_trial_asked_to_leave_keeps_its_work_and_resumes_to_the_same_row(
    job: TrialJob, quiet: TrialJob, tmp_path: Path, notice: signal.Signals
) -> None:
    hold(tmp_path, step=100)
    process = start(job)
    wait_for(lambda: checkpoints(job.folder))
    os.kill(pid_of(job.folder), notice)
    end = process.wait()
    let_go(tmp_path)

    assert end.how == "left"
    assert end.reason == f"Left: {notice.name} after {kept_steps(job.folder)} of {STEPS} steps"
    assert lost_flops(job, kept_steps(job.folder)) == 0
    assert row_of(start(job).wait()) == quiet_row(quiet)
    assert lost_flops(job) == 0


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_is_a_notice_unless_it_is_ignored(ignored: bool) -> None:  # noqa: FBT001 - a parameter
    notice, before = Notice(), signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)  # as `nohup` does
    try:
        with notice.listening():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert notice.by == ("" if ignored else "SIGHUP")


def test_trial_that_waits_for_another_process_of_it_can_be_asked_to_leave(job: TrialJob) -> None:
    job.folder.mkdir()
    before = signal.getsignal(signal.SIGTERM)

    def ask() -> None:
        wait_for(lambda: signal.getsignal(signal.SIGTERM) != before)  # else it would end the tests
        signal.raise_signal(signal.SIGTERM)

    with locked(job.folder / ".lock"):
        asking = threading.Thread(target=ask)
        asking.start()
        with pytest.raises(Left, match=r"SIGTERM while another process had .*\.lock"):
            run_trial(job)
    asking.join()


def test_temporarily_unreachable_storage_does_not_stop_training(
    job: TrialJob, quiet: TrialJob, tmp_path: Path
) -> None:
    hold(tmp_path, step=100)
    process = start(replace(job, evaluate_at=(0.5, 0.75)))
    wait_for(lambda: checkpoints(job.folder))
    away = job.folder.parent.rename(job.folder.parent.with_name("away"))
    let_go(tmp_path)
    wait_for(lambda: counted_flops(away / "trial") == ALL)
    time.sleep(0.5)
    assert not process.connection.poll(), "it waits with its result"
    away.rename(job.folder.parent)

    assert row_of(process.wait()) == quiet_row(quiet)
    assert lost_flops(job) == 0
    assert {path.name for path in job.folder.iterdir()} == {
        MIDWAY, *(path.name for path in quiet.folder.iterdir())
    }  # fmt: skip
    assert read_table(job.folder / MIDWAY)["step"].tolist() == [100, 150]


def test_trial_without_its_storage_or_pool_crashes_and_creates_nothing(job: TrialJob) -> None:
    job.folder.parent.rmdir()
    results = start(job).wait()
    assert results.how == "crashed"
    assert results.reason.startswith("FileNotFoundError")
    assert not job.folder.parent.exists()

    job.folder.parent.mkdir()
    pool = start(replace(job, pools=(job.folder.with_name("no pool"),))).wait()
    assert pool.how == "crashed"
    assert "storage is unreachable" in pool.reason


@pytest.fixture
def small_disk(job: TrialJob) -> Iterator[Path]:
    """Mount a file system of 4 MB for the trial's folder."""
    disk = job.folder.parent
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk],  # noqa: S607 - the system's own
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)  # noqa: S607


def test_full_disk_delays_the_result_but_does_not_stop_training(
    job: TrialJob, quiet: TrialJob, small_disk: Path, tmp_path: Path
) -> None:
    hold(tmp_path, step=30)  # between two checkpoints: no part of one gives room back
    process = start(job)
    wait_for(lambda: checkpoints(job.folder))
    filler = small_disk / "filler"
    fill(filler, seconds=0.5)
    let_go(tmp_path)
    wait_for(lambda: counted_flops(job.folder) == ALL)
    time.sleep(0.3)
    assert not process.connection.poll(), "it waits with its result"
    filler.unlink()

    assert row_of(process.wait()) == quiet_row(quiet)
    assert lost_flops(job) == 0


def test_trial_on_a_full_disk_has_crashed(job: TrialJob, small_disk: Path) -> None:
    fill(small_disk / "filler")

    end = start(job).wait()

    assert end.how == "crashed"
    assert "No space left on device" in end.reason


def fill(path: Path, seconds: float = 0) -> None:
    """Take all room of a disk, and for some seconds what others give back."""
    end = time.monotonic() + seconds
    with path.open("wb", buffering=0) as file:
        while True:
            size = 1 << 20
            while size:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    size >>= 1
            if time.monotonic() >= end:
                return
            time.sleep(0.01)


def confined(group: Path, job: TrialJob) -> Outcome:
    """Run a trial in a control group."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
    return run_trial(job)


def test_trial_killed_by_the_kernel_for_memory_has_crashed(job: TrialJob) -> None:
    v1 = Path("/sys/fs/cgroup/memory")
    group = (v1 if v1.exists() else v1.parent) / f"study-test-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if v1.exists() else "memory.max")
    try:
        group.mkdir()
        limit.write_text(str(12 * 2**20))
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no control group of one's own here: {error}")
    try:
        end = FreshProcess(pickle.dumps(partial(confined, group, job))).wait()
    finally:
        group.rmdir()

    assert (end.how, end.reason) == ("crashed", "the trial's process died by SIGKILL")


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (Left("SIGTERM after 3 of 9 steps"), "left"),
        (OSError(116, "Stale file handle"), "crashed"),
        (MemoryError(), "crashed"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "crashed"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "crashed"),
        (RuntimeError("DataLoader worker (pid(s) 71, 72) exited unexpectedly"), "crashed"),
        (RuntimeError("DataLoader worker (pid 71) is killed by signal: Bus error. It is"), "crashed"),
        (dist.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited"), "crashed"),
        (dist.DistStoreError("wait timeout after 600000ms, keys: /default_pg/0//cuda//0"), "crashed"),
        (dist.DistNetworkError("The client socket has timed out after 60s"), "crashed"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]"), "crashed"),
        (ConnectionResetError(104, "Connection reset by peer"), "crashed"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "crashed"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "crashed"),
        (RuntimeError("Unexpected error from cudaGetDeviceCount(). Error 802: system not yet"), "crashed"),
        (RuntimeError("No CUDA GPUs are available"), "crashed"),
        (RuntimeError("CUDA error: invalid device ordinal"), "crashed"),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), "crashed"),
        (RuntimeError("unable to mmap 4096 bytes from file <filename not specified>: Cannot"), "crashed"),
        (RuntimeError("received 0 items of ancdata"), "crashed"),
        (RuntimeError("CUDA error: device-side assert triggered"), "failed"),
        (RuntimeError("CUDA error: invalid argument"), "failed"),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "failed"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"), "failed"),
        (RuntimeError("Caught ValueError in DataLoader worker process 0."), "failed"),
        (torch.OutOfMemoryError("CUDA out of memory. SweepPoint to allocate 2.00 GiB. GPU 0 has"), "full"),
        (ValueError("3 of 100 pairs are damaged"), "failed"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "failed"),
        (IndexError("list index out of range"), "failed"),
    ],
)
def test_temporary_faults_are_retried_and_own_failures_are_not(error: BaseException, fault: str) -> None:
    assert fault_of(error) == fault


def test_the_end_of_a_rank_passes_between_processes_unchanged() -> None:
    error = pickle.loads(pickle.dumps(ProcessEnded("failed", "rank 1 of 2: no", lost_connection=True)))  # noqa: S301

    assert (fault_of(error), format_error(error), lost_connection_of(error)) == (
        "failed",
        "rank 1 of 2: no",
        True,
    )


def test_gpu_out_of_memory_error_has_advice() -> None:
    error = torch.OutOfMemoryError(
        "CUDA out of memory. SweepPoint to allocate 2.00 GiB. GPU 0 has 1 GiB free."
    )

    advice = format_error(error)
    assert advice.startswith("CUDA out of memory. training.accumulation, training.gradient_checkpointing")
    assert "--retry-failed" in advice


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("unable to open shared memory object </torch_7_1> in read-write mode: No space left", "--shm-size"),
        ("unable to open shared memory object </torch_7_2>: Too many open files (24)", "ulimit -n"),
        (
            "Caught RuntimeError in DataLoader worker process 0.\nOriginal: unable to mmap 8 bytes",
            "--shm-size",
        ),
        ("received 0 items of ancdata", "ulimit -n"),
    ],
)
def test_a_node_that_is_short_of_something_is_tried_again_with_one_line_of_advice(
    said: str, advice: str
) -> None:
    error = RuntimeError(said)
    assert fault_of(error) == "crashed"
    assert format_error(error).startswith(f"RuntimeError: {said.splitlines()[0]}. ")
    assert advice in format_error(error)
    assert len(format_error(error).splitlines()) == 1


def test_a_process_without_files_to_open_is_tried_again_with_advice() -> None:
    end = FreshProcess(pickle.dumps(open_too_many_files)).wait()
    assert end.how == "crashed"
    assert "Too many open files" in end.reason
    assert "ulimit -n" in end.reason


def open_too_many_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with ExitStack() as files:
        while True:
            files.enter_context(open(os.devnull))  # noqa: PTH123 - short of files, not of paths


def test_patience_ends_and_is_announced_once(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(FileNotFoundError):
        patiently((tmp_path / "gone" / "x").touch, patience_s=0.7, say=said.append)

    assert len(said) == 1
    assert "No such file or directory" in said[0]
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError):
        patiently(tmp_path.rmdir, patience_s=1e9, hurry=lambda: True)
