"""One writer at a time of a pool in a folder, and of one below a URL from whatever machine."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from budgets.machine_cache import CACHE
from runners.store.location import Location
from study.storage import lock
from study.storage.lock import UNKNOWN, Holder, Lease, holder_of, only_writer
from tests.runners.store.bucket import Bucket

pytestmark = pytest.mark.slow

LEASE = "p/.writing.json"


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
    other = json.dumps({"host": "elsewhere", "pid": 1, "since": "yesterday", "token": "x", "renewed": 3})
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
