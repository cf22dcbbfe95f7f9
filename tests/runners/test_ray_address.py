"""Which cluster a study runs on, who can't be reached, and what listens."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.ray_backend.address import cluster_address, require_cluster

ROOT = Path(__file__).resolve().parents[2]

# In a process of its own: Ray's settings for the cluster of one machine hold for the whole process.
LISTENING = """
import os
from pathlib import Path
from functools import partial
from runners.backend import Job
from runners.ray_backend.backend import RayBackend

def parents(pid):
    while pid > 1:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

def sockets():
    ours = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpid() in parents(int(process.name)):
                ours |= {os.readlink(file) for file in (process / "fd").iterdir()}
        except OSError:
            continue  # it has just ended, or a file of it was closed
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in ours:
                yield fields[1].partition(":")[0]

with RayBackend(modules=()) as backend:
    (node,) = backend.nodes()
    backend.start(Job(trial="x", run=os.getpid, nodes=(node,), resources={"cpus": 1}))
    while not backend.wait(1):
        pass
    print(" ".join(sockets()))
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
def test_the_option_goes_before_the_environment_and_this_machine_is_the_default(
    option: str | None, environment: dict[str, str], chosen: str | None
) -> None:
    assert cluster_address(option, environment) == chosen


@pytest.fixture
def listener() -> Iterator[str]:
    """Something that listens and is no Ray."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_dead_or_wrong_address_gives_one_clear_error_within_seconds(listener: str) -> None:
    before = time.monotonic()
    with pytest.raises(ValueError, match=r"no Ray cluster at 127.0.0.1:1 .*refused.*is its head running"):
        require_cluster("127.0.0.1:1")
    with pytest.raises(ValueError, match="'ray://head:10001' is not HOST:PORT of a cluster's head"):
        require_cluster("ray://head:10001")
    with pytest.raises(ValueError, match=f"what listens at {listener} does not answer as the head"):
        require_cluster(listener, patience_s=2)
    assert time.monotonic() - before < 15


def test_ray_on_this_machine_listens_on_loopback_alone() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LISTENING],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert ended.returncode == 0, ended.stderr
    listening = ended.stdout.split()
    assert len(listening) > 3  # Ray's head, its node, an agent and a worker
    assert set(listening) <= LOOPBACK
