"""Whether every node sees the folders that trials read and write, found out before anything is spent."""

import secrets
import socket
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from runners.backend import Backend, Ended, Job

_WAIT_S = 1.0


def require_shared(backend: Backend, written: Path, read: Iterable[Path]) -> None:
    """Lets every node look for a file that was just written, and for what trials read.

    Args:
        backend: Whose nodes.
        written: A folder that trials write to.
        read: Folders that they read.

    Raises:
        ValueError: A node does not see one of them; the message names the node and the path.
    """
    token = secrets.token_hex(16)
    mark = written / f".seen-{token}"
    mark.write_text(token, encoding="utf-8")
    try:
        nodes = list(backend.nodes())
        for node in nodes:
            look = partial(_look, mark, token, tuple(read))
            backend.start(Job(trial=node, run=look, nodes=(node,), resources={}))
        ended: list[Ended] = []
        while len(ended) < len(nodes):
            ended += backend.wait(_WAIT_S)
    finally:
        mark.unlink(missing_ok=True)
    for each in ended:
        if not isinstance(each.value, tuple):
            raise ValueError(f"node {each.trial} can't look for {written}: {each.reason}")  # noqa: TRY004
        host, unseen = each.value
        for path in unseen:
            raise ValueError(
                f"node {host} does not see {path}, or sees another folder of that name: all nodes of a "
                "cluster must share it. Name a folder that they share as storage: in the declaration"
            )


def _look(mark: Path, token: str, read: tuple[Path, ...]) -> tuple[str, list[str]]:
    """Gives this node's name and the folders that it does not see."""
    unseen = [str(path) for path in read if not path.exists()]
    if not mark.exists() or mark.read_text(encoding="utf-8") != token:
        unseen.insert(0, str(mark.parent))
    return socket.gethostname(), unseen
