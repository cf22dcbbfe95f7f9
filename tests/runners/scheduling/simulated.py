"""A Ray cluster of simulated nodes on this machine; the only tests' module with private names of Ray."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from ray._private.parameter import RayParams
from ray._raylet import AuthenticationTokenLoader, GcsClient  # type: ignore[attr-defined]
from ray.cluster_utils import Cluster
from ray.experimental.internal_kv import _internal_kv_get

from runners.scheduling.ray_backend.core import kill_node
from runners.scheduling.ray_backend.ray_private import LOOPBACK_ONLY, StartedNode, read_environment_again

SMALL: dict[str, Any] = {
    "object_store_memory": 80_000_000, "include_dashboard": False, "include_log_monitor": False,
    "no_monitor": True,
}  # fmt: skip
"""Arguments of its nodes."""

CLUSTER = {
    **LOOPBACK_ONLY,
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
    read_environment_again()
    AuthenticationTokenLoader.instance().reset_cache()


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


def client_of_head(address: str) -> object:
    """Return a client of a cluster's head, as Ray makes them."""
    return GcsClient(address=address)


def requested_resources() -> list[dict[str, float]]:
    """Return what the driver of this process has requested from an autoscaler: a bundle for each node."""
    requested: list[dict[str, float]] = json.loads(_internal_kv_get("autoscaler_resource_request") or "[]")
    return requested


@contextmanager
def joining_node(address: str) -> Iterator[StartedNode]:
    """Context manager: a node with one core joins the cluster at an address; it is dead after exit."""
    one_core = RayParams(
        gcs_address=address, num_cpus=1, num_gpus=0, node_manager_port=0, min_worker_port=0,
        max_worker_port=0, **SMALL,
    )  # fmt: skip
    node = StartedNode(one_core, head=False, shutdown_at_exit=False, spawn_reaper=False)
    try:
        yield node
    finally:
        kill_node(node)
