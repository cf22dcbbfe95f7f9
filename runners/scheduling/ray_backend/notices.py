"""Requests to leave, as a Ray actor on the driver's node that all nodes can query.

A file on shared storage would be too slow: NFS clients may cache its absence for up to a minute, and by then
a spot machine may be gone.
"""

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class Notices:
    """Names of the processes that were asked to leave."""

    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._listening: set[str] = set()

    def ask(self, who: str) -> None:
        """Ask ``who`` to leave."""
        self._asked.add(who)

    def forget(self, who: str) -> None:
        """Withdraw the request for ``who``, which starts again."""
        self._asked.discard(who)

    def asked(self, who: str) -> bool:
        """Return whether ``who`` was asked to leave, and note that it listens."""
        self._listening.add(who)
        return who in self._asked

    def listens(self, who: str) -> bool:
        """Return whether ``who`` has ever called `asked`."""
        return who in self._listening


def actor_here(kind: type) -> Any:  # noqa: ANN401 - Ray's handles have no public type
    """Start an actor on this node that holds no resources and ends with this process."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(kind).options(scheduling_strategy=here).remote()
