"""Whether nodes see the folders that trials read and write: each looks before a trial runs on it."""

import secrets
import socket
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from runners.backend import Backend, Ended, Job

_WAIT_S = 1.0


class SharedStorage:
    """Lets nodes look for a file that was just written, and for what trials read.

    Args:
        backend: Whose nodes.
        written: A folder that trials write to.
        read: Folders that they read.
        leave_out: Told of each node that joined and does not see them, by its id, and why.
    """

    def __init__(
        self,
        backend: Backend,
        written: Path,
        read: Iterable[Path],
        leave_out: Callable[[str, str], None] = lambda _node, _why: None,
    ) -> None:
        self._backend, self._written, self._read = backend, written, tuple(read)
        self._leave_out = leave_out
        self._looking: dict[str, Path] = {}  # node → the file that it looks for
        self._why: dict[str, str] = {}  # node → why nothing may run there; empty where it sees all

    def require(self) -> None:
        """Waits until every node that there is now has looked.

        Raises:
            ValueError: One does not see a folder; the message names the node and the path.
        """
        nodes = self._backend.nodes()
        self.seen_by(nodes)
        while self._looking:
            for ended in self._backend.wait(_WAIT_S):
                self._note(ended)
        for why in filter(None, map(self._why.get, nodes)):
            raise ValueError(
                f"{why}: all nodes of a cluster must share it. Name a folder that they share as storage: in "
                "the declaration"
            )

    def seen_by(self, nodes: Iterable[str]) -> set[str]:
        """Tells which of these nodes are known to see all; those that are new are asked, and not waited for.

        Raises:
            OSError: The storage is away.
        """
        for node in set(nodes) - self._why.keys() - self._looking.keys():
            self._ask(node)
        return {node for node in nodes if self._why.get(node) == ""}

    @property
    def looking(self) -> bool:
        """Whether a node has not answered yet."""
        return bool(self._looking)

    def take(self, ended: Ended) -> bool:
        """Tells whether what ended was a node's look; if so, its answer is known from now on."""
        if ended.trial not in self._looking:
            return False
        self._note(ended)
        if why := self._why[ended.trial]:
            self._leave_out(ended.trial, why)
        return True

    def _ask(self, node: str) -> None:
        token = secrets.token_hex(16)
        mark = self._written / f".seen-{token}"
        mark.write_text(token, encoding="utf-8")
        look = partial(_look, mark, token, self._read)
        self._looking[node] = mark
        self._backend.start(Job(trial=node, run=look, nodes=(node,), resources={}))

    def _note(self, ended: Ended) -> None:
        self._looking.pop(ended.trial).unlink(missing_ok=True)
        if isinstance(ended.value, tuple):
            host, unseen = ended.value
            self._why[ended.trial] = "".join(
                f"node {host} does not see {path}, or sees another folder of that name" for path in unseen[:1]
            )
        else:
            self._why[ended.trial] = f"node {ended.trial} can't look for {self._written}: {ended.reason}"


def _look(mark: Path, token: str, read: tuple[Path, ...]) -> tuple[str, list[str]]:
    """Gives this node's name and the folders that it does not see."""
    unseen = [str(path) for path in read if not path.exists()]
    if not mark.exists() or mark.read_text(encoding="utf-8") != token:
        unseen.insert(0, str(mark.parent))
    return socket.gethostname(), unseen
