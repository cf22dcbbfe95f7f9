"""View of a cluster: keeps the schedule informed of time and nodes, and the cluster of waiting trials."""

import time
from contextlib import suppress

from runners.scheduling.backend import Backend, Ended
from runners.scheduling.nodes import Amounts, no_room_text, nodes_text
from runners.scheduling.schedule import Schedule
from runners.scheduling.storage_check import ANSWER_S, StorageCheck
from runners.scheduling.trial_record import State

_LOOK_S = 1.0


class LiveCluster:
    """The nodes of a backend, as a schedule sees them.

    Trials may wait ``patience_s`` seconds for a node with room for them; None if no node can join. A node
    must pass the storage check, if there is one, before it runs anything. ``slots`` is the number of trials
    like the next one that fit on the nodes at once, as of the last look. The error for a trial that fits on
    no node calls it ``what``, and ends with ``advice``.
    """

    def __init__(  # noqa: PLR0913 - independent options
        self,
        backend: Backend,
        schedule: Schedule,
        *,
        patience_s: float | None,
        storage_check: StorageCheck | None = None,
        what: str = "trial",
        advice: str = "",
    ) -> None:
        self._what, self._advice = what, advice
        self._backend, self._schedule, self._patience_s = backend, schedule, patience_s
        self._storage_check = storage_check
        self._nodes: dict[str, Amounts] = {}
        self._left = set[str]()
        self._blind = 0  # number of nodes that have not seen the storage
        self.slots = 0
        self._looked_at = float("-inf")
        self._homeless_since: float | None = None

    def look(self) -> None:
        """Update the schedule's nodes and announce trials to the backend, at most once a second.

        Raises:
            ValueError: A waiting trial does not fit on any node, and has waited long enough for another.
        """
        self._schedule.now_s = now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        self._see_nodes()
        waiting = self._schedule.waiting()
        unfinished = [*self._schedule.running(), *waiting]
        if unfinished:
            self.slots = self._schedule.slots(unfinished[0])
        # A node must not be released while a trial waits for its retry.
        ahead = [*unfinished, *self._schedule.delayed()]
        self._backend.announce([(task.resources, task.nodes) for task in ahead])
        needs = sorted({task.need for task in waiting})
        too_wide = [need for need in needs if not self._schedule.could_run(dict(need[0]), need[1])]
        # The study continues while any trial runs or will be tried again, so the wait starts after that.
        if not too_wide or self._schedule.count(State.RUNNING) or self._schedule.count(State.DELAYED):
            self._homeless_since = None
            return
        self._homeless_since = now if self._homeless_since is None else self._homeless_since
        patience_s = self._patience_s or 0.0
        # New nodes are still being asked whether they see the storage.
        if self._storage_check is not None and self._storage_check.looking:
            patience_s = max(patience_s, ANSWER_S)
        if now - self._homeless_since >= patience_s:
            resources, count = too_wide[0]
            no_room = no_room_text(dict(resources), count, self._nodes.values(), self._what)
            raise ValueError(f"{no_room}{self._not_used()}. {self._advice}")

    def leave(self, nodes: set[str]) -> bool:
        """Start nothing on these nodes any more; return whether that is new."""
        new = not nodes <= self._left
        if new:
            self._left |= nodes
            self._see_nodes()
        return new

    def wait(self, timeout_s: float) -> list[Ended]:
        """Wait until a trial ends or the time is over; returns the trials that ended."""
        check, ended = self._storage_check, self._backend.wait(timeout_s)
        self._schedule.now_s = time.monotonic()
        return [job for job in ended if check is None or not check.take(job)]

    def describe(self) -> str:
        """Describe how many trials run at once, and on which nodes."""
        slots, nodes = self.slots, len(self._nodes)
        trials = f"{slots} trial{'' if slots == 1 else 's'} at once"
        on = f"{nodes} node{'' if nodes == 1 else 's'}"
        return f"{trials} on {on} ({nodes_text(self._nodes.values())}{self._not_used()})"

    def _see_nodes(self) -> None:
        nodes = {node: has for node, has in self._backend.nodes().items() if node not in self._left}
        if self._storage_check is not None:
            # Fallback if the storage cannot be written now: keep the nodes that have seen it before.
            seen_by = self._nodes.keys() & nodes.keys()
            with suppress(OSError):  # storage unreachable: new nodes are asked at the next look
                seen_by = self._storage_check.seen_by(nodes)
            self._blind = len(nodes) - len(seen_by)
            nodes = {node: has for node, has in nodes.items() if node in seen_by}
        self._nodes = nodes
        self._schedule.see_nodes(nodes)

    def _not_used(self) -> str:
        return f"; {self._blind} not used because they have not seen the storage" if self._blind else ""
