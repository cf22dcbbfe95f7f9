"""All backends run, end, fail, crash and leave in the same way, each job in a fresh process."""

import atexit
import gc
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from ray import get_runtime_context

from budgets.machine_cache import CACHE
from runners.data.reading import training_set
from runners.data.reading.training_set import StreamedSet
from runners.host.faults import Left, format_error
from runners.host.process import Exit
from runners.scheduling import local_backend
from runners.scheduling.backend import Backend, Ended, Job
from runners.scheduling.cluster import LiveCluster
from runners.scheduling.instructions import ScheduledTrial, Start
from runners.scheduling.local_backend import LocalBackend
from runners.scheduling.ray_backend import address
from runners.scheduling.ray_backend.core import RayBackend
from runners.scheduling.ray_backend.ray_private import started_node
from runners.scheduling.ray_backend.tasks import run_in_fresh_process
from runners.scheduling.ray_backend.tune import TuneBackend
from runners.scheduling.schedule import Schedule
from runners.scheduling.storage_check import Seen, StorageCheck
from runners.store.location import Location
from runners.training.ranks import gather_objects, run_ranks
from runners.trials.trial_evaluation import EvaluationData
from runners.trials.trial_setup import load_subset
from tests.root import ROOT
from tests.runners.scheduling import jobs
from tests.runners.scheduling.simulated import client_of_head, rays_environment
from tests.runners.tiny import tiny_job, tiny_trial
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

OPEN = {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
"""Settings of a user whose Ray anybody may use."""

WITH_RAY = pytest.param("Ray", marks=pytest.mark.ray)


@pytest.fixture(scope="module")
def ray() -> Iterator[RayBackend]:
    # A driver started with `&` in a shell script ignores SIGINT, and so does all that it starts.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with rays_environment(OPEN), RayBackend(modules=()) as running:  # the jobs need none
        signal.signal(signal.SIGINT, before)
        node = started_node()
        assert node is not None
        session = Path(node.get_session_dir_path())
        assert session.exists()
        yield running
    assert not session.exists(), "some 60 files a run"


@pytest.fixture(scope="module", params=["local", WITH_RAY, pytest.param("Ray Tune", marks=pytest.mark.ray)])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "Ray":
        yield request.getfixturevalue("ray")
        return
    # The server of local processes is that of the trials of later tests, which need modules.
    local = request.param == "local"
    with LocalBackend() if local else TuneBackend(request.getfixturevalue("ray")) as running:
        yield running


def start(backend: Backend, run: Callable[[], object], trial: str = "trial") -> None:
    node = next(iter(backend.nodes()))
    backend.start(Job(trial=trial, run=run, nodes=(node,), resources={"cpus": 1, "gpus": 0}))


def wait(backend: Backend, count: int = 1) -> list[Ended]:
    ended: list[Ended] = []
    deadline = time.monotonic() + 240
    while len(ended) < count:
        assert time.monotonic() < deadline, "waited in vain"
        ended += backend.wait(1)
    return ended


def began(folder: Path) -> int:
    wait_for(lambda: list(folder.glob("began-*")), seconds=240)
    (file,) = folder.glob("began-*")
    return int(file.name.removeprefix("began-"))


def test_a_job_finishes_in_a_process_of_its_own(backend: Backend) -> None:
    pids = []
    for _ in range(2):
        start(backend, jobs.process_id)
        (ended,) = wait(backend)
        assert (ended.trial, ended.how, ended.reason) == ("trial", "finished", "")
        pids.append(ended.value)
    assert len({*pids, os.getpid()}) == 3


def test_local_jobs_get_the_gpus_that_the_driver_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-3f2a,7,-1,2")
    monkeypatch.setattr(local_backend, "_GPU_DRIVERS", (Path("/"),))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)  # as CUDA counts: up to the invalid name
    with LocalBackend(modules=()) as backend:
        (node,) = backend.nodes()
        assert backend.nodes()[node]["gpus"] == 3
        for trial, gpus in (("two", 2), ("one", 1), ("none", 0)):
            job = Job(trial=trial, run=jobs.gpus, nodes=(node,), resources={"cpus": 1, "gpus": gpus})
            backend.start(job)
        backend.start(Job(trial="check of a node", run=jobs.gpus, nodes=(node,), resources={}))
        found = [f"{end.trial} {end.value}" for end in wait(backend, 4)]

    assert sorted(found) == ["check of a node 5,GPU-3f2a,7,-1,2", "none ", "one 7", "two 5,GPU-3f2a"]


def test_the_projects_packages_resolve_inside_the_checkout(backend: Backend) -> None:
    start(backend, jobs.origins)
    (ended,) = wait(backend)
    assert ended.value == {name: str(ROOT / name / "__init__.py") for name in jobs.PACKAGES}


@pytest.mark.parametrize(
    ("run", "how", "reason"),
    [
        *(
            (partial(jobs.raise_this, error), how, format_error(error))
            for error, how in (
                (ValueError("no such\nkey"), "failed"), (OSError("full"), "crashed"), (Left(), "left")
            )
        ),
        (jobs.die, "crashed", "the trial's process died by SIGKILL"),
    ],
)  # fmt: skip
def test_job_that_raises_or_dies_ends_with_fault_and_one_line_reason(
    backend: Backend, run: Callable[[], object], how: str, reason: str
) -> None:
    start(backend, run)
    (ended,) = wait(backend)
    assert (ended.how, ended.reason, ended.dead_nodes) == (how, reason, ())
    assert "\n" not in ended.reason


def test_wait_returns_at_its_timeout(backend: Backend, tmp_path: Path) -> None:
    start(backend, partial(jobs.sleep, tmp_path), "long")
    start(backend, jobs.process_id, "short")
    (ended,) = wait(backend)
    assert ended.trial == "short"
    before = time.monotonic()
    assert backend.wait(0.1) == []
    assert 0.09 < time.monotonic() - before < 5
    os.kill(began(tmp_path), 9)
    assert [each.trial for each in wait(backend)] == ["long"]


def test_job_asked_to_leave_ends_with_its_own_result(backend: Backend, tmp_path: Path) -> None:
    requests = 1 if isinstance(backend, LocalBackend) else 2  # Ray's is repeated meanwhile
    start(backend, partial(jobs.leave_politely, tmp_path, requests))
    began(tmp_path)
    backend.ask_to_leave("trial")
    (ended,) = wait(backend)
    assert ended.how == "finished"
    assert isinstance(ended.value, int)
    assert ended.value >= requests


def test_job_that_hangs_is_a_crash_that_says_where(backend: Backend, tmp_path: Path) -> None:
    start(backend, partial(jobs.hang, tmp_path))
    (ended,) = wait(backend)
    assert ended.how == "crashed"
    assert re.search(r"^hung on .* in its set-up for \d+ s, stopped by a signal", ended.reason)


def test_job_that_is_stopped_is_ended_at_once(backend: Backend, tmp_path: Path) -> None:
    start(backend, partial(jobs.sleep, tmp_path))
    stopped = began(tmp_path)
    os.kill(stopped, signal.SIGSTOP)
    backend.ask_to_leave("trial", at_once=True)
    (ended,) = wait(backend)
    assert ended.how in {"left", "crashed"}


def test_job_asked_to_leave_before_it_began_has_left(backend: Backend, tmp_path: Path) -> None:
    start(backend, partial(jobs.leave_politely, tmp_path))
    backend.ask_to_leave("trial")
    (ended,) = wait(backend)
    # Ray may have begun it before the request arrives: then it leaves by itself.
    began_first = (ended.how, bool(ended.value)) == ("finished", True)
    assert began_first or (ended.how, ended.reason) == ("left", "asked to leave before it began")


@pytest.mark.ray
def test_lost_request_to_leave_is_repeated(
    ray: RayBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import remote  # noqa: PLC0415 - after the backend has set what Ray reads

    def begin_late(run: bytes, modules: tuple[str, ...]) -> Exit:
        jobs.sleep(tmp_path, 2.5)  # as while the worker still imports
        return run_in_fresh_process(run, modules)  # the delay is over: run as usual

    monkeypatch.setattr(ray, "_task", remote(max_retries=0)(begin_late))
    start(ray, partial(time.sleep, 60))
    began(tmp_path)
    ray.ask_to_leave("trial")
    (ended,) = wait(ray)
    assert ended.how == "left", ended


@pytest.mark.ray
def test_local_ray_listens_on_loopback_only_and_requires_its_token(ray: RayBackend) -> None:
    start(ray, jobs.process_id)  # in a worker, which listens, too
    wait(ray)

    found = set(listening())

    assert {"gcs_server", "raylet"} < {process for process, _ in found}
    assert {address for _, address in found} <= {"127.0.0.1", "::ffff:127.0.0.1"}, found
    ask = [*address._ASK, ray._head]  # noqa: SLF001 - as the backend asks a cluster
    known, unknown = (
        subprocess.run(ask, env={**os.environ, "RAY_AUTH_MODE": mode}, capture_output=True, check=False)
        for mode in ("token", "disabled")
    )
    assert (known.returncode, known.stdout) == (0, b"127.0.0.1\n")
    assert unknown.returncode != 0, "one who does not know the token"


def listening() -> Iterator[tuple[str, str]]:
    """Yield the names and addresses of this process and its children that accept connections."""
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415 - Ray brings it along

    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    yield process.name(), connection.laddr.ip


class OfThisProcess:
    """A client of Ray's, whose end in a forked process is that process's end: always, not only by chance.

    Ray's walks through threads of its own, of which a forked process has only the stacks, for a while.
    """

    def __init__(self, address: str) -> None:
        self._client, self._process = client_of_head(address), os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self._process:
            os.kill(os.getpid(), signal.SIGSEGV)


def _hold(_client: OfThisProcess) -> None:
    """Do nothing at exit."""


@pytest.fixture
def _clients(ray: RayBackend) -> Iterator[None]:
    """Have an exit handler hold a client, as Ray does, and nothing but its own cycle another one."""
    assert ray.nodes()
    gc.collect()
    gc.disable()
    address = get_runtime_context().gcs_address
    garbage: list[object] = [OfThisProcess(address)]
    garbage.append(garbage)
    del garbage
    atexit.register(_hold, OfThisProcess(address))
    yield
    atexit.unregister(_hold)
    gc.enable()


@pytest.mark.ray
@pytest.mark.usefixtures("_clients")
def test_a_hundred_children_of_a_process_that_uses_ray_finish(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_set, "IN_MEMORY_BYTES", 0)
    job = replace(tiny_job(tiny_trial(), pool, tmp_path / "trial"), gpus=1, cpus=2)
    for number in range(12):
        assert run_ranks(partial(gather_objects, number), count=6, gpus=False) == [number] * 6

        monkeypatch.setenv(CACHE, str(tmp_path / f"cache-{number}"))
        sets = EvaluationData(job)
        with sets.decoding():
            while not sets.readers["held-out"].is_filled():
                sets.check()
                time.sleep(0.01)

        data, _ = load_subset(job)
        assert isinstance(data, StreamedSet)
        assert data.workers == 2
        batches = data.batches(seed=1, batch_size=16, first_step=0, steps=2)
        assert [len(batch.ids) for batch in batches] == [16, 16]


def test_slots_are_counted_and_a_trial_wider_than_every_node_is_refused(backend: Backend) -> None:
    cores = max(int(has["cpus"]) for has in backend.nodes().values())
    schedule = Schedule([ScheduledTrial(trial="x", predicted_s=1, resources={"cpus": 1})], retries=0)
    cluster = LiveCluster(backend, schedule, patience_s=0)
    cluster.look()
    assert cluster.slots == cores
    assert schedule.instructions(None) == [Start(trial="x", nodes=tuple(backend.nodes()))]

    needs = {"cpus": 999, "licence": 1}
    wide = Schedule([ScheduledTrial(trial="x", predicted_s=1, resources=needs)], retries=0)
    for patience_s in (None, 0):
        cluster = LiveCluster(backend, wide, patience_s=patience_s, what="part", advice="Take less")
        message = f"a part of 999 cpus, 1 licence; nodes have: {cores} cpus. Take less"
        with pytest.raises(ValueError, match=message):
            cluster.look()


# Ray's own tasks ask the nodes of a tuning.
@pytest.mark.parametrize("backend", ["local", WITH_RAY], indirect=True)
def test_every_node_is_checked_for_access_to_the_storage(backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()

    StorageCheck(backend, Seen(written=Location(tmp_path), read=(tmp_path / "pool",))).require()

    folders = Seen(written=Location(tmp_path), read=(tmp_path / "pool", tmp_path / "elsewhere"))
    with pytest.raises(ValueError, match=f"node .+ {tmp_path / 'elsewhere'}, .* storage:"):
        StorageCheck(backend, folders).require()
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    script = (
        "import sys; from functools import partial; from pathlib import Path;"
        "from tests.runners.scheduling import jobs;"
        "from runners.scheduling.backend import Job;"
        "from runners.scheduling.local_backend import LocalBackend;"
        "backend = LocalBackend(modules=()); sleep = partial(jobs.sleep, Path(sys.argv[1]));"
        "backend.start(Job(trial='x', run=sleep, nodes=(), resources={})); backend.wait(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], cwd=ROOT) as driver:
        pid = began(tmp_path)
        driver.kill()
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), seconds=60)
