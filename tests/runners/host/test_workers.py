"""Worker processes share the work, repeat that of killed ones, and end with their parent."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from runners.host.workers import VISIBLE_DEVICES, Processes
from tests.root import ROOT


def sleep_long(item: int) -> int:
    """Report the start, then sleep."""
    print("asleep", flush=True)  # noqa: T201 - to be read
    time.sleep(600)
    return item


@pytest.mark.slow
def test_workers_end_with_their_parent() -> None:
    script = (
        "from runners.host.workers import Processes\n"
        "from tests.runners.host.test_workers import sleep_long\n"
        "if __name__ == '__main__': list(Processes(count=2).map(sleep_long, range(2)))"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == process.stdout.readline() == "asleep\n"
        process.kill()
        assert process.stdout.read() == ""  # it ends when nobody is left who could write to it


def die_at_three(folder: Path, item: int) -> int:
    """Kills its process at item 3: always, or once if the folder is there to note it."""
    note = folder / "died"
    if item == 3 and not note.exists():
        if folder.exists():
            note.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.slow
def test_item_whose_worker_was_killed_is_repeated(tmp_path: Path) -> None:
    found = Processes(count=2).map(partial(die_at_three, tmp_path), range(6))
    assert sorted(found) == [(item, item) for item in range(6)]


def test_item_whose_worker_is_killed_again_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"worked on part 3 was killed twice, maybe because the memory"):
        list(Processes(count=2).map(partial(die_at_three, tmp_path / "none"), range(6)))


def die_first(item: int) -> int:
    if item == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_pool_breaks_although_its_fork_server_was_started_shielded() -> None:
    script = (
        "import signal; from runners.host.process import FreshProcess\n"
        "from runners.host.workers import Processes\n"
        "from pickle import dumps; from tests.runners.host.test_workers import die_first\n"
        "signal.alarm(50); print(FreshProcess(dumps(int)).wait().how)\n"  # the server starts here
        "try: list(Processes(count=2).map(die_first, range(6)))\n"
        "except ValueError as error: print(error)"
    )
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("finished\nthe process that worked on part 0 was killed twice"), ended


def fail_first(folder: Path, item: int) -> int:
    """Leave a file for each item that is begun; the first one fails."""
    (folder / str(item)).touch()
    if item == 0:
        raise ValueError("no such column")
    time.sleep(0.2)
    return item


def test_an_error_does_not_wait_for_the_items_that_are_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such column"):
        list(Processes(count=2).map(partial(fail_first, tmp_path), range(100)))
    assert len(list(tmp_path.iterdir())) < 50


def device(folder: Path, item: int) -> str:
    """Return this process's device, once each of two processes has an item."""
    (folder / str(item)).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    return os.environ[VISIBLE_DEVICES]


def test_each_process_sees_its_own_device(tmp_path: Path) -> None:
    found = Processes(count=2, devices=("5", "GPU-3f2a")).map(partial(device, tmp_path), range(2))
    assert {name for _, name in found} == {"5", "GPU-3f2a"}
