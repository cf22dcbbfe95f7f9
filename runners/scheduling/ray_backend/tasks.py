"""Ray tasks that run a job in processes beside their workers, on one node or over several; Tune's jobs."""

import pickle
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any, Protocol
from uuid import uuid4

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    TaskUnschedulableError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from runners.host.faults import Notice, fault_of, format_error
from runners.host.process import LET_GO_S, Exit, FreshProcess, first_cause, load_ahead
from runners.scheduling.nodes import Amounts
from runners.scheduling.ray_backend.ray_private import count_keys, delete_keys, put_key

NAMES = {"CPU": "cpus", "GPU": "gpus"}
ASK_AGAIN_S = 2.0
"""Seconds after which a request to leave is repeated: one that arrives before a process listens is lost."""

_CANCEL_S = 0.5
_MEET_S = 600.0  # longest wait for nodes that others hold
_NODE_LOST = (NodeDiedError, LocalRayletDiedError)


class Call(Protocol):
    """A call that runs beside a Ray worker, such as a `runners.host.process.FreshProcess`."""

    def ended(self, timeout_s: float) -> bool:
        """Wait at most ``timeout_s`` seconds for the call's end; returns whether it has ended."""

    def ask_to_leave(self) -> None:
        """Ask the call to write a checkpoint and leave."""

    def wait(self) -> Exit:
        """Wait for the call's end."""


def by_rays_names(resources: Amounts) -> dict[str, float]:
    """Return resources under Ray's names."""
    theirs = {ours: name for name, ours in NAMES.items()}
    return {theirs.get(name, name): amount for name, amount in resources.items()}


def on_node(node: str, amounts: Amounts) -> dict[str, Any]:
    """Return the options of a task or actor that occupies amounts, under Ray's names, of one node."""
    return {
        "num_cpus": amounts.get("CPU", 0),
        "num_gpus": amounts.get("GPU", 0),
        "resources": {name: amount for name, amount in amounts.items() if name not in NAMES},
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }


def run_in_fresh_process(run: bytes, modules: Sequence[str]) -> Exit:
    """Run a job in a process beside the Ray worker; the worker imports no torch and keeps its fork server."""
    load_ahead(*modules, "ray")  # ray: the worker's main module, which every new process imports, needs it
    return _see_through(partial(FreshProcess, run))


def _see_through(start: Callable[[], Call]) -> Exit:
    """Start a call, forward requests to leave, and wait for its end."""
    notice = Notice()
    # Ray cancels with SIGINT; processes started by a script in the background inherit that it is ignored.
    with notice.listening(signal.SIGINT):
        call = start()
        while not call.ended(_CANCEL_S):
            if notice.by:
                call.ask_to_leave()
                notice.by = ""  # the request is repeated while the call still writes and uploads its state
        return call.wait()


def end_of_task(task: Any) -> tuple[Exit, bool]:  # noqa: ANN401 - Ray's references have no public type
    """Return the end of a task that has ended, and whether its node is gone."""
    try:
        end: Exit = ray.get(task)
    except TaskUnschedulableError:
        return Exit(how="left", reason="its node was gone"), True
    except TaskCancelledError:
        return Exit(how="left", reason="asked to leave before it began"), False
    except RayTaskError as error:  # for example a value that cannot be pickled
        return Exit(how=fault_of(error.cause), reason=format_error(error.cause)), False
    except RayError as error:
        lost = isinstance(error, _NODE_LOST)
        why = "its node died" if lost else "its worker died"
        return Exit(how="crashed", reason=f"{why} ({type(error).__name__})"), lost
    return end, False


class OverNodes:
    """A pickled call made by all ranks of a job, which meet at its first node; returns the value of rank 0.

    A task on each node starts its ranks, which know their index from `runners.training.ranks`. The resources
    are those that the job occupies on each node, under Ray's names; the modules are imported before the ranks
    start.
    """

    def __init__(
        self, run: bytes, *, nodes: Sequence[str], ranks_per_node: int, resources: Amounts,
        modules: Sequence[str],
    ) -> None:  # fmt: skip
        self._ends: dict[int, Exit] = {}
        self._tasks: list[Any] = []
        self._let_go_at, self._let_go, self._held = inf, False, False
        look: Any = ray.remote(_free_address)
        looked = look.options(**on_node(nodes[0], {})).remote()
        self._meeting, self._meet_until = f"study-meeting-{uuid4()}-", time.monotonic() + _MEET_S
        try:
            address = ray.get(looked)
        except RayError:  # the node is gone
            self._ends[0] = end_of_task(looked)[0]
            return
        task: Any = ray.remote(max_retries=0)(_run_once_all_are_there)
        for place, node in enumerate(nodes):
            part = partial(
                _run_ranks, run, count=ranks_per_node, gpus=bool(resources.get("GPU")), node=place,
                nodes=len(nodes), address=address,
            )  # fmt: skip
            on = task.options(name="ranks", **on_node(node, resources))
            self._tasks.append(on.remote(pickle.dumps(part), tuple(modules), self._meeting, len(nodes)))

    def ended(self, timeout_s: float) -> bool:
        """Wait at most ``timeout_s`` seconds for the call's end; returns whether it has ended."""
        running = [task for place, task in enumerate(self._tasks) if place not in self._ends]
        with suppress(KeyboardInterrupt):  # Ray interrupts its own waits too when this task is asked to leave
            for task in ray.wait(running, timeout=timeout_s)[0] if running else ():
                end, node_lost = end_of_task(task)
                if self._let_go and not node_lost:  # not the cause of the end
                    end = replace(end, how="crashed", lost_connection=True)
                self._ends[self._tasks.index(task)] = end
                if end.how != "finished":
                    self._let_go_at = min(self._let_go_at, time.monotonic() + LET_GO_S)
        if time.monotonic() >= self._meet_until:
            self._meet_until = inf
            self._held = not self._ends and count_keys(self._meeting) < len(self._tasks)
        if not self._let_go and (self._held or time.monotonic() >= self._let_go_at):
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
        delete_keys(self._meeting)
        if self._held:
            return Exit(how="left", reason=f"others held its nodes for {_MEET_S:.0f} s")
        return first_cause(self._ends.values()) or self._ends[0]


def run_over_nodes(
    run: bytes, nodes: Sequence[str], ranks_per_node: int, resources: Amounts, modules: Sequence[str]
) -> Exit:
    """Run a job over several nodes, as a Ray task that holds no resources itself."""
    return _see_through(
        partial(
            OverNodes, run, nodes=nodes, ranks_per_node=ranks_per_node, resources=resources, modules=modules
        )
    )


def _run_once_all_are_there(run: bytes, modules: Sequence[str], meeting: str, count: int) -> Exit:
    """Run a job's part on this node once its parts on all ``count`` nodes have their resources."""
    put_key(f"{meeting}{uuid4()}")
    while count_keys(meeting) < count:
        time.sleep(_CANCEL_S)
    return run_in_fresh_process(run, modules)


def _free_address() -> str:
    with socket.socket() as free:
        free.bind(("", 0))
        return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"


def _run_ranks(run: bytes, **group: Any) -> object:  # noqa: ANN401 - arguments of `run_ranks`
    from runners.training.ranks import run_ranks  # noqa: PLC0415 - it loads torch, which only ranks need

    return run_ranks(pickle.loads(run), **group)  # noqa: S301 - our own data


class JobStore:
    """Calls of jobs on their way from the driver of a tuning to its trials, and requests to leave.

    The calls are too large for Tune's own records. An actor on the driver's node: a file on shared storage
    would be too slow, because NFS clients may cache its absence for up to a minute, and by then a spot
    machine may be gone. In the module of its only user it would load Tune in the actor's process.
    """

    def __init__(self) -> None:
        self._runs: dict[str, bytes] = {}
        self._asked: dict[str, str] = {}

    def put(self, trial: str, run: bytes) -> None:
        """Keep the call of a trial, which may start again after a request to leave."""
        self._runs[trial] = run
        self._asked.pop(trial, None)

    def take(self, trial: str) -> bytes:
        """Return the call of a trial and forget it."""
        return self._runs.pop(trial)

    def ask(self, trial: str, at_once: bool) -> None:  # noqa: FBT001 - Ray's calls have no names
        """Ask a trial to leave, or to end at once."""
        self._asked[trial] = "at once" if at_once else "soon"

    def asked(self, trial: str) -> str:
        """Return how a trial is asked to leave; empty if it is not."""
        return self._asked.get(trial, "")
