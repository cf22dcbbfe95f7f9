"""Workers on a cluster: batches of a task's items, as jobs of the backend and the schedule that run trials.

A job works on its batch for two minutes, or less at first so that progress is seen soon; a model is loaded
once for many items. Items that it has not begun by then are handed back. After the death of a process each
item of its batch is a job of its own: an item that kills its processes is then known by its name.
"""

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TypeVar

from runners.host.faults import fault_of
from runners.host.workers import Name, killed, part_name
from runners.scheduling.backend import Backend, ClusterLostError, Ended, Job
from runners.scheduling.cluster import LiveCluster
from runners.scheduling.instructions import GiveUp, LeaveOut, ScheduledTrial, Start
from runners.scheduling.nodes import Amounts, has_room, no_room_text
from runners.scheduling.schedule import Schedule
from runners.scheduling.storage_check import StorageCheck

_FIRST_S, _BATCH_S = 10.0, 120.0  # a model of 600 MB is loaded in 2 s, a GPU is ready after as many
_SHARE = 2  # a batch is one in so many of the items that are left to a worker; so the last ones are small
_RETRIES = 2
_PATIENCE_S = 600.0  # without any node that has room, after a start
_WAIT_S = 1.0
_END_S = 20.0

T = TypeVar("T")


class ClusterWorkers:
    """Workers on the nodes of a backend that share the folders of the work.

    Each takes ``resources`` of its node; at most ``limit`` of them work at once. ``say`` is called with what
    the user should know of nodes.
    """

    def __init__(
        self,
        backend: Backend,
        storage_check: StorageCheck,
        resources: Amounts,
        *,
        limit: int | None = None,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._backend, self._storage_check, self._resources = backend, storage_check, resources
        self._limit, self._say = limit, say
        self._names = map("parts {}".format, count())
        self._folder = os.getcwd()  # noqa: PTH109 - as the nodes change to it
        self._running: set[str] = set()
        self._began = 0.0

    def map(
        self, task: Callable[[int], T], items: Sequence[int], name: Name = part_name
    ) -> Iterator[tuple[int, T]]:
        """Call a task for each item; see `runners.host.workers.Workers`."""
        nodes = self._backend.nodes().values()
        if items and not any(has_room(has, self._resources) for has in nodes):
            raise ValueError(no_room_text(self._resources, 1, nodes, what="worker"))
        self._began = time.monotonic()
        batches = _Batches(items, self._resources, self._names)
        cluster = LiveCluster(
            self._backend,
            batches.schedule,
            patience_s=_PATIENCE_S,
            storage_check=self._storage_check,
            what="worker",
            advice="Finished parts are kept",
        )
        try:
            while True:
                cluster.look()
                batches.divide(self._limit)
                for instruction in batches.schedule.instructions(None):
                    match instruction:
                        case Start(trial=job, nodes=on):
                            self._start(job, on, task, batches.items[job])
                        case GiveUp(trial=job):
                            raise batches.errors.get(job) or killed(
                                name(batches.items[job][0]), f"{batches.deaths[job]} times"
                            )
                        case LeaveOut(node=node, failures=failures) if failures:
                            self._say(f"node {node} fails more often than others: it is left out for a while")
                if batches.schedule.over:
                    break
                for ended in cluster.wait(_WAIT_S):
                    self._running.discard(ended.trial)
                    yield from batches.end(ended, name)
        except ClusterLostError:
            self._running.clear()  # there is nobody who could be asked to end them
            raise
        finally:
            self.end()

    def end(self) -> None:
        """End the jobs that an error or Ctrl-C has left running."""
        for job in self._running:
            self._backend.ask_to_leave(job, at_once=True)
        until = time.monotonic() + _END_S
        while self._running and time.monotonic() < until:
            for ended in self._backend.wait(_WAIT_S):
                self._storage_check.take(ended)
                self._running.discard(ended.trial)
        self._running.clear()

    def _start(
        self, job: str, nodes: tuple[str, ...], task: Callable[[int], object], batch: list[int]
    ) -> None:
        threads = max(1, int(self._resources.get("cpus", 1)))
        seconds = min(_BATCH_S, _FIRST_S + (time.monotonic() - self._began) / 2)
        run = partial(_work, task, batch, seconds, self._folder, threads)
        self._backend.start(Job(trial=job, run=run, nodes=nodes, resources=self._resources))
        self._running.add(job)


class _Batches:
    """The items of a task: those that are left, and the batches of jobs that wait or run.

    Attributes:
        schedule: The jobs.
        items: Job → the items that it still has to work on.
        errors: Job → the error of its first item that may pass, if it raised one.
        deaths: Job → the number of times that its process died.
    """

    def __init__(self, items: Sequence[int], resources: Amounts, names: Iterator[str]) -> None:
        self.left = deque(items)
        self._alone = set[int]()  # items that were in a batch whose process died
        self.schedule = Schedule((), retries=_RETRIES)
        self.items: dict[str, list[int]] = {}
        self.errors: dict[str, Exception] = {}
        self.deaths = Counter[str]()
        self._resources, self._names = resources, names

    def divide(self, limit: int | None) -> None:
        """Add jobs while there are workers without one."""
        slots = self.schedule.slots(self._job(""))
        workers = slots if limit is None else min(slots, limit)
        for _ in range(max(1, workers) - len(self.schedule.unfinished())):
            if not self.left:
                break
            size = 1 if self.left[0] in self._alone else -(-len(self.left) // (_SHARE * max(1, workers)))
            job = next(self._names)
            self.items[job] = [self.left.popleft() for _ in range(size)]
            self.schedule.add([self._job(job)])

    def end(self, ended: Ended, name: Name) -> list[tuple[int, T]]:
        """Return the results of a job that has ended, and take back what it has left.

        Raises:
            Exception: The error of an item, unless it may pass.
        """
        job = ended.trial
        if ended.how == "left" or ended.dead_nodes:  # not the items' fault
            self.schedule.left(job, dead_nodes=ended.dead_nodes)
            return []
        if ended.how in {"failed", "full"}:  # to read the task or to return its results
            raise ValueError(f"{name(self.items[job][0])}: {ended.reason}")
        results: list[tuple[int, T]] = []
        self.errors.pop(job, None)
        if ended.how == "finished":
            assert isinstance(ended.value, tuple), "returned by `_work`"
            results, error = ended.value
            if error is None:
                self.left.extendleft(reversed(self.items.pop(job)[len(results) :]))
                self.schedule.finish(job)
                return results
            if fault_of(error) in {"failed", "full"}:
                raise error
            self.errors[job] = error
        else:
            self.deaths[job] += 1
            self._alone.update(self.items[job])
        first, *others = self.items[job][len(results) :]
        self.items[job] = [first]
        self.left.extendleft(reversed(others))
        self.schedule.crash(job, kept=len(results))
        return results

    def _job(self, name: str) -> ScheduledTrial:
        return ScheduledTrial(trial=name, predicted_s=_BATCH_S, resources=self._resources)


def _work(
    task: Callable[[int], T], items: Sequence[int], seconds: float, folder: str, threads: int
) -> tuple[list[tuple[int, T]], Exception | None]:
    """Return the results of the items that a job begins in some seconds, and the error of the next one."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:  # loaded ahead, when it read the variable
        sys.modules["torch"].set_num_threads(threads)
    with suppress(OSError):  # relative paths are those of the driver, if they exist here
        os.chdir(folder)
    until = time.monotonic() + seconds
    results: list[tuple[int, T]] = []
    for item in items:
        if results and time.monotonic() >= until:
            break
        try:
            results.append((item, task(item)))
        except Exception as error:  # noqa: BLE001 - raised by the driver
            return results, error
    return results, None
