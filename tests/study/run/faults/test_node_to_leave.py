"""Trials leave a node before it ends, as a spot machine does, and continue on another."""

import pytest

from tests.child_processes import shared_server
from tests.holding import hold, let_go
from tests.runners.scheduling.simulated import SMALL, simulated_cluster
from tests.study.tiny_study import TinyStudy, ended
from tests.waiting import wait_for

pytestmark = pytest.mark.ray


def test_trials_of_a_node_that_is_to_end_lose_no_work(tiny: TinyStudy) -> None:
    tiny.declare(levels="10 GFLOP", seeds="0, 1", resources="retries: 0")
    hold(tiny.folder, step=40)
    with simulated_cluster(shared_server()) as cluster:
        nodes = {node.node_id: node for node in (cluster.add_node(num_cpus=1, **SMALL) for _ in range(2))}
        cluster.wait_for_nodes()
        with tiny.start("--address", cluster.address) as process:
            wait_for(lambda: len(tiny.at_work()) == 2, seconds=120)
            first, other = tiny.events("trial-started")
            (leaving,) = first["nodes"]

            said = tiny.says(f"stop --node {leaving} --within 60s")

            assert said.endswith(f"no trial runs on {leaving} any more\n")
            cluster.remove_node(nodes[leaving], allow_graceful=False)
            let_go(tiny.folder)
            ended(process)
    (left,) = tiny.events("trial-left")
    assert left["trial"] == first["trial"]
    assert tiny.events("trial-started")[2]["nodes"] == other["nodes"]
    assert not tiny.events("trial-retried")
    assert tiny.settled()["wasted"] == 0
