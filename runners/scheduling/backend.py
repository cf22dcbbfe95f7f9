"""Protocol of a backend, which runs trials where the schedule decides."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

from runners.host.faults import Fault
from runners.host.process import Exit
from runners.scheduling.nodes import Amounts


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A call to be made in a process of its own; it and its return value are picklable.

    Over several nodes every rank makes the call, and the value of rank 0 counts.
    """

    trial: str  # its id; a check of a node or of ranks has a name of its own
    run: Callable[[], object]
    nodes: tuple[str, ...]
    resources: Amounts  # on each node
    ranks: int = 1  # on each of several nodes


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """End of a job: ``finished`` with a value, or a fault (`runners.host.faults`) with a reason of one line.

    A job that never started because its node was gone has ``left``.
    """

    trial: str
    how: Literal["finished"] | Fault
    value: object = None
    reason: str = ""
    dead_nodes: tuple[str, ...] = ()  # those that died with it


class ClusterLostError(Exception):
    """Error of a backend that has died; a new run continues its trials from their checkpoints.

    ``own`` is True if this process had started it, and can start another.
    """

    def __init__(self, reason: str, *, own: bool) -> None:
        super().__init__(reason)
        self.own = own


def ended_by(trial: str, end: Exit) -> Ended:
    """Convert the end of a job's process into the end of the job."""
    value = pickle.loads(end.pickled) if end.how == "finished" else None  # noqa: S301 - from our own process
    return Ended(trial=trial, how=end.how, value=value, reason=end.reason)


class Backend(Protocol):
    """Runs jobs on its nodes. Context manager; no job is running after exit."""

    binds: bool  # a job runs on exactly the nodes it names; False: on any with room for it

    @property
    def name(self) -> str:
        """Description for the user."""

    def nodes(self) -> dict[str, Amounts]:
        """Return the current nodes with their total resources: id → resources."""

    def start(self, job: Job) -> None:
        """Start a job and return without waiting for it."""

    def nodes_named(self, name: str) -> set[str]:
        """Return the ids of the nodes with a host's name, an address, or an id."""

    def ask_to_leave(self, trial: str, *, at_once: bool = False) -> None:
        """Send SIGTERM to a running job, or end it ``at_once``."""

    def wait(self, timeout_s: float) -> list[Ended]:
        """Wait until a job ends or the time is over; returns the jobs that ended."""

    def announce(self, waiting: Sequence[tuple[Amounts, int]]) -> None:
        """Announce what waits and runs to an autoscaling cluster: (resources of a node, number of nodes)."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...
