"""Runs a pickled trial on a simulated cluster of two nodes, and resumes it after a request to leave.

Ray reads its token when it is imported, so this is a process of its own.
"""

import os
import pickle
import sys
import time
from functools import partial
from pathlib import Path

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all on loopback

from ray.cluster_utils import Cluster

from runners.scheduling.backend import Ended, Job
from runners.scheduling.ray_backend.core import RayBackend
from runners.trials.meter import read_count
from runners.trials.trial import take_part
from runners.trials.trial_files import kept_steps
from runners.trials.trial_setup import TrialJob


def main(file: Path) -> None:
    job: TrialJob = pickle.loads(file.read_bytes())  # noqa: S301 - the test's own
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 80_000_000, "include_dashboard": False},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    cluster.wait_for_nodes()
    with RayBackend(cluster.address) as backend:
        left = _run(backend, job, leave=True)
        assert left.how == "left", left
        steps, count = kept_steps(job.folder), read_count(job.folder)
        assert 0 < steps < job.trial.steps, steps
        assert count is not None
        assert count.train_flops == job.trial.train_flops_after(steps * job.trial.batch_size), "it lost work"

        finished = _run(backend, job, leave=False)
        assert finished.how == "finished", finished
        assert finished.value is not None


def _run(backend: RayBackend, job: TrialJob, *, leave: bool) -> Ended:
    nodes = tuple(node for node, has in backend.nodes().items() if has.get("cpus"))
    assert len(nodes) == 2
    backend.start(Job(trial="wide", run=partial(take_part, job), nodes=nodes, resources={"cpus": 1}))
    if leave:
        while (count := read_count(job.folder)) is None or not count.train_flops:  # until its first step
            time.sleep(0.05)
        backend.ask_to_leave("wide")
    while not (ended := backend.wait(1)):
        pass
    return ended[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
