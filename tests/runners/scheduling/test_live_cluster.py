"""The view of a cluster: slots over all nodes, and the wait for nodes that could hold a trial."""

import pytest

from runners.scheduling import cluster
from runners.scheduling.cluster import LiveCluster
from runners.scheduling.instructions import Retry, ScheduledTrial, Start
from runners.scheduling.local_backend import LocalBackend
from runners.scheduling.nodes import Nodes
from runners.scheduling.schedule import Schedule


def test_slots_are_summed_node_by_node() -> None:
    nodes = {"a": {"cpus": 3.0}, "b": {"cpus": 3.0}, "c": {"cpus": 1.0}}
    schedule = Schedule([ScheduledTrial(trial="x", predicted_s=1, resources={"cpus": 2})], retries=0)
    seen = LiveCluster(LocalBackend(nodes), schedule, patience_s=0)
    seen.look()
    assert seen.slots == 2
    assert seen.describe() == "2 trials at once on 3 nodes (2 × 3 cpus; 1 cpus)"


def test_a_node_counts_once_in_each_slot_over_several_nodes() -> None:
    for has, slots in (((16,), 0), ((24, 8), 1), ((16, 16), 2), ((8, 8, 8), 1), ((16, 8, 8), 2)):
        nodes = Nodes()
        nodes.see({f"n{number}": {"gpus": float(gpus)} for number, gpus in enumerate(has)})
        assert nodes.slots({"gpus": 8.0}, 2) == slots, has


def test_a_trial_without_a_node_does_not_end_the_run_while_another_waits_for_its_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "_LOOK_S", 0.0)
    narrow = ScheduledTrial(trial="narrow", predicted_s=9, resources={"cpus": 1})
    wide = ScheduledTrial(trial="wide", predicted_s=1, resources={"cpus": 9})
    schedule = Schedule([narrow, wide], retries=1)
    seen = LiveCluster(LocalBackend({"here": {"cpus": 1.0}}), schedule, patience_s=0)
    schedule.see_nodes({"here": {"cpus": 1.0}})
    assert schedule.instructions(None) == [Start(trial="narrow", nodes=("here",))]

    schedule.crash("narrow")
    seen.look()
    retry, start = schedule.instructions(None)
    assert (retry, start) == (Retry(trial="narrow"), Start(trial="narrow", nodes=("here",)))
    schedule.finish("narrow")
    with pytest.raises(ValueError, match="no node has room for a trial of 9 cpus"):
        seen.look()
