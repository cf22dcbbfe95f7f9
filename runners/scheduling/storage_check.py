"""Test of shared storage: before a trial runs on a node, the node looks for what trials read and write."""

import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from budgets.names import without_password
from budgets.quantity import format_seconds
from runners.scheduling.backend import Backend, Ended, Job
from runners.store.location import Location

ANSWER_S = 120.0
"""Time that a node may take to look."""
_WAIT_S = 1.0
_TRIES = 3  # of a node whose process died as it looked


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """Folders that nodes share: one that trials write to, unless they write none, and those that they read.

    ``advice`` continues the error if a node does not see one of them.
    """

    written: Path | None
    read: tuple[Path, ...]
    advice: str = (
        ": all nodes of a cluster must share it. Name a folder that they share as storage: in the declaration"
    )

    def __str__(self) -> str:
        return str(self.written or next(iter(self.read), "the pool"))

    def mark(self, token: str) -> None:
        """Write the mark that a node looks for."""
        if self.written is not None:
            _mark(self.written, token).write_text(token, encoding="utf-8")

    def unmark(self, token: str) -> None:
        """Remove the mark; it stays if the storage is unreachable."""
        if self.written is not None:
            with suppress(OSError):
                _mark(self.written, token).unlink()

    def look(self, token: str) -> str:
        """Return in words what this node does not see; empty if it sees everything."""
        unseen = _unseen(self.read)
        if self.written is not None:
            mark = _mark(self.written, token)
            if not mark.exists() or mark.read_text(encoding="utf-8") != token:
                unseen.insert(0, self.written)
        return _NOT_SEEN.format(unseen[0]) if unseen else ""


_NOT_SEEN = " does not see {}, or sees another folder of that name"


def _unseen(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]


def _mark(folder: Path, token: str) -> Path:
    return folder / f".seen-{token}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Objects:
    """A storage in a bucket, and folders that nodes read besides it."""

    url: str
    read: tuple[Path, ...] = ()
    advice = ""

    def __str__(self) -> str:
        return without_password(self.url)

    def mark(self, token: str) -> None:
        """Write the mark that a node looks for."""
        Location(self.url).write(f".seen-{token}", token.encode())

    def unmark(self, token: str) -> None:
        """Remove the mark; it stays if the storage is unreachable."""
        with suppress(OSError):
            Location(self.url).delete([f".seen-{token}"])

    def look(self, token: str) -> str:
        """Return the reason why this node can't use the storage; empty if it can."""
        if unseen := _unseen(self.read):
            return f"{_NOT_SEEN.format(unseen[0])}: all nodes must see what is read beside {self}"
        try:
            storage = Location(self.url)
            storage.require()
            seen = storage.read(f".seen-{token}")
        except (ValueError, OSError) as error:
            return f": {error}"
        return "" if seen == token.encode() else f": {self} is another storage than the driver's"


class StorageCheck:
    """Test that each node sees a mark that was just written, and the folders that trials read.

    ``leave_out`` is called with the id of each node that joins later and fails the test, and the reason.
    """

    def __init__(
        self,
        backend: Backend,
        place: Folders | Objects,
        leave_out: Callable[[str, str], None] = lambda _node, _why: None,
    ) -> None:
        self._backend, self._place, self._leave_out = backend, place, leave_out
        self._looking: dict[str, str] = {}  # node → the mark that it looks for
        self._why: dict[str, str] = {}  # node → reason why it is not used; empty if it passed
        self._crashes = Counter[str]()

    def require(self) -> None:
        """Wait until every present node has looked; a node that disappears meanwhile does not count.

        Raises:
            ValueError: A node does not see a folder, or does not answer; the message names it and the path.
        """
        try:
            self._require()
        finally:  # also after Ctrl-C; a node that has not answered leaves its mark otherwise
            for token in self._looking.values():
                self._place.unmark(token)

    def _require(self) -> None:
        nodes = set(self._backend.nodes())
        until = time.monotonic() + ANSWER_S
        self.seen_by(nodes)
        while self._looking:
            if time.monotonic() > until:
                silent = ", ".join(sorted(self._looking))
                raise ValueError(
                    f"no answer within {format_seconds(ANSWER_S)} whether {self._place} is seen, from node "
                    f"{silent}: look whether its mount hangs, or remove it from the cluster"
                )
            for ended in self._backend.wait(_WAIT_S):
                self._note(ended)
                nodes -= set(ended.dead_nodes)
            self.seen_by(nodes)
        for node in sorted(nodes):
            if why := self._why.get(node):
                raise ValueError(why if self._crashes[node] >= _TRIES else why + self._place.advice)

    def seen_by(self, nodes: Iterable[str]) -> set[str]:
        """Return the nodes that have passed; new nodes are asked, without waiting for their answer."""
        for node in set(nodes) - self._why.keys() - self._looking.keys():
            self._ask(node)
        return {node for node in nodes if self._why.get(node) == ""}

    @property
    def looking(self) -> bool:
        """True while a node has not answered."""
        return bool(self._looking)

    def take(self, ended: Ended) -> bool:
        """Note the result of a job that was a node's test; return whether it was one."""
        if ended.trial not in self._looking:
            return False
        self._note(ended)
        if why := self._why.get(ended.trial):
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
        if ended.trial in ended.dead_nodes:
            return  # the cluster lists a dead node for some seconds; if it lives, it is asked again
        if isinstance(ended.value, tuple):
            host, why = ended.value
            self._why[ended.trial] = f"node {host}{why}" if why else ""
            return
        self._crashes[ended.trial] += 1
        if self._crashes[ended.trial] >= _TRIES:  # until then it is asked again
            self._why[ended.trial] = f"node {ended.trial} can't look for {self._place}: {ended.reason}"


def _look(place: Folders | Objects, token: str) -> tuple[str, str]:
    """Return this node's name and, in words, what it does not see."""
    return socket.gethostname(), place.look(token)
