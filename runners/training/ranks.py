"""Data-parallel ranks: processes that train one model together, each on its part of every batch.

Only rank 0 writes files. On each node a process, the trial's own, starts and supervises the ranks.
"""

import itertools
import os
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from math import inf
from multiprocessing.connection import Connection, wait
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from runners.host.faults import Notice, ProcessEnded
from runners.host.process import (
    LET_GO_S,
    TRIAL_MODULES,
    Exit,
    FreshProcess,
    first_cause,
    kill_all,
    load_ahead,
)
from runners.host.watchdog import RankStatus, Watchdog, position

GROUP_TIMEOUT_S = 4 * 3600.0
"""Longest time in seconds that a rank waits for the others in one operation.

While a rank fits a probe, the others may wait, and NCCL's own limit is ten minutes. The end of a rank is
noticed by its process, long before.
"""

_JOIN_S = 600.0  # in which the ranks of several nodes must meet; a firewall may be between them
_LOOK_S = 0.1
_TELL_S, _SILENT_S = 3.0, 30.0
_ASK_S = 1.0  # between two requests to leave
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")

T = TypeVar("T")


def rank() -> int:
    """Return the index of this process among the ranks."""
    return dist.get_rank() if dist.is_initialized() else 0


def rank_count() -> int:
    """Return the number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(part: Tensor) -> Tensor:
    """Join the tensors of all ranks along their first dimension, in order of rank; without a graph."""
    if rank_count() == 1:
        return part.detach()
    parts = [torch.empty_like(part) for _ in range(rank_count())]
    with position.meeting():
        dist.all_gather(parts, part.detach().contiguous())
    return torch.cat(parts)


def gather_objects(part: T) -> list[T]:
    """Return the objects of all ranks, in order of rank; they must be picklable."""
    if rank_count() == 1:
        return [part]
    objects: list[Any] = [None] * rank_count()
    with position.meeting():
        dist.all_gather_object(objects, part)
    return objects


def dealt(own: Sequence[T], count: int) -> list[T]:
    """Return ``count`` values that the ranks computed in turn, of which this one has its ``own``, in order.

    They must be picklable, and tensors on the CPU.
    """
    shared = gather_objects(own)
    return [shared[number % len(shared)][number // len(shared)] for number in range(count)]


def in_turn(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Return the values of tasks, of which each rank calls one in turn; they are as `dealt` wants them."""
    return dealt([task() for task in tasks[rank() :: rank_count()]], len(tasks))


def broadcast(part: Tensor) -> Tensor:
    """Return rank 0's tensor on every rank; the others give memory for it."""
    if rank_count() > 1:
        with position.meeting():
            dist.broadcast(part, src=0)
    return part


def sum_over_ranks(part: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks."""
    if rank_count() > 1:
        part = part.clone()
        with position.meeting():
            dist.all_reduce(part)
    return part


def decided_by_first(decide: Callable[[], T]) -> T:
    """Call ``decide`` on rank 0 alone; return its value on every rank, for example a choice among files."""
    if rank_count() == 1:
        return decide()
    shared = [None if rank() else decide()]
    with position.meeting():
        dist.broadcast_object_list(shared, src=0)
    value: T = shared[0]  # type: ignore[assignment] # rank 0's value has replaced None
    return value


def run_ranks(  # noqa: PLR0913 - the group's nodes
    run: Callable[[], T], *, count: int, gpus: bool, node: int = 0, nodes: int = 1, address: str = ""
) -> T:
    """Run a call in ``count`` processes of this node that form a process group, perhaps with other nodes'.

    Ranks on several nodes meet at the address, ``tcp://HOST:PORT`` on the first; ``node`` is this one's place
    among them. With ``gpus`` each rank uses its own GPU and NCCL, else gloo on the CPU; a trial's process,
    which is forked, must have used none before. The call is picklable and learns its index from `rank`.
    Returns the value of this node's first rank.

    Raises:
        ProcessEnded: A rank did not finish; all other ranks have been ended.
    """
    load_ahead(*TRIAL_MODULES)
    position.no_exit_deadline()
    notice = Notice()
    with TemporaryDirectory() as folder, notice.listening():
        join = partial(join_group, address or f"file://{folder}/store", count=count * nodes, gpus=gpus)
        parts = [
            partial(_take_part, partial(join, node * count + place, place), run) for place in range(count)
        ]
        processes = [FreshProcess(pickle.dumps(part), watched=True) for part in parts]
        elsewhere = {"elsewhere": OtherNodes(address, node, nodes)} if nodes > 1 else {}
        Watchdog(processes, first=node * count, **elsewhere)
        # A request to leave is for rank 0, on the first node; the others end when it is gone.
        ends = wait_for_ends(processes, notice if node == 0 else Notice())
    cause = first_cause(ends.values())
    if cause is not None and cause.how != "finished":
        (place,) = (place for place, end in ends.items() if end is cause)
        reason = f"rank {node * count + place} of {count * nodes}: {cause.reason}"
        raise ProcessEnded(cause.how, reason, lost_connection=cause.lost_connection)
    result: T = pickle.loads(ends[0].pickled)  # noqa: S301 - written by our own process
    return result


def wait_for_ends(processes: Sequence[FreshProcess], notice: Notice) -> dict[int, Exit]:
    """Return the ranks' ends in their order: all, or that of the first failure and those soon after it."""
    # Wait for all ranks, or after the first failure only a short time: the others would wait forever in a
    # collective operation for the one that is gone.
    running = {process.connection: number for number, process in enumerate(processes)}
    ends: dict[int, Exit] = {}
    let_go_at, ask_at = inf, 0.0
    while running and time.monotonic() < let_go_at:
        for connection in wait(list(running), _LOOK_S):
            assert isinstance(connection, Connection)
            number = running.pop(connection)
            ends[number] = processes[number].wait()
            if ends[number].how != "finished":
                let_go_at = min(let_go_at, time.monotonic() + LET_GO_S)
        if notice.by and 0 in running.values() and time.monotonic() >= ask_at:
            # Rank 0 writes the checkpoint for all. It is asked again: a request that comes before it listens
            # is lost.
            processes[0].ask_to_leave()
            ask_at = time.monotonic() + _ASK_S
    kill_all([processes[number] for number in running.values()])
    return ends


class OtherNodes:
    """Where the ranks of a group's other nodes stand; a thread exchanges it through the group's store.

    An object for `Watchdog`; a node that was not heard of for half a minute is silent.
    """

    def __init__(self, address: str, node: int, nodes: int) -> None:
        self._address, self._node, self._nodes = address, node, nodes
        self._told: dict[int, bytes] = {}
        self._unheard_s: dict[int, float] = {}
        self._own: list[RankStatus] = []
        threading.Thread(target=self._exchange, daemon=True).start()

    def __call__(self, ranks: list[RankStatus], passed_s: float) -> list[RankStatus]:
        """Tell where this node's ranks stand, and return where the others do, as far as is known."""
        self._own, found = ranks, list[RankStatus]()
        for node, told in list(self._told.items()):
            unheard_s = self._unheard_s[node] = self._unheard_s[node] + passed_s
            silent = "its node is silent" if unheard_s > _SILENT_S else ""
            found += [
                replace(each, age_s=each.age_s + unheard_s, silent=silent or each.silent)
                for each in pickle.loads(told)  # noqa: S301 - written by our own process
            ]
        return found

    def _exchange(self) -> None:
        store = None
        for count in itertools.count():
            time.sleep(_TELL_S)
            with suppress(RuntimeError):  # torch's; the first rank, which holds the store, may hang
                store = store or _store(self._address, _SILENT_S, wait_for_workers=False)
                store.set(f"standing/{self._node}", pickle.dumps(self._own) + b"%d" % count)
                for node in {*range(self._nodes)} - {self._node}:
                    if store.check([f"standing/{node}"]):
                        told = store.get(f"standing/{node}")
                        if told != self._told.get(node):
                            self._unheard_s[node], self._told[node] = 0.0, told


def _store(address: str, limit_s: float, **group: Any) -> Any:  # noqa: ANN401 - torch's arguments and store
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return dist.TCPStore(host, int(port), timeout=timedelta(seconds=limit_s), **group)  # type: ignore[attr-defined]  # of its public names


def join_group(address: str, number: int, place: int, *, count: int, gpus: bool) -> None:
    """Join the group as rank ``number`` of ``count``, which is rank ``place`` of its node.

    TimeoutError if ranks of other nodes are not reached.
    """
    if address.startswith("file://"):
        # All ranks are on this node. gloo and NCCL would pick an interface by hostname, which may be
        # unreachable.
        os.environ.update(dict.fromkeys(INTERFACES, "lo"))
        store: Any = dist.FileStore(address.removeprefix("file://"), count)  # type: ignore[attr-defined]  # of its public names
    else:
        try:
            store = _store(address, _JOIN_S, world_size=count, is_master=number == 0)
        except dist.DistError as error:
            reason = f"the ranks did not meet at {address.removeprefix('tcp://')} within {_JOIN_S:.0f} s"
            raise TimeoutError(f"{reason}: let all ports through between the nodes") from error
    patience, backend = timedelta(seconds=GROUP_TIMEOUT_S), "nccl" if gpus else "gloo"
    store.set_timeout(patience)
    if gpus:
        torch.cuda.set_device(place)
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=patience)


def _take_part(join: Callable[[], None], run: Callable[[], object]) -> object:
    join()
    return run()
