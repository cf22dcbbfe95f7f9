"""A Ray of this machine, started like the head of a cluster, that tests of commands share."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runners.scheduling.ray_backend.ray_private import StartedNode
from tests.child_processes import shared_server
from tests.runners.scheduling.simulated import CLUSTER, joining_node, rays_environment

RAY = Path(sys.executable).with_name("ray")
_PORTS = 10_000  # below those that the system gives; Ray's workers take 10,002 to 19,999


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """A head with two cores, on loopback.

    Attributes:
        address: Its ``HOST:PORT``.
        dashboard: URL of its dashboard, which takes jobs.
        environment: Environment variables of its clients, such as its token.
    """

    address: str
    dashboard: str
    environment: dict[str, str]

    @contextmanager
    def joined(self) -> Iterator[StartedNode]:
        """Context manager: a node with one core joins; it is dead after exit."""
        with rays_environment(self.environment), joining_node(self.address) as node:
            yield node


@contextmanager
def running_head() -> Iterator[Head]:
    """Context manager: a head that was started as in docs/cluster.md; all of it is dead after exit."""
    port, dashboard = _free_port(), _free_port()
    environment = {
        **CLUSTER,
        **shared_server(),
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    # Sockets lie in it, whose paths must be short.
    folder = Path("/tmp") / f"ray-{port}"  # noqa: S108 - as above
    options = (
        f"--head --block --port {port} --dashboard-port {dashboard} --temp-dir {folder} --num-cpus 2 "
        # Its default is one fixed port, which the daemons of a Ray that was killed may still hold.
        f"--dashboard-agent-listen-port {_free_port()} --object-store-memory 100000000 "
        "--include-log-monitor false --no-monitor"
    )
    with subprocess.Popen(
        [RAY, "start", *options.split()],
        # Its workers have the path of their driver. The dashboard needs a fork server of its own.
        env={name: value for name, value in (os.environ | environment).items() if name != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert any("Ray runtime started" in line for line in process.stdout)
            yield Head(
                address=f"127.0.0.1:{port}",
                dashboard=f"http://127.0.0.1:{dashboard}",
                environment=environment,
            )
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    """Return a port that nothing uses, and that the system gives to nobody who asks for any port."""
    first, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    while True:
        port = max(first, 3 * _PORTS) - 1 - secrets.randbelow(_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
