"""Address of the Ray cluster, checked before Ray itself would wait for minutes."""

import os
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping

_CONNECT_S = 5
_ASK = """
import sys, ray
nodes = ray._raylet.GcsClient(address=sys.argv[1]).get_all_node_info().values()
print(*{node.node_manager_address for node in nodes})
"""


def cluster_address(option: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Choose the cluster: ``--address``, then ``RAY_ADDRESS``, which ``ray job submit`` sets.

    Returns:
        Its address, or None for one on this machine (also for the address ``local``).
    """
    address = option or environment.get("RAY_ADDRESS") or "local"
    return None if address == "local" else address


def require_cluster(address: str, *, patience_s: float = 15) -> frozenset[str]:
    """Return the hosts of the Ray cluster that answers at an address and accepts this process.

    Args:
        address: ``HOST:PORT`` of its head.
        patience_s: Seconds that it may take to answer.

    Raises:
        ValueError: No cluster answers; the message says what to do.
    """
    host, colon, port = address.rpartition(":")
    if "://" in address or not (host and colon and port.isdigit()):
        raise ValueError(
            f"Ray address '{address}' is not the HOST:PORT of a cluster's head, such as 10.0.0.1:6379; "
            "from outside the cluster, use `ray job submit` (docs/cluster.md)"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise ValueError(
            f"no Ray cluster at {address} ({error}); is its head running (`ray start --head`)? "
            "Without --address and RAY_ADDRESS a study runs on this machine"
        ) from None
    try:
        asked = subprocess.run(  # noqa: S603 - this Python interpreter
            [sys.executable, "-c", _ASK, address],
            capture_output=True,
            text=True,
            timeout=patience_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"the server at {address} does not answer like the head of a Ray cluster; its port is 6379 "
            "unless it was started with `ray start --head --port`"
        ) from None
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no reason given"])[-1].split(". ")[0]
        raise ValueError(
            f"the Ray cluster at {address} rejects this process: {last}. The token is read from "
            "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token, see docs/cluster.md"
        )
    return frozenset(asked.stdout.split())


def on_loopback(hosts: Collection[str]) -> bool:
    """Return True if all nodes of a cluster listen on loopback only."""
    return bool(hosts) and all(host.startswith("127.") for host in hosts)
