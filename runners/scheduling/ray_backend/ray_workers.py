"""Workers on a Ray cluster: an actor per core or GPU of each node takes the next item when it is free.

An item whose actor or node dies goes to another actor. A node that joins gets actors once it has seen the
folders. Actors are kept for the next task, because imports take seconds.
"""

import os
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from runners.host.faults import fault_of, words_of
from runners.host.workers import Name, killed, part_name
from runners.scheduling.nodes import Amounts
from runners.scheduling.ray_backend.core import RayBackend
from runners.scheduling.ray_backend.tasks import by_rays_names, on_node
from runners.scheduling.storage_check import StorageCheck

_LOOK_S = 1.0
_PATIENCE_S = 600.0  # without any node that has room
_ATTEMPTS = 3  # of an item on nodes that live

T = TypeVar("T")


class RayWorkers:
    """Workers on the nodes of a cluster, ``limit`` at most, on nodes that share the folders of the work.

    ``parts`` divides the resources of a node among its workers.
    """

    def __init__(
        self,
        backend: RayBackend,
        storage_check: StorageCheck,
        parts: Callable[[Amounts], list[Amounts]],
        limit: int | None = None,
    ) -> None:
        self._backend, self._storage_check, self._parts, self._limit = backend, storage_check, parts, limit
        self._seen_by: set[str] = set()
        self._actors = _Actors(os.getcwd())  # noqa: PTH109 - as the nodes change to it

    def map(
        self, task: Callable[[int], T], items: Sequence[int], name: Name = part_name
    ) -> Iterator[tuple[int, T]]:
        """Call a task for each item; see `runners.host.workers.Workers`."""
        actors, todo = self._actors, deque(items)
        actors.begin(task)
        died_on: dict[int, list[str]] = defaultdict(list)
        looked, alone_since, nodes = float("-inf"), time.monotonic(), dict[str, Amounts]()
        try:
            while todo or actors.at_work:
                if time.monotonic() - looked > _LOOK_S:
                    looked, nodes = time.monotonic(), self._nodes()
                    self._hire(actors, nodes, len(todo) + actors.at_work)
                    if actors.size or self._storage_check.looking:
                        alone_since = looked
                    elif looked - alone_since >= (_PATIENCE_S if died_on else 0):
                        raise ValueError(
                            f"no node of the {self._backend.name} has room for a worker{actors.why}; "
                            "finished parts are kept"
                        )
                actors.give(todo)
                for item, node, outcome in actors.wait(_LOOK_S):
                    if not isinstance(outcome, _Died):
                        yield item, outcome
                        continue
                    died_on[item].append(node)
                    # Ray may list a dead node for some seconds: the last death counts at the next one.
                    if sum(node in nodes for node in died_on[item]) >= _ATTEMPTS:
                        raise outcome.error or killed(name(item), f"{_ATTEMPTS} times")
                    todo.appendleft(item)
        finally:
            if actors.at_work:  # it ends early
                self.end()

    def end(self) -> None:
        """End the actors, which hold resources until then."""
        if not self._backend.lost:
            self._actors.dismiss()

    def _nodes(self) -> dict[str, Amounts]:
        """Return the nodes that share the folders; new ones are asked."""
        nodes = self._backend.nodes()
        for ended in self._backend.wait(0):
            self._storage_check.take(ended)
        with suppress(OSError):  # the folders are unreachable for now: new nodes are asked at the next look
            self._seen_by = self._storage_check.seen_by(nodes)
        return {node: has for node, has in nodes.items() if node in self._seen_by}

    def _hire(self, actors: "_Actors", nodes: dict[str, Amounts], wanted: int) -> None:
        hired = actors.by_node()
        vacant = [
            (node, amounts)
            for node, has in nodes.items()
            if actors.starts(node)
            for amounts in self._parts(has)[hired[node] :]
        ]
        most = min(wanted, wanted if self._limit is None else self._limit)
        for node, amounts in vacant[: max(0, most - actors.size)]:
            actors.hire(node, amounts)


class _Died:
    """End of an item whose actor or node died.

    It has the task's own error if that may pass elsewhere, such as one of the disk, or else Ray's words.
    """

    def __init__(self, error: Exception | None = None, reason: str = "") -> None:
        self.error, self.reason = error, reason


class _Actors:
    """The actors that work, wait for work, or have not started yet."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._task: Any = None  # a reference
        self._node: dict[Any, str] = {}
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._asked: dict[Any, Any] = {}
        self._working: dict[Any, tuple[Any, int]] = {}
        self._failed_starts = Counter[str]()
        self.why = ""  # none starts

    def begin(self, task: Callable[[int], object]) -> None:
        """Give all actors a new task; none of them is working."""
        self._task = ray.put(task)
        self._failed_starts.clear()
        self._idle.clear()
        self._asked.clear()
        self._starting = {actor.take.remote(self._task): actor for actor in self._node}

    @property
    def size(self) -> int:
        return len(self._node)

    @property
    def at_work(self) -> int:
        return len(self._working)

    def by_node(self) -> Counter[str]:
        return Counter(self._node.values())

    def starts(self, node: str) -> bool:
        """Return whether an actor may yet start on a node."""
        return self._failed_starts[node] < _ATTEMPTS

    def hire(self, node: str, amounts: Amounts) -> None:
        options = on_node(node, by_rays_names(amounts))
        threads = max(1, int(amounts.get("cpus", 0)))
        actor = _Worker.options(**options).remote(self._folder, threads)  # type: ignore[attr-defined]  # a class of Ray
        self._node[actor] = node
        self._starting[actor.take.remote(self._task)] = actor

    def give(self, todo: deque[int]) -> None:
        while todo and self._idle:
            actor, item = self._idle.pop(), todo.popleft()
            self._working[actor.call.remote(item)] = actor, item

    def wait(self, timeout_s: float) -> list[tuple[int, str, Any]]:
        """Wait for the end of an item; returns items with their nodes and results or deaths."""
        waiting = [*self._starting, *self._asked, *self._working]
        if not waiting:
            time.sleep(timeout_s)
            return []
        ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout_s)
        ended = []
        for reference in ready:
            outcome = _outcome(reference)
            if reference in self._working:
                actor, item = self._working.pop(reference)
                ended.append((item, self._node[actor], outcome))
            elif reference in self._starting:
                actor = self._starting.pop(reference)
                if isinstance(outcome, _Died):
                    self._failed_starts[self._node[actor]] += 1
                    self.why = f" ({outcome.reason})"
            else:
                actor = self._asked.pop(reference)
            if isinstance(outcome, _Died):
                self._drop(actor)
            else:
                self._idle.append(actor)
        return ended

    def _drop(self, actor: Any) -> None:  # noqa: ANN401 - Ray's handles have no public type
        """Forget a dead actor and check whether the idle actors of its node still live.

        The next look replaces dead actors. Unchecked, an item could be given to one dead actor after another.
        """
        node = self._node.pop(actor)
        ray.kill(actor)
        for other in [idle for idle in self._idle if self._node[idle] == node]:
            self._idle.remove(other)
            self._asked[other.ready.remote()] = other

    def dismiss(self) -> None:
        for actor in self._node:
            ray.kill(actor)
        for actors in (self._node, self._idle, self._starting, self._asked, self._working):
            actors.clear()


def _outcome(reference: Any) -> Any:  # noqa: ANN401 - Ray's references have no public type
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if fault_of(error.cause) in {"failed", "full"}:
            raise error.cause from None
        return _Died(error.cause)
    except RayError as error:
        return _Died(reason=words_of(error))


@ray.remote(max_restarts=0, max_task_retries=0)
class _Worker:
    """A process with its copy of the task that it works on."""

    def __init__(self, folder: str, threads: int) -> None:
        # Not in a runtime environment of the actor, for which Ray would start another process.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # else torch's threads spin between batches
        with suppress(OSError):  # relative paths are those of the driver, if they exist here
            os.chdir(folder)

    def take(self, task: Callable[[int], object]) -> None:
        self._task = task

    def ready(self) -> None:
        """Do nothing; the call succeeds if the process lives."""

    def call(self, item: int) -> object:
        return self._task(item)
