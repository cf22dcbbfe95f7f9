"""Items of a task as jobs of a backend: shared out, repeated after a death, given up by name, ended early."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from runners.scheduling import pool_jobs
from runners.scheduling.backend import Ended, Job
from runners.scheduling.local_backend import LocalBackend
from runners.scheduling.pool_jobs import ClusterWorkers
from runners.scheduling.storage_check import Seen, StorageCheck
from runners.store.location import Location

pytestmark = pytest.mark.slow


class TwoNodes(LocalBackend):
    """Two nodes of a core each, which are processes of this machine."""

    def __init__(self) -> None:
        super().__init__({"a": {"cpus": 1.0}, "b": {"cpus": 1.0}}, modules=())
        self.jobs: list[Job] = []

    def start(self, job: Job) -> None:
        """Start a job and remember it."""
        if job.resources:  # no check of storage
            self.jobs.append(job)
        super().start(job)

    @property
    def batches(self) -> list[list[int]]:
        """The items of each job that was started."""
        return [list(job.run.args[1]) for job in self.jobs if isinstance(job.run, partial)]


@pytest.fixture
def nodes() -> Iterator[TwoNodes]:
    with TwoNodes() as backend:
        yield backend


def workers(backend: LocalBackend, folder: Path, *, limit: int | None = None) -> ClusterWorkers:
    check = StorageCheck(backend, Seen(written=Location(folder)))
    check.require()
    return ClusterWorkers(backend, check, {"cpus": 1.0}, limit=limit)


def process_of(_item: int) -> int:
    return os.getpid()


def test_batches_of_a_share_of_what_is_left_work_in_a_process_each(nodes: TwoNodes, tmp_path: Path) -> None:
    processes = dict(workers(nodes, tmp_path).map(process_of, range(16)))

    assert sorted(processes) == list(range(16))
    assert nodes.batches[:2] == [[0, 1, 2, 3], [4, 5, 6]]
    assert len(nodes.batches[-1]) == 1
    assert {job.nodes for job in nodes.jobs} == {("a",), ("b",)}
    assert [len({processes[item] for item in batch}) for batch in nodes.batches] == [1] * len(nodes.batches)


def test_no_more_workers_than_the_limit_work_at_once(nodes: TwoNodes, tmp_path: Path) -> None:
    began: list[str] = []

    def looked_at(start: Callable[[Job], None], job: Job) -> None:
        began.append(job.trial)
        start(job)

    nodes.start = partial(looked_at, nodes.start)  # type: ignore[method-assign]
    found = workers(nodes, tmp_path, limit=1)
    began.clear()
    for ended, _ in enumerate(found.map(process_of, range(2))):
        assert len(began) == ended + 1


def test_items_that_a_job_has_no_time_for_are_handed_back(
    nodes: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_jobs, "_BATCH_S", 0.0)

    found = list(workers(nodes, tmp_path).map(process_of, range(8)))

    assert sorted(item for item, _ in found) == list(range(8))
    assert len(nodes.jobs) == 8, "each has worked on one item of its batch"


def die_at_three(folder: Path, item: int) -> int:
    if item == 3 and not (folder / "died").exists():
        if folder.exists():
            (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_items_of_a_killed_process_are_repeated_alone(nodes: TwoNodes, tmp_path: Path) -> None:
    found = list(workers(nodes, tmp_path).map(partial(die_at_three, tmp_path), range(16)))

    assert sorted(found) == [(item, item) for item in range(16)]
    assert [0, 1, 2, 3] in nodes.batches
    assert all([item] in nodes.batches for item in range(4))


def test_item_that_kills_its_processes_is_named(nodes: TwoNodes, tmp_path: Path) -> None:
    killing = workers(nodes, tmp_path).map(
        partial(die_at_three, tmp_path / "none"), range(16), "item {}".format
    )
    with pytest.raises(
        ValueError, match=r"^the process that worked on item 3 was killed \d times, maybe because"
    ):
        list(killing)


def test_item_whose_nodes_die_is_repeated_until_one_lives(nodes: TwoNodes, tmp_path: Path) -> None:
    deaths = iter(range(5))
    wait = nodes.wait

    def with_deaths(timeout_s: float) -> list[Ended]:
        return [
            Ended(trial=each.trial, how="crashed", dead_nodes=("c",)) if is_item(each) else each
            for each in wait(timeout_s)
        ]

    def is_item(ended: Ended) -> bool:
        return ended.trial.startswith("parts") and next(deaths, None) is not None

    found = workers(nodes, tmp_path)
    nodes.wait = with_deaths  # type: ignore[method-assign]
    assert sorted(item for item, _ in found.map(process_of, range(2))) == [0, 1]
    assert len(nodes.jobs) > 5


def fail_at_five(error: Exception, item: int) -> int:
    if item == 5:
        raise error
    return item


def test_an_error_of_an_item_is_raised_as_it_is(nodes: TwoNodes, tmp_path: Path) -> None:
    failing = workers(nodes, tmp_path).map(partial(fail_at_five, KeyError("no such column")), range(8))
    with pytest.raises(KeyError, match="no such column"):
        list(failing)


def test_an_error_that_may_pass_is_raised_as_it_is_after_further_attempts(
    nodes: TwoNodes, tmp_path: Path
) -> None:
    done: list[tuple[int, int]] = []
    full = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left on device"):
        done.extend(workers(nodes, tmp_path).map(partial(fail_at_five, full), range(8)))
    assert sum(batch[0] == 5 or 5 in batch for batch in nodes.batches) >= 3


def note_and_sleep(folder: Path, item: int) -> int:
    if item:
        (folder / f"process-{os.getpid()}").touch()
        time.sleep(600)
    while not list(folder.glob("process-*")):
        time.sleep(0.01)
    return item


def test_nothing_runs_after_an_early_end(nodes: TwoNodes, tmp_path: Path) -> None:
    running = workers(nodes, tmp_path).map(partial(note_and_sleep, tmp_path), range(2))
    assert next(running) == (0, 0)

    running.close()  # type: ignore[attr-defined]  # a generator

    (asleep,) = tmp_path.glob("process-*")
    with pytest.raises(ProcessLookupError):
        os.kill(int(asleep.name.partition("-")[2]), 0)


def test_work_for_which_no_node_has_room_is_refused(nodes: TwoNodes, tmp_path: Path) -> None:
    check = StorageCheck(nodes, Seen(written=Location(tmp_path)))
    wide = ClusterWorkers(nodes, check, {"cpus": 2.0})
    with pytest.raises(
        ValueError, match=r"^no node has room for a worker of 2 cpus; nodes have: 2 × 1 cpus$"
    ):
        list(wide.map(process_of, range(1)))
