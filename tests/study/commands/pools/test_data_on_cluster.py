"""``python -m study data … --address`` on a simulated cluster of two nodes gives what this machine gives."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from ray.cluster_utils import Cluster

from budgets.machine_cache import CACHE
from runners.data.build.info import summarise
from runners.evaluate import clip_score
from runners.store.location import Location
from study.run.pool_site import PoolSite
from study.show.view import WorkProgress
from tests.child_processes import shared_server
from tests.runners.scheduling import jobs
from tests.runners.scheduling.simulated import SMALL, simulated_cluster
from tests.runners.store.bucket import Bucket
from tests.study.commands.pools.pools_on_two_nodes import (
    content,
    killing,
    run,
    work_in,
    write_model,
    write_tars,
)

pytestmark = pytest.mark.ray

BUCKET = "s3://pools"
SCORE = ("--with", "../tiny.json:../weights.pt", "--name", "mine", "--device", "cpu")


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a user's folder with tars, which are also in a bucket, and a model; parts of work are small."""
    folder = tmp_path_factory.mktemp("two-nodes")
    write_tars(folder / "tars")
    write_model(folder)
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv(CACHE, str(folder / "cache"))
        changed.setattr("runners.data.build.build_pool.PAIRS_PER_SHARD", 64)  # several new shards
        changed.setattr(clip_score, "_ROWS_PER_PART", 16)  # several parts
        bucket = Bucket(changed, BUCKET.partition("://")[2])
        for tar in (folder / "tars").iterdir():
            Location(BUCKET).put(tar, f"tars/{tar.name}")
        yield folder
        bucket.go_away()


@pytest.fixture(scope="module")
def cluster(user: Path) -> Iterator[Cluster]:  # noqa: ARG001 - its nodes inherit the user's environment
    """Start a cluster, whose nodes share the server of the tests."""
    with simulated_cluster(shared_server()) as cluster:
        yield cluster


def with_two_nodes(cluster: Cluster) -> Cluster:
    """Let nodes join in the place of those that died."""
    while len(cluster.worker_nodes) < 2:
        cluster.add_node(num_cpus=1, **SMALL)
    cluster.wait_for_nodes()
    return cluster


@dataclass(frozen=True, kw_only=True, slots=True)
class Here:
    """Files, scores and output of one process of this machine."""

    pool: Path
    built: dict[str, bytes]
    scored: dict[str, bytes]
    said: str
    info: str


@pytest.fixture(scope="module")
def here(user: Path) -> Here:
    with pytest.MonkeyPatch.context() as changed:
        changed.chdir(user)
        pool = work_in(user / "here")
        run("build", "p", "--from", "../tars", "--workers", 1)
        built, said = content(pool), run("score", "p", *SCORE)
        return Here(pool=pool, built=built, said=said, scored=content(pool), info=run("info", "p"))


@contextmanager
def node_killed(cluster: Cluster, task: str) -> Iterator[None]:
    """Context manager: one of two nodes is killed when half of a task's parts are finished."""
    node, _ = with_two_nodes(cluster).worker_nodes
    with patch.object(WorkProgress, "__enter__", killing(cluster, node, task)):
        yield
    assert len(cluster.worker_nodes) == 1


@pytest.fixture(scope="module")
def found(cluster: Cluster, user: Path, here: Here) -> dict[str, Any]:
    """Return what a command learns from its workers; they share a connection, which takes a while."""
    folder = user / "meet"
    folder.mkdir()
    address = with_two_nodes(cluster).address
    with PoolSite(address, None, lambda _line: None) as site:
        workers = site.workers(folder)
        shared = dict(workers.map(partial(jobs.node_of, folder), range(4)))
        return {
            "nodes": len(set(shared.values())),
            "items": sorted(shared),
            "unseen": reason(lambda: site.workers(folder / "nowhere")),
            "dies": reason(lambda: list(workers.map(jobs.die_of, range(1), "item {}".format))),
            "passes": sorted(workers.map(partial(jobs.fail_once, folder), range(3))),
            "info": dict(site.one(here.pool).map(partial(summarise, here.pool, None), range(1)))[0],
        }


def reason(do: Callable[[], object]) -> str:
    try:
        do()
    except ValueError as error:
        return str(error)
    return ""


def test_nodes_share_the_items(found: dict[str, Any]) -> None:
    assert found["nodes"] == 2
    assert found["items"] == [0, 1, 2, 3]


def test_a_folder_that_a_node_does_not_see_is_refused(found: dict[str, Any]) -> None:
    assert "does not see" in found["unseen"]
    assert found["unseen"].endswith(
        "all nodes of the cluster must share it. Use a folder that they share, or leave out --address"
    )


def test_item_whose_processes_die_is_named_and_a_passing_fault_is_not_the_end(found: dict[str, Any]) -> None:
    assert found["dies"].startswith("the process that worked on item 0 was killed 3 times, maybe because")
    assert found["passes"] == [(item, item) for item in range(3)]


def test_a_node_sums_up_a_pool_as_this_machine_does(found: dict[str, Any], here: Here) -> None:
    assert found["info"] == here.info.splitlines()


def test_pool_built_on_two_nodes_has_the_bytes_of_one_process_even_if_a_node_dies(
    cluster: Cluster, user: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(user)
    pool = work_in(user / "there")

    with node_killed(cluster, "reading"):
        first, *_ = run("build", "p", "--from", "../tars", "--address", cluster.address).splitlines()

    assert first.endswith(": 2 nodes"), "the head has no core to offer"
    assert content(pool) == here.built
    with node_killed(cluster, "scoring"):
        assert run("score", "p", *SCORE, "--address", cluster.address).endswith(here.said)
    assert content(pool) == here.scored


def test_nodes_that_share_a_bucket_alone_write_what_one_process_writes_to_a_folder(
    cluster: Cluster, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(user)
    pool, source, url = work_in(user / "alone"), f"{BUCKET}/tars", f"{BUCKET}/p"
    run("build", "p", "--from", source, "--workers", 1)
    run("score", "p", *SCORE)

    with node_killed(cluster, "reading"):
        run("build", url, "--from", source, "--address", cluster.address)
    run("score", url, *SCORE, "--address", cluster.address)

    storage = Location(url)
    assert {name: storage.read(name) for name in storage.list()} == content(pool)
    left = [each.name for each in (user / "cache" / "written").rglob("*") if each.is_file()]
    assert left == [".lock"], "on the driver"
