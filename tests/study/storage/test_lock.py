"""One run of a study and one writer of a pool at a time: refusals name the other, the dead block no one."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from math import inf
from pathlib import Path

import pytest

from budgets.machine_cache import CACHE
from runners.store.location import Location
from study.storage import lock
from study.storage.bucket_storage import BucketStorage
from study.storage.folder_storage import FolderStorage
from study.storage.lock import UNKNOWN, Holder, Lease, active_run, holder_of, only_run, only_writer
from tests.root import ROOT
from tests.runners.store.bucket import Bucket

pytestmark = pytest.mark.slow

LEASE = "p/.writing.json"

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


HOLD_LEASE = """
import sys, time
from runners.store.location import Location
from study.storage.lock import UNKNOWN, Holder, Lease, stop_limit
place, holder = Location(sys.argv[1]), Holder(host="elsewhere", pid=1, since=sys.argv[2])
with Lease(place, holder).held(UNKNOWN, print):
    print("holds", flush=True)
    while stop_limit(place) is None:
        time.sleep(0.05)
"""

FAKE_TIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


@contextmanager
def hold_elsewhere(bucket: Bucket, since: str, clock: str) -> Iterator[subprocess.Popen[str]]:
    """Context manager: a machine whose clock is off has the lease of a study in the bucket."""
    fake = {"LD_PRELOAD": str(FAKE_TIME), "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LEASE, f"{bucket.url}/tiny", since],
        cwd=ROOT, env=os.environ | fake, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "holds\n"
            yield process
        finally:
            process.kill()


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


@pytest.mark.skipif(not FAKE_TIME.exists(), reason="needs libfaketime")
@pytest.mark.parametrize("clock", ["-1h", "+1h"])
def test_a_run_whose_clock_is_an_hour_off_is_seen_refuses_others_and_is_stopped(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    def another(machine: str = "here") -> BucketStorage:  # as each command has
        return BucketStorage(Location(bucket.url), "tiny", tmp_path / machine)

    with hold_elsewhere(bucket, "first", clock) as first:
        another().refresh()
        assert active_run(tmp_path / "here") == Holder(host="elsewhere", pid=1, since="first")
        refused = pytest.raises(ValueError, match="is active: process 1 on elsewhere, since first")
        with refused, another().claim(lambda _: None):
            pass
        assert list(another().stop())[1:] == ["the run has ended; `run` continues it"]
        assert first.wait(timeout=60) == 0
    another().refresh()
    assert active_run(tmp_path / "here") is None
    Location(bucket.url).delete(["tiny/stop"])

    with hold_elsewhere(bucket, "second", clock) as second:
        another().refresh()
        assert active_run(tmp_path / "here") is not None
        second.kill()
        second.wait()
        monkeypatch.setattr(lock, "_DEAD_S", 4.0)
        monkeypatch.setattr(lock, "_SAY_S", 1.0)
        assert list(another().stop())[1:] == ["the run has ended; `run` continues it"]
        for machine in ("here", "there"):
            with pytest.raises(ValueError, match=r"no run of .* is active"):
                list(another(machine).stop())
        said = list[str]()
        another("third").refresh(said.append)
        assert "elsewhere, since second holds" in said[0]
        another().refresh()
        assert not any(active_run(tmp_path / machine) for machine in ("here", "third"))
        began = time.monotonic()
        with another().claim(lambda _: None):
            assert time.monotonic() - began < 4, "it was seen to be dead before"


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


def test_two_commands_do_not_write_one_folder(tmp_path: Path) -> None:
    refused = rf"^another command is writing {tmp_path}: process {os.getpid()} on .*, since .*\. Wait until"
    with (
        only_writer(str(tmp_path), print),
        pytest.raises(ValueError, match=refused),
        only_writer(str(tmp_path), print),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"], "a folder needs no lease"
    with only_writer(str(tmp_path), print), only_writer(str(tmp_path / "new"), print):
        pass


def test_two_machines_do_not_write_one_pool(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, said = f"{bucket.url}/p", list[str]()
    monkeypatch.setattr(lock, "_BEAT_S", 0.2)
    monkeypatch.setenv(CACHE, str(tmp_path / "first"))
    with only_writer(url, said.append):
        refused = rf" {url}: process {os.getpid()} on .*, since "
        with pytest.raises(ValueError, match=refused), only_writer(url, said.append):
            pass
        assert not said, "this machine knows at once"
        monkeypatch.setenv(CACHE, str(tmp_path / "second"))
        with pytest.raises(ValueError, match=refused), only_writer(url, said.append):
            pass
        assert "still alive" in said.pop()
    with only_writer(url, said.append):
        assert not said
    assert Location(bucket.url).read(LEASE) is None


def test_a_dead_writer_is_replaced_and_a_writer_that_lost_its_lease_fails(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, storage = f"{bucket.url}/p", Location(bucket.url)
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.setattr(lock, "_BEAT_S", 0.1)
    monkeypatch.setattr(lock, "_DEAD_S", 0.5)
    other = json.dumps({"host": "elsewhere", "pid": 1, "since": "yesterday", "token": "x", "renewals": 3})
    storage.write(LEASE, other.encode())

    def write_until_the_other_goes_on() -> None:
        with only_writer(url, lambda _: None):
            (beat,) = (each for each in threading.enumerate() if "beat" in each.name)
            while beat.is_alive():  # it ends once it has seen the other's lease
                storage.write(LEASE, other.encode())  # as the other does again and again
                beat.join(0.3)

    with pytest.raises(ValueError, match=r"is writing .*: process 1 on elsewhere"):
        write_until_the_other_goes_on()
    assert storage.read(LEASE) == other.encode(), "what is another's is left alone"
    storage.delete([LEASE])


@pytest.mark.parametrize("content", [b"", b'{"host": "elsewh', b"[]", b"\xff"], ids=str)
def test_a_lease_that_cannot_be_read_is_taken_over_like_that_of_a_dead_writer(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    url, storage, said = f"{bucket.url}/p", Location(bucket.url), list[str]()
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.setattr(lock, "_DEAD_S", 0.5)
    storage.write(LEASE, content)
    with only_writer(url, said.append):
        assert holder_of(storage.read(LEASE) or b"").pid == os.getpid()
    assert said == [f"{UNKNOWN} holds {url}; checking whether it is still alive"]


def test_a_lease_that_another_run_takes_over_at_the_same_time_is_given_up_at_once(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_DEAD_S", 0.1)
    storage = Location(bucket.url)
    dead, other = (
        json.dumps({"host": host, "pid": 1, "since": "now", "token": host}).encode()
        for host in ("dead", "other")
    )
    storage.write(LEASE, dead)

    def wait(_seconds: float) -> None:
        if holder_of(storage.read(LEASE) or b"").host == "here":  # the other deletes it for the dead one's
            storage.write(LEASE, other)

    monkeypatch.setattr(time, "sleep", wait)
    here = Holder(host="here", pid=2, since="now")
    mine = Lease(storage, here, LEASE)
    with (
        pytest.raises(ValueError, match=r"is active: process 1 on other"),
        mine.held(UNKNOWN, lambda _: None),
    ):
        pass
