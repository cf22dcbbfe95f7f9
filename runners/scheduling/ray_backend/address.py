"""Address of the Ray cluster, checked before Ray itself would wait for minutes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

_CONNECT_S = 5
# -P: the folder of the script has modules that are called like others'.
_ASK = (sys.executable, "-P", str(Path(__file__).with_name("ray_private.py")))


def cluster_address(option: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Choose the cluster: ``--address``, then ``RAY_ADDRESS``, which ``ray job submit`` sets.

    None stands for one on this machine (also for the address ``local``); an empty option is a ValueError.
    """
    if option is not None and not option.strip():  # a variable of the shell that is not set
        raise ValueError("--address is empty; give the HOST:PORT of a cluster's head, or local")
    address = option or environment.get("RAY_ADDRESS") or "local"
    return None if address == "local" else address


def require_cluster(address: str, *, patience_s: float = 15) -> frozenset[str]:
    """Return the hosts of the Ray cluster that answers at ``HOST:PORT`` of its head and accepts this process.

    If none does, a ValueError says what to do.
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
        checked = subprocess.run(  # noqa: S603 - this Python interpreter
            [*_ASK, address],
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
    if checked.returncode:
        raise ValueError(
            f"the Ray cluster at {address} rejects this process: {_reason(checked.stderr)}. Copy the "
            "cluster's token (`ray get-auth-token` on its head) to this machine: it is read from "
            "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token, see docs/cluster.md"
        )
    return frozenset(checked.stdout.split())


def accepts_connections(address: str, *, patience_s: float) -> bool:
    """Return whether a server accepts connections at an address within some seconds."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + patience_s
    while True:
        with suppress(OSError):
            socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)


def _reason(output: str) -> str:
    """Return the problem from the output of Ray's library, which prints a stack trace without a token."""
    if "couldn't find an authentication token" in output:
        return "it has no token"
    lines = [line.strip() for line in output.splitlines() if line.strip() and "[0x" not in line]
    return (lines or ["no reason given"])[-1].split(". ")[0]


def guard_token(folder: Path | None = None) -> None:
    """Let only its owner read Ray's token and its folder (default: ``~/.ray``), which Ray opens to all.

    The folder is made if absent, so that Ray finds it closed.
    """
    folder = folder or Path.home() / ".ray"
    with suppress(OSError):  # for example a read-only home: Ray itself reports the problem
        folder.mkdir(mode=0o700, exist_ok=True)
    for path, mode in ((folder, 0o700), (folder / "auth_token", 0o600)):
        if path.exists() and path.stat().st_mode & 0o077 and path.stat().st_uid == os.getuid():
            path.chmod(mode)


def on_loopback(hosts: Collection[str]) -> bool:
    """Return True if all nodes of a cluster listen on loopback only."""
    return bool(hosts) and all(host.startswith("127.") for host in hosts)
