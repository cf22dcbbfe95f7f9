"""A Ray cluster of simulated nodes on this machine."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.cluster_utils import Cluster

from runners.scheduling.ray_backend.core import kill_node

SMALL: dict[str, Any] = {
    "object_store_memory": 80_000_000, "include_dashboard": False, "include_log_monitor": False,
    "no_monitor": True,
}  # fmt: skip
"""Arguments of its nodes."""

CLUSTER = {
    ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",  # all on loopback
    "RAY_AUTH_MODE": "token",
    "RAY_health_check_period_ms": "500",  # a dead node is noticed after a few of these
}
"""Environment variables of its nodes and of those who connect to it, without the token."""


@contextmanager
def rays_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Context manager: Ray in this process, and all that it starts, have these environment variables."""
    try:
        with patch.dict(os.environ, variables):
            _read_again()
            yield
    finally:
        _read_again()


def _read_again() -> None:
    """Let Ray read what it otherwise reads once in a process: its configuration and its token."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR) != "0"


@contextmanager
def simulated_cluster(variables: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """Context manager: a cluster with a head that has no cores; its nodes are dead after exit."""
    with rays_environment({**CLUSTER, "RAY_AUTH_TOKEN": secrets.token_hex(32), **(variables or {})}):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
        try:
            yield cluster
        finally:
            for node in cluster.list_all_nodes():  # `shutdown` alone would wait a second for each process
                kill_node(node)
            cluster.shutdown()
