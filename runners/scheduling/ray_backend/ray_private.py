"""Ray's private names: all that this project uses of them, each for something that no public name does.

They can change with any release, so pyproject.toml has an upper bound of Ray; it is raised by hand once all
tests pass. ``python ray_private.py HOST:PORT`` prints the hosts of a cluster's nodes.
"""

import atexit
import os
import sys
from typing import Any, TypeAlias

from ray._private import ray_constants, worker
from ray._private.node import Node
from ray._raylet import Config, GcsClient  # type: ignore[attr-defined]  # of its compiled part
from ray.experimental import internal_kv

StartedNode: TypeAlias = Node
"""A node that this process has started: it ends its processes, and names their ids and folder."""

LOOPBACK_ONLY = {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}
"""Environment of a Ray that binds every port to loopback, as Ray itself does on desktops."""


def read_environment_again() -> None:
    """Apply this process's environment to Ray, which reads it only once, when it is imported."""
    Config.initialize("")
    ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(*LOOPBACK_ONLY) != "0"


def started_node() -> StartedNode | None:
    """Return the node that `ray.init` has started in this process; None if it connected to a cluster."""
    return worker._global_node  # noqa: SLF001


def forget_started_node() -> None:
    """Let `ray.shutdown` leave the started node alone: it would wait a second for each of its processes."""
    worker._global_node = None  # noqa: SLF001


def never_shut_down() -> None:
    """Remove Ray's shutdown at exit: it waits a minute for a dead head, then ends with a code of its own."""
    atexit.unregister(worker.shutdown)


def raylets(node: StartedNode) -> list[Any]:
    """Return what Ray knows of a node's raylet: one entry with its ``process``, or none."""
    return list(node.all_processes.get(ray_constants.PROCESS_TYPE_RAYLET, []))


def put_key(key: str) -> None:
    """Write a key without a value into the head's store, which all tasks of the cluster see."""
    internal_kv._internal_kv_put(key, b"")  # noqa: SLF001


def count_keys(prefix: str) -> int:
    """Return the number of keys in the head's store that start with a prefix."""
    return len(internal_kv._internal_kv_list(prefix))  # noqa: SLF001


def delete_keys(prefix: str) -> None:
    """Delete the keys in the head's store that start with a prefix."""
    internal_kv._internal_kv_del(prefix, del_by_prefix=True)  # noqa: SLF001


def cluster_hosts(address: str) -> set[str]:
    """Return the hosts of a cluster's nodes without joining it, which would wait for minutes if refused.

    Raises:
        ray.exceptions.RaySystemError: The cluster rejects this process's token or version.
    """
    nodes = GcsClient(address=address).get_all_node_info().values()
    return {node.node_manager_address for node in nodes}


if __name__ == "__main__":
    sys.stdout.write(f"{' '.join(cluster_hosts(sys.argv[1]))}\n")
