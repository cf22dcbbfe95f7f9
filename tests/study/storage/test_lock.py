"""Two drivers on one study: the second one's error names the first; a dead one does not block."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from math import inf
from pathlib import Path

import pytest

from study.storage.folder_storage import FolderStorage
from study.storage.lock import Holder, active_run, only_run
from tests.root import ROOT

pytestmark = pytest.mark.slow

HOLD = """
import sys, time
from pathlib import Path
from study.storage.folder_storage import FolderStorage
from study.storage.lock import only_run
with only_run(Path(sys.argv[1])):
    print("holds", flush=True)
    while not FolderStorage(Path(sys.argv[1])).stop_requested():
        time.sleep(0.05)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return process


def test_the_second_run_is_refused_with_the_firsts_host_process_and_start(tmp_path: Path) -> None:
    with hold(tmp_path) as first:
        with pytest.raises(ValueError, match="is active: process") as refused, only_run(tmp_path):
            pass
        holder = active_run(tmp_path)
        first.send_signal(signal.SIGKILL)

    assert holder is not None
    assert str(holder) in str(refused.value)
    assert "`status`" in str(refused.value)
    assert "python -m study" not in str(refused.value), "no command that lacks the study"
    assert (holder.host, holder.pid) == (socket.gethostname(), first.pid)
    began = datetime.fromisoformat(holder.since)
    assert timedelta(0) <= datetime.now(began.tzinfo) - began < timedelta(minutes=5)
    assert active_run(tmp_path) is None
    with only_run(tmp_path):
        holder = active_run(tmp_path)
        assert holder is not None
        assert holder.pid == os.getpid()


def test_stop_waits_for_the_runs_end(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        said = list(FolderStorage(tmp_path).stop(wait_s=60))
        assert process.wait(timeout=60) == 0

    assert said[0].startswith(f"asked process {process.pid} on {socket.gethostname()}, since 20")
    assert said[1:] == ["the run has ended; `run` continues it"]


def test_a_run_of_this_machine_whose_process_ended_has_died() -> None:
    here = Holder(host=socket.gethostname(), pid=os.getpid(), since="now")
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert not here.has_died
    assert replace(here, pid=ended.pid).has_died
    assert not replace(here, pid=ended.pid, host="elsewhere").has_died


@pytest.mark.parametrize(("content", "limit_s"), [("", inf), ("now\n", inf), ("60", 60.0)])
def test_a_request_to_stop_has_a_limit_if_it_is_a_number(
    tmp_path: Path, content: str, limit_s: float
) -> None:
    assert FolderStorage(tmp_path).stop_requested() is None
    (tmp_path / "stop").write_text(content)
    assert FolderStorage(tmp_path).stop_requested() == limit_s
