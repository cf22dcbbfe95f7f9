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

from budgets.quantity import format_seconds
from runners.scheduling.backend import Backend, Ended, Job
from runners.store.location import Location

ANSWER_S = 120.0
"""Time that a node may take to look."""
_WAIT_S = 1.0
_TRIES = 3  # of a node whose process died as it looked


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What every node must see: a location that it writes to, unless it writes to none, and folders.

    ``advice`` continues the error if a node does not see a folder.
    """

    written: Location | None
    read: tuple[Path, ...] = ()
    advice: str = (
        ": all nodes of a cluster must share it. Name a folder that they share as storage: in the declaration"
    )

    def __str__(self) -> str:
        return str(self.written or next(iter(self.read), "the pool"))

    def mark(self, token: str) -> None:
        """Write the mark that a node looks for."""
        if self.written is not None:
            self.written.write(_mark(token), token.encode())

    def unmark(self, token: str) -> None:
        """Remove the mark and the node's answer; they stay if the location is unreachable."""
        if self.written is not None:
            with suppress(OSError):
                self.written.delete([_mark(token), _answer(token)])

    def look(self, token: str) -> str:
        """Return in words what this node does not see or can't use; empty if there is nothing."""
        if self.written is not None:
            try:
                if self.written.local is None:
                    self.written.require()
                if self.written.read(_mark(token)) != token.encode():
                    return self._not_seen(self.written)
                self.written.write(_answer(token), token.encode())
            except (ValueError, OSError) as error:
                return f": {error}"
        unseen = [path for path in self.read if not path.exists()]
        return self._not_seen(Location(unseen[0])) if unseen else ""

    def answered(self, token: str) -> str:
        """Return in words what the driver does not see of a node that sees everything."""
        if self.written is None or self.written.read(_answer(token)) == token.encode():
            return ""
        return f" writes to another {self.written} than the driver reads"

    def _not_seen(self, place: Location) -> str:
        if place.local is None:
            return f": {place} is another storage than the driver's, or one that no other process can read"
        return f" does not see {place}, or sees another folder of that name{self.advice}"


def _mark(token: str) -> str:
    return f".seen-{token}"


def _answer(token: str) -> str:
    return f".answer-{token}"


class StorageCheck:
    """Test that each node sees a mark that was just written, and the folders that trials read.

    ``leave_out`` is called with the id of each node that joins later and fails the test, and the reason.
    """

    def __init__(
        self,
        backend: Backend,
        place: Seen,
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
                raise ValueError(why)

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
        token = self._looking.pop(ended.trial)
        if isinstance(ended.value, tuple):
            host, why = ended.value
            why = why or self._place.answered(token)
            self._why[ended.trial] = f"node {host}{why}" if why else ""
        self._place.unmark(token)
        if isinstance(ended.value, tuple) or ended.trial in ended.dead_nodes:
            return  # the cluster lists a dead node for some seconds; if it lives, it is asked again
        self._crashes[ended.trial] += 1
        if self._crashes[ended.trial] >= _TRIES:  # until then it is asked again
            self._why[ended.trial] = f"node {ended.trial} can't look for {self._place}: {ended.reason}"


def _look(place: Seen, token: str) -> tuple[str, str]:
    """Return this node's name and, in words, what it does not see."""
    return socket.gethostname(), place.look(token)
