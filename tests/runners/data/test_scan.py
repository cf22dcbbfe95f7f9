"""Worker processes of a scan share the work and end with their parent."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from runners.data.build.build_pool import Build, build_pool
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
