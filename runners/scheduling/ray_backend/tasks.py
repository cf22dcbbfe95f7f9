"""Ray tasks that run a job in a process beside their worker, and the ends of such tasks."""

import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

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

from runners.host.faults import Notice, fault_of, words_of
from runners.host.process import Exit, FreshProcess, load_ahead
from runners.scheduling.nodes import Amounts

NAMES = {"CPU": "cpus", "GPU": "gpus"}
ASK_AGAIN_S = 2.0
"""Seconds after which a request to leave is repeated: one that arrives before a process listens is lost."""

_CANCEL_S = 0.5
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
    return see_through(partial(FreshProcess, run))


def see_through(start: Callable[[], Call]) -> Exit:
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


def end_of(task: Any) -> tuple[Exit, bool]:  # noqa: ANN401 - Ray's references have no public type
    """Return the end of a task that has ended, and whether its node is gone."""
    try:
        end: Exit = ray.get(task)
    except TaskUnschedulableError:
        return Exit(how="left", reason="its node was gone"), True
    except TaskCancelledError:
        return Exit(how="left", reason="asked to leave before it began"), False
    except RayTaskError as error:  # for example a value that cannot be pickled
        return Exit(how=fault_of(error.cause), reason=words_of(error.cause)), False
    except RayError as error:
        lost = isinstance(error, _NODE_LOST)
        why = "its node died" if lost else "its worker died"
        return Exit(how="crashed", reason=f"{why} ({type(error).__name__})"), lost
    return end, False
