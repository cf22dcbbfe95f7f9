"""Nodes come and go: trials of a dead node are reported as lost, a joining node is used."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.root import ROOT

pytestmark = pytest.mark.ray


# In a process of its own, which leaves no cluster behind in the tests' process.
SCRIPT = """
import json, sys, time
from functools import partial
from pathlib import Path
from runners.scheduling.backend import Job
from runners.scheduling.cluster import LiveCluster
from runners.scheduling.ray_backend.core import RayBackend
from runners.scheduling.ray_backend.tune import TuneBackend
from runners.scheduling.instructions import Start
from runners.scheduling.schedule import Schedule, ScheduledTrial
from runners.scheduling.storage_check import Folders, StorageCheck
from tests.runners.scheduling import jobs
from tests.runners.scheduling.simulated import SMALL, simulated_cluster
import ray
from ray.experimental.internal_kv import _internal_kv_get

folder = Path(sys.argv[1])
with simulated_cluster() as simulated:
    first = simulated.add_node(num_cpus=1, resources={"licence": 1}, **SMALL)
    simulated.wait_for_nodes()
    needs = {"cpus": 1, "licence": 1}
    found = {}
    with RayBackend(simulated.address, modules=()) as backend:
        schedule = Schedule([ScheduledTrial(trial="x", predicted_s=9, resources=needs)], retries=1)
        storage = StorageCheck(backend, Folders(written=folder, read=(folder,)))
        storage.require()
        cluster = LiveCluster(backend, schedule, patience_s=99, storage_check=storage)
        cluster.look()
        found["slots"] = cluster.slots
        (start,) = schedule.instructions(None)
        backend.start(Job(trial="x", run=partial(jobs.sleep, folder), nodes=start.nodes, resources=needs))
        while not list(folder.glob("began-*")):
            time.sleep(0.1)
        found["announced"] = json.loads(_internal_kv_get("autoscaler_resource_request") or "null")
        simulated.remove_node(first, allow_graceful=False)
        while not (ended := backend.wait(1)):
            pass
        found |= {"how": ended[0].how, "died": ended[0].dead_nodes == start.nodes}
        schedule.crash("x", dead_nodes=ended[0].dead_nodes)
        schedule.instructions(None)
        schedule.retry("x")
        cluster.look()
        found["while none fits"] = len(schedule.instructions(None))
        while cluster.slots:  # those of the dead one
            cluster.wait(0.2)
            cluster.look()
        joined = simulated.add_node(num_cpus=1, resources={"licence": 1}, **SMALL)
        while not (starts := schedule.instructions(None)):
            cluster.wait(0.2)
            cluster.look()
        found["asked before"] = storage.seen_by([joined.node_id]) == {joined.node_id}
        backend.start(Job(trial="x", run=jobs.process_id, nodes=starts[0].nodes, resources=needs))
        while not (ended := backend.wait(1)):
            pass
        found |= {"then": ended[0].how, "elsewhere": starts[0].nodes != start.nodes}

        tuned = folder / "tuned"
        tuned.mkdir()
        with TuneBackend(backend) as tuning:
            for run, node in ((partial(jobs.sleep, tuned), joined), (jobs.process_id, None)):
                on = next(node for node, has in tuning.nodes().items() if has.get("licence"))
                tuning.start(Job(trial="y", run=run, nodes=(on,), resources=needs))
                if node is not None:
                    while not list(tuned.glob("began-*")):
                        time.sleep(0.1)
                    simulated.remove_node(node, allow_graceful=False)
                    simulated.add_node(num_cpus=1, resources={"other": 1}, **SMALL)
                    simulated.add_node(num_cpus=1, resources={"licence": 1}, **SMALL)
                while not (ended := tuning.wait(1)):
                    pass
                found.setdefault("tuning", []).append(ended[0].how)
print(json.dumps(found))
"""


def test_trial_of_a_dead_node_restarts_on_a_joining_node(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == {
        "slots": 1,
        "announced": [{"CPU": 1.0, "licence": 1.0}],
        "how": "crashed",
        "died": True,
        "while none fits": 0,
        "asked before": True,
        "then": "finished",
        "elsewhere": True,
        "tuning": ["crashed", "finished"],
    }
