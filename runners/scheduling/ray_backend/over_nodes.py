"""Jobs over several nodes: a task on each starts the ranks of its node, which meet at the first."""

import pickle
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

import ray
from ray.exceptions import RayError

from runners.host.process import LET_GO_S, Exit, first_cause
from runners.scheduling.nodes import Amounts
from runners.scheduling.ray_backend.tasks import end_of, on_node, run_in_fresh_process, see_through


class OverNodes:
    """A call made by all ranks of a job; returns the value of rank 0.

    Args:
        run: The call, pickled; each rank learns its index from `runners.training.ranks`.
        nodes: Ray's ids of the nodes.
        ranks_per_node: Ranks on each node.
        resources: Resources that the job occupies on each node, under Ray's names.
        modules: Modules that the call needs, imported before the ranks start.
    """

    def __init__(
        self, run: bytes, *, nodes: Sequence[str], ranks_per_node: int, resources: Amounts,
        modules: Sequence[str],
    ) -> None:  # fmt: skip
        self._ends: dict[int, Exit] = {}
        self._tasks: list[Any] = []
        self._let_go_at, self._let_go = inf, False
        look: Any = ray.remote(_free_address)
        found = look.options(**on_node(nodes[0], {})).remote()
        try:
            address = ray.get(found)
        except RayError:  # the node is gone
            self._ends[0] = end_of(found)[0]
            return
        task: Any = ray.remote(max_retries=0)(run_in_fresh_process)
        for place, node in enumerate(nodes):
            part = partial(
                _run_ranks, run, count=ranks_per_node, gpus=bool(resources.get("GPU")), node=place,
                nodes=len(nodes), address=address,
            )  # fmt: skip
            on = task.options(name="ranks", **on_node(node, resources))
            self._tasks.append(on.remote(pickle.dumps(part), tuple(modules)))

    def ended(self, timeout_s: float) -> bool:
        """Wait at most ``timeout_s`` seconds for the call's end; returns whether it has ended."""
        running = [task for place, task in enumerate(self._tasks) if place not in self._ends]
        with suppress(KeyboardInterrupt):  # Ray interrupts its own waits too when this task is asked to leave
            for task in ray.wait(running, timeout=timeout_s)[0] if running else ():
                end, node_lost = end_of(task)
                if self._let_go and not node_lost:  # not the cause of the end
                    end = replace(end, how="crashed", lost_peers=True)
                self._ends[self._tasks.index(task)] = end
                if end.how != "finished":
                    self._let_go_at = min(self._let_go_at, time.monotonic() + LET_GO_S)
        if not self._let_go and time.monotonic() >= self._let_go_at:
            self._let_go = True
            for task in running:  # their ranks would wait forever for those that are gone
                ray.cancel(task, force=True)
        return len(self._ends) >= len(self._tasks)

    def ask_to_leave(self) -> None:
        """Make rank 0, which writes for all ranks, write a checkpoint and leave."""
        for task in self._tasks[:1]:
            ray.cancel(task, force=False)

    def wait(self) -> Exit:
        """Wait for the call's end; of several faults, the first cause is returned."""
        while not self.ended(LET_GO_S):
            pass
        return first_cause(self._ends.values()) or self._ends[0]


def run_over_nodes(
    run: bytes, nodes: Sequence[str], ranks_per_node: int, resources: Amounts, modules: Sequence[str]
) -> Exit:
    """Run a job over several nodes, as a Ray task that holds no resources itself."""
    return see_through(
        partial(
            OverNodes, run, nodes=nodes, ranks_per_node=ranks_per_node, resources=resources, modules=modules
        )
    )


def _free_address() -> str:
    with socket.socket() as free:
        free.bind(("", 0))
        return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"


def _run_ranks(run: bytes, **group: Any) -> object:  # noqa: ANN401 - arguments of `run_ranks`
    from runners.training.ranks import run_ranks  # noqa: PLC0415 - it loads torch, which only ranks need

    return run_ranks(pickle.loads(run), **group)  # noqa: S301 - our own data
