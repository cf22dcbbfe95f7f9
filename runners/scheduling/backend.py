"""What runs trials where the schedule says: the protocol of `ray_backend.backend` and `local_backend`."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

from runners.host.faults import Fault
from runners.host.process import Exit
from runners.scheduling.nodes import Amounts


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A call to be made in a process of its own.

    Attributes:
        trial: The trial's id.
        run: The call; picklable, as is what it returns. Over several nodes every rank makes it, and when all
            are through it is made once more, without the others, for what it returns.
        nodes: Ids of the nodes that it runs on.
        resources: What it occupies on each of them.
        ranks: Ranks on each of several nodes.
    """

    trial: str
    run: Callable[[], object]
    nodes: tuple[str, ...]
    resources: Amounts
    ranks: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a job ended.

    Attributes:
        trial: The trial's id.
        how: ``finished`` with a value, or by its fault: see `runners.host.faults`. One that never began,
            since its node was gone, has left.
        value: What the job returned, when finished.
        reason: One line, otherwise.
        dead_nodes: Nodes that died with it.
    """

    trial: str
    how: Literal["finished"] | Fault
    value: object = None
    reason: str = ""
    dead_nodes: tuple[str, ...] = ()


def ended_by(trial: str, end: Exit) -> Ended:
    """Says how a job ended from how its process did."""
    value = pickle.loads(end.pickled) if end.how == "finished" else None  # noqa: S301 - our own process's
    return Ended(trial=trial, how=end.how, value=value, reason=end.reason)


class Backend(Protocol):
    """Runs jobs on the nodes that it has; used as a context, at whose end nothing runs any more.

    Attributes:
        binds: Whether a job runs on the very node that it names, or on any one with room for it.
    """

    binds: bool

    @property
    def name(self) -> str:
        """What it is, for people."""

    def nodes(self) -> dict[str, Amounts]:
        """Return the nodes that there are now, each with all that it has: id → resources."""

    def start(self, job: Job) -> None:
        """Start a job, which does not wait for it."""

    def ask_to_leave(self, trial: str) -> None:
        """Send SIGTERM to a running job."""

    def wait(self, timeout_s: float) -> list[Ended]:
        """Wait until a job ends or the time is over, and gives those that ended."""

    def announce(self, waiting: Sequence[tuple[Amounts, int]]) -> None:
        """Tells a cluster that grows on demand what waits and runs: resources of a node, number of nodes."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...
