"""Signals and dead daemons while a run starts: promised exit codes, no traceback, nothing left behind."""

import re
import signal
import time
from pathlib import Path

import pytest

from tests.study.run.test_run import kill_part
from tests.study.tiny_study import TinyStudy, ended, in_session
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.mark.ray
@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(
    ("how", "after_s"), [("SIGTERM", 0.0), ("SIGHUP", 1.0), ("SIGUSR1", 2.0), ("SIGTERM", 4.0)]
)
def test_a_signal_at_any_moment_of_the_start_stops_a_run(tiny: TinyStudy, how: str, after_s: float) -> None:
    tiny.declare(levels="600 GFLOP")
    with tiny.start(alone=True) as process:
        wait_for(lambda: _holds(process.pid, signal.Signals[how]))
        time.sleep(after_s)
        process.send_signal(signal.Signals[how])
        output = ended(process, code=4)

    assert f"stopped by {how}" in output
    wait_for(lambda: not in_session(process.pid), seconds=60)


@pytest.mark.ray
@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_a_ray_that_dies_while_it_starts_is_started_anew_once(tiny: TinyStudy, part: str) -> None:
    with tiny.start(alone=True) as process:
        wait_for(lambda: kill_part(part, process.pid))
        wait_for(lambda: b"STARTED_ANEW" in Path(f"/proc/{process.pid}/environ").read_bytes())
        wait_for(lambda: kill_part(part, process.pid))
        output = ended(process, code=5)

    first, second = output.splitlines()[-2:]
    died = "study: the Ray on this machine has died: one of its processes ended while it started."
    assert first.startswith(died)
    assert first.endswith("Ray is started anew, once")
    assert second.startswith(died)
    # Agents of a raylet that was killed notice it a minute later.
    wait_for(lambda: not in_session(process.pid), seconds=180)


def _holds(pid: int, number: signal.Signals) -> bool:
    """Return whether a process blocks or handles a signal: it has come to its first line."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = re.findall(r"^Sig(?:Blk|Cgt):\s*(\w+)", status, re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)
