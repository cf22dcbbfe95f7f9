"""Nodes that die and join: a trial is reported as lost and restarts on another; trials over two nodes."""

import json
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray.autoscaler.sdk import request_resources

from budgets.machine_cache import CACHE
from runners.host.workers import VISIBLE_DEVICES
from runners.scheduling.backend import Backend, Ended, Job
from runners.scheduling.cluster import LiveCluster
from runners.scheduling.instructions import GiveUp, Instruction, ScheduledTrial, Start
from runners.scheduling.ray_backend import tasks
from runners.scheduling.ray_backend.core import RayBackend
from runners.scheduling.ray_backend.tasks import OverNodes
from runners.scheduling.ray_backend.tune import TuneBackend
from runners.scheduling.schedule import Schedule
from runners.scheduling.storage_check import Seen, StorageCheck
from runners.store.copies import trial_copies
from runners.store.location import Location
from runners.trials.meter import read_meter
from runners.trials.trial import run_trial, take_part
from runners.trials.trial_files import kept_steps
from study.storage.bucket_storage import BucketStorage
from tests.child_processes import shared_server
from tests.holding import hold, let_go
from tests.runners.scheduling import jobs
from tests.runners.scheduling.simulated import SMALL, requested_resources, simulated_cluster
from tests.runners.tiny import counted_flops, tiny_job, tiny_pool, tiny_trial
from tests.waiting import wait_for

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def head() -> Iterator[Any]:
    """A cluster with a head that has no cores; trials are forked from the server of the tests."""
    with simulated_cluster(shared_server()) as found:
        yield found


@pytest.fixture
def cluster(head: Any) -> Iterator[Any]:  # noqa: ANN401 - Ray's has no type
    """Return that cluster for a test to add nodes, which are removed after it."""
    yield head
    for node in list(head.worker_nodes):
        head.remove_node(node, allow_graceful=False)


def end(backend: Backend) -> Ended:
    while not (ended := backend.wait(1)):
        pass
    (only,) = ended
    return only


def test_the_request_of_a_driver_that_died_is_withdrawn_by_the_next_run_alone(cluster: Any) -> None:  # noqa: ANN401 - as above
    with RayBackend(cluster.address, modules=()):
        request_resources(bundles=[{"CPU": 64.0}])
    with RayBackend(cluster.address, modules=()) as backend:
        assert requested_resources() == [{"CPU": 64.0}]
        backend.announce([])
        assert requested_resources() == []


def test_trial_of_a_dead_node_restarts_on_a_joining_node(cluster: Any, tmp_path: Path) -> None:  # noqa: ANN401 - as above
    needs = {"cpus": 1, "licence": 1}
    schedule = Schedule([ScheduledTrial(trial="x", predicted_s=9, resources=needs)], retries=1)
    first = cluster.add_node(num_cpus=1, resources={"licence": 1}, **SMALL)
    cluster.wait_for_nodes()
    with RayBackend(cluster.address, modules=()) as backend:
        storage = StorageCheck(backend, Seen(written=Location(tmp_path), read=(tmp_path,)))
        storage.require()
        live = LiveCluster(backend, schedule, patience_s=99, storage_check=storage)
        live.look()
        assert live.slots == 1
        (start,) = schedule.instructions(None)
        assert isinstance(start, Start)
        sleep = partial(jobs.sleep, tmp_path)
        backend.start(Job(trial="x", run=sleep, nodes=start.nodes, resources=needs))
        wait_for(lambda: list(tmp_path.glob("began-*")), seconds=60)
        assert requested_resources() == [{"CPU": 1.0, "licence": 1.0}]

        cluster.remove_node(first, allow_graceful=False)
        ended = end(backend)
        assert (ended.how, ended.dead_nodes) == ("crashed", start.nodes)
        schedule.crash("x", dead_nodes=ended.dead_nodes)
        schedule.instructions(None)
        live.look()
        assert not schedule.instructions(None), "none fits"
        while live.slots:  # those of the dead one
            live.wait(0.2)
            live.look()

        joined = cluster.add_node(num_cpus=1, resources={"licence": 1}, **SMALL)
        while not (starts := schedule.instructions(None)):
            live.wait(0.2)
            live.look()
        assert starts == [Start(trial="x", nodes=(joined.node_id,))]
        assert storage.seen_by([joined.node_id]) == {joined.node_id}, "it was asked before"
        backend.start(Job(trial="x", run=jobs.process_id, nodes=(joined.node_id,), resources=needs))
        assert end(backend).how == "finished"

        tuned = tmp_path / "tuned"
        tuned.mkdir()
        with TuneBackend(backend) as tuning:
            sleep = partial(jobs.sleep, tuned)
            tuning.start(Job(trial="y", run=sleep, nodes=(joined.node_id,), resources=needs))
            wait_for(lambda: list(tuned.glob("began-*")), seconds=60)
            cluster.remove_node(joined, allow_graceful=False)
            cluster.add_node(num_cpus=1, resources={"other": 1}, **SMALL)
            third = cluster.add_node(num_cpus=1, resources={"licence": 1}, **SMALL)
            assert end(tuning).how == "crashed"
            tuning.start(Job(trial="y", run=jobs.process_id, nodes=(third.node_id,), resources=needs))
            assert end(tuning).how == "finished"


@pytest.mark.parametrize("ways", [("by error", "by error"), ("by death", "by error")])
def test_two_bad_nodes_of_three_are_left_out_and_lose_no_trial(cluster: Any, ways: tuple[str, str]) -> None:  # noqa: ANN401 - as above
    bad = {cluster.add_node(num_cpus=1, env_vars={"NODE_FAILS": how}, **SMALL).node_id for how in ways}
    cluster.add_node(num_cpus=1, **SMALL)
    cluster.wait_for_nodes()
    trials = [f"t{number}" for number in range(8)]
    schedule = Schedule(
        [ScheduledTrial(trial=trial, predicted_s=1, resources={"cpus": 1}) for trial in trials], retries=3
    )
    starts, finished, others = Counter[str](), list[str](), list[Instruction]()
    with RayBackend(cluster.address, modules=()) as backend:
        live = LiveCluster(backend, schedule, patience_s=99)
        live.look()
        while not schedule.over:
            for instruction in schedule.instructions(None):
                match instruction:
                    case Start(trial=trial, nodes=nodes):
                        starts[nodes[0]] += 1
                        run = jobs.end_as_its_node_does
                        backend.start(Job(trial=trial, run=run, nodes=nodes, resources={"cpus": 1}))
                    case _:
                        others.append(instruction)
            for ended in live.wait(0.2):
                match ended.how:
                    case "finished":
                        finished.append(ended.trial)
                        schedule.finish(ended.trial)
                    case "failed":
                        schedule.fail(ended.trial)
                    case how:
                        assert how == "crashed", ended.reason
                        schedule.crash(ended.trial)
            live.look()

    assert sorted(finished) == trials
    assert not [instruction for instruction in others if isinstance(instruction, GiveUp)]
    assert all(1 <= starts[node] <= 3 for node in bad), starts


def test_a_trial_whose_nodes_others_hold_waits_for_them_and_has_then_left(
    cluster: Any,  # noqa: ANN401 - as above
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for _ in range(2):
        cluster.add_node(num_cpus=1, **SMALL)
    cluster.wait_for_nodes()
    with RayBackend(cluster.address) as backend:
        nodes = tuple(backend.nodes())
        sleep = partial(jobs.sleep, tmp_path)
        backend.start(Job(trial="other", run=sleep, nodes=nodes[1:], resources={"cpus": 1}))
        wait_for(lambda: list(tmp_path.glob("began-*")), seconds=60)
        over = partial(
            OverNodes, pickle.dumps(jobs.place_among_ranks), nodes=nodes, ranks_per_node=1,
            resources={"CPU": 1}, modules=(),
        )  # fmt: skip
        waits = over()
        assert not waits.ended(5)
        backend.ask_to_leave("other")
        assert end(backend).trial == "other"
        assert pickle.loads(waits.wait().pickled) == (0, 2)  # noqa: S301 - our own data

        backend.start(Job(trial="other", run=sleep, nodes=nodes[:1], resources={"cpus": 1}))
        wait_for(lambda: len(list(tmp_path.glob("began-*"))) > 1, seconds=60)
        monkeypatch.setattr(tasks, "_MEET_S", 3.0)
        held = over().wait()
        assert (held.how, held.reason) == ("left", "others held its nodes for 3 s")


def test_a_check_of_a_node_sees_its_gpus_although_it_takes_none(cluster: Any) -> None:  # noqa: ANN401 - as above
    hidden = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}  # as by default in earlier versions of Ray
    cluster.add_node(num_cpus=1, num_gpus=1, env_vars={VISIBLE_DEVICES: "7", **hidden}, **SMALL)
    cluster.wait_for_nodes()
    with RayBackend(cluster.address, modules=()) as backend:
        (node,) = backend.nodes()
        backend.start(Job(trial="check", run=jobs.gpus, nodes=(node,), resources={}))
        assert end(backend).value == "7"


def test_trial_over_two_nodes_equals_one_process_after_leaving(cluster: Any, tmp_path: Path) -> None:  # noqa: ANN401 - as above
    for number in range(2):
        cluster.add_node(num_cpus=1, env_vars={CACHE: str(tmp_path / f"cache{number}")}, **SMALL)
    trial = tiny_trial(steps=60)
    one = tiny_job(trial, tiny_pool(tmp_path / "tiny"), tmp_path / "one")
    job = replace(one, folder=tmp_path / "wide")
    bucket = Location(f"file://{tmp_path / 'bucket'}")
    uploaded = tmp_path / "bucket" / "study" / "trials" / "wide"
    alone = run_trial(one)

    cluster.wait_for_nodes()
    with RayBackend(cluster.address) as backend:
        assert wide(backend, partial(take_part, job)).how == "finished"  # in a folder that the nodes share

        study = BucketStorage(bucket, "study", tmp_path / "driver")  # with copies on each node
        study.share(job, lambda _line: None)
        call = study.call(take_part, job, nodes=2)
        copies = [tmp_path / f"cache{number}" / trial_copies(bucket).name / "study" for number in range(2)]
        for copy in copies:
            hold(copy, step=30)
        assert wide(backend, call, until=lambda: begun(tmp_path)).how == "left"
        for copy in copies:
            let_go(copy)
        steps = kept_steps(uploaded)
        assert 0 < steps < trial.steps
        assert counted_flops(uploaded) == trial.train_flops_after(steps * trial.batch_size), "it lost work"
        assert wide(backend, call).how == "finished"
        assert not list(uploaded.glob("checkpoint-*"))

        lost = wide(backend, jobs.lose_peers_as_last_rank)
        assert (lost.how, lost.reason) == ("crashed", "rank 1 of 2: RuntimeError: Connection closed by peer")
        with TuneBackend(backend) as tune:
            assert wide(tune, jobs.place_among_ranks).value == (0, 2)

    losses = pd.read_parquet(one.folder / "curve.parquet")["loss"].to_numpy()
    for folder in (job.folder, uploaded):
        found = pd.read_parquet(folder / "curve.parquet")["loss"].to_numpy()
        assert found == pytest.approx(losses, rel=1e-4)
        row = json.loads((folder / "result.json").read_text())["row"]
        assert row["held-out/count"] == alone.row["held-out/count"]


def wide(
    backend: RayBackend | TuneBackend,
    run: Callable[[], object],
    until: Callable[[], object] | None = None,
) -> Ended:
    """Run a job on both nodes, perhaps until a condition holds: then it is asked to leave."""
    nodes = tuple(backend.nodes())
    assert len(nodes) == 2, "the head has no core to offer"
    backend.start(Job(trial="wide", run=run, nodes=nodes, resources={"cpus": 1}))
    if until is not None:
        wait_for(until, seconds=120)
        backend.ask_to_leave("wide")
    return end(backend)


def begun(folder: Path) -> bool:
    """Return whether the copy of a node holds the trial's first step."""
    counts = map(read_meter, folder.glob("cache*/*/study/trials/wide"))
    return any(count is not None and count.train_flops > 0 for count in counts)
