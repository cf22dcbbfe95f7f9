"""Whether nodes see what trials read and write: each looks before a trial runs on it."""

import secrets
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runners.host.storage import Storage
from runners.scheduling.backend import Backend, Ended, Job

_WAIT_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """Folders that nodes share.

    Attributes:
        written: A folder that trials write to.
        read: Folders that they read.
    """

    written: Path
    read: tuple[Path, ...]
    advice = (
        ": all nodes of a cluster must share it. Name a folder that they share as storage: in the declaration"
    )

    def __str__(self) -> str:
        return str(self.written)

    def mark(self, token: str) -> None:
        """Writes what a node is to look for."""
        self._mark(token).write_text(token, encoding="utf-8")

    def unmark(self, token: str) -> None:
        """Removes it."""
        self._mark(token).unlink(missing_ok=True)

    def look(self, token: str) -> str:
        """Says what this node does not see; empty where it sees all."""
        mark = self._mark(token)
        marked = mark.exists() and mark.read_text(encoding="utf-8") == token
        unseen = [*(() if marked else (self.written,)), *(path for path in self.read if not path.exists())]
        return f" does not see {unseen[0]}, or sees another folder of that name" if unseen else ""

    def _mark(self, token: str) -> Path:
        return self.written / f".seen-{token}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Objects:
    """A storage that is no folder.

    Attributes:
        url: Where it is.
    """

    url: str
    advice = ""

    def __str__(self) -> str:
        return self.url

    def mark(self, token: str) -> None:
        """Writes what a node is to look for."""
        Storage(self.url).write(f".seen-{token}", token.encode())

    def unmark(self, token: str) -> None:
        """Removes it; where the storage is away, it stays."""
        with suppress(OSError):
            Storage(self.url).delete([f".seen-{token}"])

    def look(self, token: str) -> str:
        """Says why this node can't use the storage; empty where it can."""
        try:
            storage = Storage(self.url)
            storage.require()
            found = storage.read(f".seen-{token}")
        except (ValueError, OSError) as error:
            return f": {error}"
        return "" if found == token.encode() else f": {self.url} is another storage than the driver's"


class SharedStorage:
    """Lets nodes look for what was just written, and for what trials read.

    Args:
        backend: Whose nodes.
        place: What they must share.
        leave_out: Told of each node that joined and does not see it, by its id, and why.
    """

    def __init__(
        self,
        backend: Backend,
        place: Folders | Objects,
        leave_out: Callable[[str, str], None] = lambda _node, _why: None,
    ) -> None:
        self._backend, self._place, self._leave_out = backend, place, leave_out
        self._looking: dict[str, str] = {}  # node → the mark that it looks for
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
            raise ValueError(why + self._place.advice)

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
        self._place.mark(token)
        self._looking[node] = token
        look = partial(_look, self._place, token)
        self._backend.start(Job(trial=node, run=look, nodes=(node,), resources={}))

    def _note(self, ended: Ended) -> None:
        self._place.unmark(self._looking.pop(ended.trial))
        if isinstance(ended.value, tuple):
            host, why = ended.value
            self._why[ended.trial] = f"node {host}{why}" if why else ""
        else:
            self._why[ended.trial] = f"node {ended.trial} can't look for {self._place}: {ended.reason}"


def _look(place: Folders | Objects, token: str) -> tuple[str, str]:
    """Gives this node's name and what it does not see."""
    return socket.gethostname(), place.look(token)
