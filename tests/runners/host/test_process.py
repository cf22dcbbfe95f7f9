"""Calls in fresh processes whose server is killed or interrupted."""

import os
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

from tests.fresh import in_fresh_process
from tests.root import ROOT

pytestmark = pytest.mark.slow


def run_script(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run a script that can import the project and the modules beside it."""
    (folder / "script.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}
    words = (sys.executable, folder / "script.py")
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=True)


KILLED = """
import operator, os, pickle, signal, threading, time
from functools import partial
from multiprocessing import forkserver
from runners.host.process import FreshProcess, load_ahead

def kill():
    while forkserver._forkserver._forkserver_pid is None:
        time.sleep(0.01)
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)

if __name__ == "__main__":
    load_ahead("torch")
    add = pickle.dumps(partial(operator.add, 1, 2))
    threading.Thread(target=kill).start()
    first = FreshProcess(add)
    first.ask_to_leave()
    first.kill()
    end = first.wait()
    print(end.how, end.reason)
    for _ in range(100):
        end = FreshProcess(add).wait()
        if end.how == "finished":
            break
        time.sleep(0.1)
    print(pickle.loads(end.pickled))
"""


def test_a_fork_server_that_is_killed_as_it_starts_is_a_crash_and_the_next_start_works(
    tmp_path: Path,
) -> None:
    first, second = run_script(tmp_path, KILLED).stdout.splitlines()
    assert first.startswith("crashed no process could be started for the trial (")
    assert second == "3"


INTERRUPTED = """
import os, pickle, signal
from functools import partial
from runners.host.process import FreshProcess, load_ahead

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also if the tests run in the background
    load_ahead("interrupts")
    print(FreshProcess(pickle.dumps(partial(os.getpid))).wait().how)
"""


def test_a_fork_server_ignores_ctrl_c_while_it_imports(tmp_path: Path) -> None:
    (tmp_path / "interrupts.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    ended = run_script(tmp_path, INTERRUPTED)
    assert (ended.stdout, ended.stderr) == ("finished\n", "")


def _parents() -> tuple[int, int]:
    return os.getpid(), in_fresh_process(os.getppid)


def test_the_children_of_a_fresh_process_are_forked_from_it_and_those_of_any_other_from_the_server() -> None:
    process, parent = in_fresh_process(_parents)

    assert parent == process
    assert in_fresh_process(os.getppid) == forkserver._forkserver._forkserver_pid != os.getpid()  # type: ignore[attr-defined]  # noqa: SLF001 - has no public name
