"""Workers: processes that call one task for many items, on this machine or on a cluster.

A task must be deterministic and repeatable for each item, and must store finished results where the next run
finds them.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from runners.host.process import begin_child, load_ahead

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"

T = TypeVar("T")
Name = Callable[[int], str]
"""Item → its name in an error."""
Report = Callable[[str, int, int, int], None]
"""Called with the task, the number of finished parts, the total, and the number of pairs just processed."""


def usable_cores() -> int:
    """Return the number of cores that this process may use, such as those that Slurm gave to its job."""
    return len(os.sched_getaffinity(0))


def part_name(item: int) -> str:
    """Return the name of an item that has no other."""
    return f"part {item}"


class Workers(Protocol):
    """Processes that call a task."""

    def map(
        self, task: Callable[[int], T], items: Sequence[int], name: Name = part_name
    ) -> Iterator[tuple[int, T]]:
        """Call a task for each item, and yield items with their results as they are finished.

        The task is picklable; each process keeps a copy of it, and with it what its first call loaded.
        ``name`` names items in errors.

        Raises:
            ValueError: Processes were killed whenever they worked on one of the items. Errors of the task are
                raised as they are, but on a cluster those that may pass only after further attempts.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """Processes of this machine; a single one is the calling process itself."""

    count: int = 1
    devices: tuple[str, ...] = ()  # a GPU each, as in ``CUDA_VISIBLE_DEVICES``; none: they share all

    def map(
        self, task: Callable[[int], T], items: Sequence[int], name: Name = part_name
    ) -> Iterator[tuple[int, T]]:
        """Call a task for each item; see `Workers`."""
        if self.count <= 1:
            for item in items:
                yield item, task(item)
            return
        left = dict.fromkeys(items)
        while left:
            try:
                with self._started(task, self.count) as processes:
                    futures = {processes.submit(_call, item): item for item in left}
                    for future in as_completed(futures):
                        result = future.result()
                        del left[futures[future]]
                        yield futures[future], result
            except BrokenProcessPool:
                # The killed item is unknown, so each item that may have been running is repeated alone.
                for item in list(left)[: self.count + 1]:
                    yield item, self._alone(task, item, name)
                    del left[item]

    def _alone(self, task: Callable[[int], T], item: int, name: Name) -> T:
        try:
            with self._started(task, 1) as process:
                result: T = process.submit(_call, item).result()
                return result
        except BrokenProcessPool:
            raise killed(name(item), "twice") from None

    @contextmanager
    def _started(self, task: Callable[[int], object], count: int) -> Iterator[ProcessPoolExecutor]:
        """Context manager: processes that end after the items that they are working on."""
        # What takes seconds is imported once, in the server that processes are forked from.
        context = get_context("forkserver")
        load_ahead(getattr(task, "func", task).__module__, "runners.data.pool.byte_pairs")
        devices = context.SimpleQueue()
        for device in self.devices:
            devices.put(device)
        over = context.Event()
        begin = (task, over, dict(os.environ), devices if self.devices else None)
        with ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=begin) as processes:
            try:
                yield processes
            finally:  # after an error or Ctrl-C, some items are left, and a few of them cannot be cancelled
                over.set()
                processes.shutdown(cancel_futures=True)


def killed(name: str, times: str) -> ValueError:
    """Return the error for an item whose processes were killed."""
    return ValueError(
        f"the process that worked on {name} was killed {times}, maybe because the memory was full; "
        "finished parts are kept: repeat the command with more memory or without this part"
    )


_tasks: list[tuple[Callable[[int], Any], "Event"]] = []


def _begin(
    task: Callable[[int], object],
    over: "Event",
    environment: Mapping[str, str],
    devices: "SimpleQueue[str] | None",
) -> None:
    """Prepare a process for its task; it ends when its parent is killed, instead of waiting forever."""
    _tasks.append((task, over))
    begin_child(environment)
    if devices is not None:
        os.environ[VISIBLE_DEVICES] = devices.get()


def _call(item: int) -> Any:  # noqa: ANN401 - what the task returns
    task, over = _tasks[0]
    return None if over.is_set() else task(item)
