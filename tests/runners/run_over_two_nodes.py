"""Runs a pickled job on a simulated cluster of two nodes; Ray reads its token when it is imported."""

import os
import pickle
import sys
from functools import partial
from pathlib import Path

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all on loopback

from ray.cluster_utils import Cluster

from runners.backend import Job
from runners.ray_backend.backend import RayBackend
from runners.trial import take_part


def main(file: Path) -> None:
    job = pickle.loads(file.read_bytes())  # noqa: S301 - the test's own
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 80_000_000, "include_dashboard": False},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    cluster.wait_for_nodes()
    with RayBackend(cluster.address) as backend:
        nodes = tuple(node for node, has in backend.nodes().items() if has.get("cpus"))
        assert len(nodes) == 2
        backend.start(Job(trial="wide", run=partial(take_part, job), nodes=nodes, resources={"cpus": 1}))
        while not (ended := backend.wait(1)):
            pass
    assert ended[0].how == "finished", ended[0]
    assert ended[0].value is not None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
