"""A Ray cluster of simulated nodes on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from ray.cluster_utils import Cluster

from runners.scheduling.ray_backend.core import kill_node

SMALL: dict[str, Any] = {
    "object_store_memory": 80_000_000, "include_dashboard": False, "include_log_monitor": False,
    "no_monitor": True,
}  # fmt: skip
"""Arguments of its nodes."""

_DEAD_NODES = {"RAY_health_check_period_ms": "500"}  # a dead node is noticed after a few of these


@contextmanager
def simulated_cluster() -> Iterator[Cluster]:
    """Context manager: a cluster with a head that has no cores; its nodes are dead after exit."""
    with patch.dict(os.environ, _DEAD_NODES):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
    try:
        yield cluster
    finally:
        for node in cluster.list_all_nodes():  # `shutdown` alone would wait a second for each process
            kill_node(node)
        cluster.shutdown()
