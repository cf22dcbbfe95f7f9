"""Choice of the Ray cluster, unreachable addresses, and listening ports."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.scheduling.ray_backend.address import (
    _reason,
    answers,
    cluster_address,
    guard_token,
    require_cluster,
)
from tests.root import ROOT

pytestmark = pytest.mark.ray


# In a process of its own: Ray's settings for the cluster of one machine hold for the whole process.
LISTENING = """
import os, subprocess, sys
from pathlib import Path
from functools import partial
from runners.scheduling.ray_backend import address
from runners.scheduling.backend import Job
from runners.scheduling.ray_backend.core import RayBackend
import ray

mark = "STUDY_TEST_MARK=" + os.environ["STUDY_TEST_MARK"]

def sockets():
    ours = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_text(errors="replace").split("\\0"):
                name = (process / "comm").read_text().strip().replace(" ", "_")
                ours |= {os.readlink(file): name for file in (process / "fd").iterdir()}
        except OSError:
            continue  # it has just ended, or a file of it was closed
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in ours:
                yield ours[f"socket:[{fields[9]}]"] + "@" + fields[1].partition(":")[0]

with RayBackend(modules=()) as backend:
    (node,) = backend.nodes()
    backend.start(Job(trial="x", run=os.getpid, nodes=(node,), resources={"cpus": 1}))
    while not backend.wait(1):
        pass
    print(" ".join(sockets()))
    ask = [sys.executable, "-c", address._ASK, ray.get_runtime_context().gcs_address]
    print(*(not subprocess.run(ask, env={**os.environ, "RAY_AUTH_MODE": mode}, capture_output=True).returncode
            for mode in ("token", "disabled")))
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}


@pytest.mark.parametrize(
    ("option", "environment", "chosen"),
    [
        (None, {}, None),
        (None, {"RAY_ADDRESS": "10.0.0.1:6379"}, "10.0.0.1:6379"),
        ("10.0.0.2:6379", {"RAY_ADDRESS": "10.0.0.1:6379"}, "10.0.0.2:6379"),
        ("local", {"RAY_ADDRESS": "10.0.0.1:6379"}, None),
    ],
)
def test_address_option_precedes_environment_and_defaults_to_this_machine(
    option: str | None, environment: dict[str, str], chosen: str | None
) -> None:
    assert cluster_address(option, environment) == chosen


@pytest.fixture
def listener() -> Iterator[str]:
    """Return the address of a listener that is not Ray."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_dead_or_wrong_address_raises_within_seconds(listener: str) -> None:
    before = time.monotonic()
    with pytest.raises(ValueError, match=r"no Ray cluster at 127.0.0.1:1 .*refused.*is its head running"):
        require_cluster("127.0.0.1:1")
    with pytest.raises(ValueError, match="'ray://head:10001' is not the HOST:PORT of a cluster's head"):
        require_cluster("ray://head:10001")
    with pytest.raises(ValueError, match=f"the server at {listener} does not answer like the head"):
        require_cluster(listener, patience_s=2)
    assert time.monotonic() - before < 15


def test_local_ray_listens_on_loopback_only_and_requires_its_token() -> None:
    others = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, "-c", LISTENING],
        cwd=ROOT,
        env={**others, "RAY_AUTH_MODE": "disabled", "STUDY_TEST_MARK": secrets.token_hex(16)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert ended.returncode == 0, ended.stderr
    sockets, answered = ended.stdout.splitlines()
    listening = [socket.split("@") for socket in sockets.split()]
    assert {"gcs_server", "raylet"} < {process for process, _ in listening}
    assert {address for _, address in listening} <= LOOPBACK, sockets
    assert answered == "True False", "one who knows the token, and one who does not"


def test_a_refusal_says_what_to_do_without_addresses_of_a_stack() -> None:
    trace = (
        "[2026-11-26 18:21:52,561 C 1 1] authentication_token_loader.cc:115: Check failed: has_token Token "
        "authentication is enabled but Ray couldn't find an authentication token. Create a token file\n"
        "*** StackTrace Information ***\n/usr/lib/libc.so.6(+0x29ca8) [0x7f3a4be35ca8]\n"
    )
    assert _reason(trace) == "it has no token"
    assert (
        _reason("Traceback\nray.exceptions.X: InvalidAuthToken. Ask\n")
        == "ray.exceptions.X: InvalidAuthToken"
    )
    assert _reason("/lib/libc.so.6(+0x29ca8) [0x7f3a4be35ca8]\n") == "no reason given"


def test_rays_token_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / ".ray"
    guard_token(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "auth_token").write_text("secret")
    (folder / "auth_token").chmod(0o644)
    folder.chmod(0o755)

    guard_token(folder)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "auth_token").stat().st_mode & 0o777 == 0o600


def test_a_head_that_is_gone_does_not_answer() -> None:
    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))
        head.listen()
        address = f"127.0.0.1:{head.getsockname()[1]}"
        assert answers(address, patience_s=0)
    assert not answers(address, patience_s=0)
