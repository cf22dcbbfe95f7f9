"""Who is told to leave, for all nodes to ask: a Ray actor beside who tells them.

A file on shared storage would not do: NFS remembers for up to a minute that there was none, and by then a
spot machine may be gone.
"""

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class Notices:
    """Those that were told to leave, by name."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._listening: set[str] = set()

    def tell(self, who: str) -> None:
        """Tells one to leave."""
        self._told.add(who)

    def forget(self, who: str) -> None:
        """One begins anew."""
        self._told.discard(who)

    def told(self, who: str) -> bool:
        """Whether the one who asks was told."""
        self._listening.add(who)
        return who in self._told

    def listens(self, who: str) -> bool:
        """Whether one has ever asked."""
        return who in self._listening


def actor_here(kind: type) -> Any:  # noqa: ANN401 - Ray's handles have no public type
    """Start an actor on this node that takes nothing of it, and dies with this process."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(kind).options(scheduling_strategy=here).remote()
