"""Worker processes of a scan share the work and end with their parent."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from runners.data.build.build_pool import Build, build_pool
from runners.data.build.scan import run
from tests.runners.data.test_pool import sample, write_tar

ROOT = Path(__file__).resolve().parents[3]


def sleep_long(number: int) -> int:
    """Report the start, then sleep."""
    print("asleep", flush=True)  # noqa: T201 - to be read
    time.sleep(600)
    return number


def test_workers_end_with_their_parent() -> None:
    script = (
        "from runners.data.build.scan import run; from tests.runners.data.test_scan import sleep_long\n"
        "if __name__ == '__main__': run(sleep_long, range(2), 2, print)"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == process.stdout.readline() == "asleep\n"
        process.kill()
        assert process.stdout.read() == ""  # it ends when nobody is left who could write to it


def test_second_build_of_the_same_pool_raises(tmp_path: Path) -> None:
    write_tar(tmp_path / "x" / "0.tar", [sample(n) for n in range(3)])

    def meanwhile(*_: object) -> None:
        with pytest.raises(ValueError, match=r"another build of the same pool is running in .*\.p\.building"):
            build_pool(tmp_path / "p", Build(source=tmp_path / "x"), lambda *_: None)

    assert build_pool(tmp_path / "p", Build(source=tmp_path / "x"), meanwhile).count == 3


def die_at_three(folder: Path, number: int) -> int:
    """Kills its process at part 3: always, or once if the folder is there to note it."""
    note = folder / "died"
    if number == 3 and not note.exists():
        if folder.exists():
            note.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_part_whose_worker_was_killed_is_repeated(tmp_path: Path) -> None:
    done = list[int]()
    run(partial(die_at_three, tmp_path), range(6), 2, lambda *numbers: done.append(numbers[2]))
    assert sorted(done) == [0, 1, 2, 3, 4, 5]


def test_part_whose_worker_is_killed_again_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"worked on part 3 was killed twice, maybe because the memory"):
        run(partial(die_at_three, tmp_path / "none"), range(6), 2, lambda *_: None)
