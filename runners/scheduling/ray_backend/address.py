"""Which Ray cluster a study runs on, found out and checked before Ray itself waits for minutes."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping

_CONNECT_S = 5
_ASK = "import sys, ray; ray._raylet.GcsClient(address=sys.argv[1])"


def cluster_address(option: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Choose the cluster: ``--address``, then ``RAY_ADDRESS``, which ``ray job submit`` sets.

    Returns:
        Its address, or None for one on this machine, which ``local`` asks for.
    """
    address = option or environment.get("RAY_ADDRESS") or "local"
    return None if address == "local" else address


def require_cluster(address: str, *, patience_s: float = 15) -> None:
    """Find out whether a Ray cluster answers at an address, and lets this process in.

    Args:
        address: ``HOST:PORT`` of its head.
        patience_s: How long it may take to answer, in seconds.

    Raises:
        ValueError: None does; the message says what to do.
    """
    host, colon, port = address.rpartition(":")
    if "://" in address or not (host and colon and port.isdigit()):
        raise ValueError(
            f"Ray address '{address}' is not HOST:PORT of a cluster's head, such as 10.0.0.1:6379; "
            "from outside of a cluster, use `ray job submit` (docs/cluster.md)"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise ValueError(
            f"no Ray cluster at {address} ({error}); is its head running (`ray start --head`)? "
            "Without --address and RAY_ADDRESS a study runs on this machine"
        ) from None
    try:
        asked = subprocess.run(  # noqa: S603 - this very Python
            [sys.executable, "-c", _ASK, address],
            capture_output=True,
            text=True,
            timeout=patience_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"what listens at {address} does not answer as the head of a Ray cluster; its port is 6379 "
            "unless `ray start --head --port` says otherwise"
        ) from None
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no reason given"])[-1].split(". ")[0]
        raise ValueError(
            f"the Ray cluster at {address} refuses this process: {last}. Its token is expected in "
            "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token, see docs/cluster.md"
        )
