"""The view of a cluster: slots, waits for room, and nodes that do not see the storage, die or are silent."""

import socket
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from runners.scheduling import cluster as live_cluster
from runners.scheduling import storage_check
from runners.scheduling.backend import Ended, Job
from runners.scheduling.cluster import LiveCluster
from runners.scheduling.instructions import Retry, ScheduledTrial, Start
from runners.scheduling.local_backend import LocalBackend
from runners.scheduling.nodes import Amounts, Nodes
from runners.scheduling.schedule import Schedule
from runners.scheduling.storage_check import Seen, StorageCheck
from runners.store.location import Location
from tests.runners.scheduling import jobs

ONE_CORE: Amounts = {"cpus": 1.0}


class WithABlindNode(LocalBackend):
    """A cluster whose node of a given name does not see a folder."""

    def __init__(self, nodes: Mapping[str, Amounts], unseen: Path) -> None:
        super().__init__(nodes, modules=())
        self._unseen = unseen

    def start(self, job: Job) -> None:
        blind = job.nodes == ("blind",)
        super().start(replace(job, run=partial(jobs.without, self._unseen, job.run)) if blind else job)


class WithADeadNode(LocalBackend):
    """Two nodes, one of which dies before it looks, and is listed for a moment longer, as by Ray."""

    def wait(self, timeout_s: float) -> list[Ended]:
        return [
            replace(ended, how="left", value=None, reason="its node was gone", dead_nodes=("dead",))
            if ended.trial == "dead"
            else ended
            for ended in super().wait(timeout_s)
        ]


def test_node_that_died_does_not_need_to_see_the_storage(tmp_path: Path) -> None:
    with WithADeadNode({"first": ONE_CORE, "dead": ONE_CORE}, modules=()) as backend:
        storage = StorageCheck(backend, Seen(written=Location(tmp_path)))

        storage.require()

        assert storage.seen_by(["first", "dead"]) == {"first"}
        storage.require()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_joining_node_without_the_storage_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    left_out: list[tuple[str, str]] = []
    tasks = [ScheduledTrial(trial=trial, predicted_s=1, resources=ONE_CORE) for trial in ("a", "b", "c")]
    schedule = Schedule(tasks, retries=0)
    with WithABlindNode({"first": ONE_CORE}, folder) as backend:
        place = Seen(written=Location(folder))
        storage = StorageCheck(backend, place, lambda *message: left_out.append(message))
        storage.require()
        cluster = LiveCluster(backend, schedule, patience_s=0, storage_check=storage)
        cluster.look()
        assert schedule.instructions(None) == [Start(trial="a", nodes=("first",))]

        backend.nodes()["blind"] = ONE_CORE
        while not left_out:
            cluster.look()
            assert schedule.instructions(None) == []
            assert cluster.wait(0.1) == []
        backend.nodes()["second"] = ONE_CORE
        while not (starts := schedule.instructions(None)):
            cluster.wait(0.1)
            cluster.look()

        assert starts == [Start(trial="b", nodes=("second",))]
        assert cluster.slots == 2
        ((node, why),) = left_out
        assert node == "blind"
        assert f"node {socket.gethostname()} does not see {folder}" in why
        assert list(folder.iterdir()) == []


def test_a_node_joins_although_its_mark_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_path: Path, *, missing_ok: bool = False) -> None:  # noqa: ARG001
        raise OSError("the storage is unreachable")

    with LocalBackend({"here": ONE_CORE}, modules=()) as backend:
        storage = StorageCheck(backend, Seen(written=Location(tmp_path)))
        cluster = LiveCluster(backend, Schedule([], retries=0), patience_s=0, storage_check=storage)
        cluster.look()
        monkeypatch.setattr(Path, "unlink", away)
        while storage.looking:
            assert cluster.wait(0.1) == []

        assert storage.seen_by(["here"]) == {"here"}


class WithCrashes(LocalBackend):
    """A node whose first processes die."""

    def __init__(self, crashes: int) -> None:
        super().__init__({"here": ONE_CORE}, modules=())
        self.left = crashes

    def start(self, job: Job) -> None:
        self.left -= 1
        super().start(job if self.left < 0 else replace(job, run=jobs.die))


def test_a_node_whose_process_dies_is_asked_again_and_its_death_is_not_called_a_missing_folder(
    tmp_path: Path,
) -> None:
    place = Seen(written=Location(tmp_path))
    with WithCrashes(2) as backend:
        StorageCheck(backend, place).require()
    with WithCrashes(3) as backend, pytest.raises(ValueError, match=r"node here .*SIGKILL") as raised:
        StorageCheck(backend, place).require()
    assert place.advice not in str(raised.value)


def test_a_node_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_check, "ANSWER_S", 0.0)

    class Silent(LocalBackend):
        def wait(self, timeout_s: float) -> list[Ended]:  # noqa: ARG002
            return []

    with (
        Silent({"deaf": ONE_CORE}, modules=()) as backend,
        pytest.raises(ValueError, match="deaf: look"),
    ):
        StorageCheck(backend, Seen(written=Location(tmp_path))).require()
    assert list(tmp_path.iterdir()) == [], "its mark is removed"


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
    monkeypatch.setattr(live_cluster, "_LOOK_S", 0.0)
    narrow = ScheduledTrial(trial="narrow", predicted_s=9, resources=ONE_CORE)
    wide = ScheduledTrial(trial="wide", predicted_s=1, resources={"cpus": 9})
    schedule = Schedule([narrow, wide], retries=1)
    seen = LiveCluster(LocalBackend({"here": ONE_CORE}), schedule, patience_s=0)
    schedule.see_nodes({"here": ONE_CORE})
    assert schedule.instructions(None) == [Start(trial="narrow", nodes=("here",))]

    schedule.crash("narrow")
    seen.look()
    retry, start = schedule.instructions(None)
    assert (retry, start) == (Retry(trial="narrow"), Start(trial="narrow", nodes=("here",)))
    schedule.finish("narrow")
    with pytest.raises(ValueError, match="no node has room for a trial of 9 cpus"):
        seen.look()
