"""Backend that runs trials as Ray Core tasks, on a cluster or on this machine.

Ray lists the nodes, sends a trial to one and supervises it; `runners.scheduling.schedule` decides which trial
starts when and where. Each trial is a Ray Core task that runs it in a process of its own.
"""

import logging
import math
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

import ray
import ray.exceptions
from ray.autoscaler.sdk import request_resources

from runners.host.faults import format_error, shielded
from runners.host.process import TRIAL_MODULES
from runners.scheduling.backend import ClusterLostError, Ended, Job, ended_by
from runners.scheduling.nodes import Amounts
from runners.scheduling.ray_backend.address import (
    accepts_connections,
    guard_token,
    on_loopback,
    require_cluster,
)
from runners.scheduling.ray_backend.ray_private import (
    LOOPBACK_ONLY,
    StartedNode,
    forget_started_node,
    never_shut_down,
    raylets,
    read_environment_again,
    started_node,
)
from runners.scheduling.ray_backend.tasks import (
    ASK_AGAIN_S,
    NAMES,
    by_rays_names,
    end_of_task,
    on_node,
    run_in_fresh_process,
    run_over_nodes,
)

_OBJECT_STORE_BYTES = 100_000_000
_ROOT = Path(__file__).resolve().parents[3]
_NO_RESOURCE = ("node:", "memory", "object_store_memory")
_LOCAL_S, _HEAD_S = 3.0, 45.0  # time in which a head must answer; one on a cluster may be restarted
_LOOK_S = 0.25  # at the port of a head that was asked, or at processes that start
_LARGEST_DEMAND = 256

T = TypeVar("T")


class RayBackend:
    """A connection to Ray, whose workers have an ``environment`` and import ``modules`` before a job starts.

    Without an address it starts a cluster on this machine that ends with the study and listens only on
    loopback. ``lost`` is True if the cluster has died.

    Raises:
        ValueError: No cluster answers at the address.
    """

    binds = True

    def __init__(
        self,
        address: str | None = None,
        *,
        modules: Sequence[str] = TRIAL_MODULES,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.address, self.modules = address, tuple(modules)
        local: dict[str, Any] = {}
        if address is None or on_loopback(require_cluster(address)):
            # As Ray does on a desktop: every port of the cluster is bound to loopback. With a head on
            # loopback this process must be there, too: Ray would look for the head at this machine's address.
            os.environ.update(LOOPBACK_ONLY)
        if address is None:
            # Independent of the user's settings: no other user of this machine may send work to this cluster.
            os.environ["RAY_AUTH_MODE"] = "token"
            # Trials get the priority that they have without Ray, whose workers give way to all others.
            os.environ.setdefault("RAY_worker_niceness", "0")
            local = {"object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
        read_environment_again()
        guard_token()
        workers = {
            "PYTHONPATH": _python_path(),
            "OMP_NUM_THREADS": "1",
            # Earlier versions of Ray hide all GPUs from a task that takes none, such as the check of a node.
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            **environment,
        }
        # On this machine workers inherit these: Ray prestarts no worker with a runtime environment.
        self.lost = False
        start = partial(
            ray.init,
            address=address or "local",
            runtime_env={"env_vars": workers} if address else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **local,
        )
        with shielded(), _environment({} if address else workers):  # Ray's daemons, and their workers
            self._start(start)
        guard_token()  # it may be new
        self._head: str = ray.get_runtime_context().gcs_address
        # One name for all tasks: Ray keeps 22 KiB of metrics per name until it ends.
        task = partial(ray.remote, max_retries=0, name="trial")
        self._task = task()(run_in_fresh_process)
        # On the driver's node: no other node's death ends it. The tasks of its nodes hold its resources.
        drivers_node = on_node(ray.get_runtime_context().get_node_id(), {})
        self._wide_task = task(**drivers_node)(run_over_nodes)
        self._running: dict[Any, Job] = {}
        self._asked_at: dict[Any, float] = {}
        # None: the cluster may still have the request of a driver that died.
        self._announced: list[dict[str, float]] | None = None

    @property
    def name(self) -> str:
        """Description for the user."""
        if self.address is None:
            return "Ray on this machine"
        mode = os.environ["RAY_AUTH_MODE"]
        open_to_all = "" if mode == "token" else f", without its token (RAY_AUTH_MODE={mode})"
        return f"Ray cluster at {self.address}{open_to_all}"

    def nodes(self) -> dict[str, Amounts]:
        """Return the nodes that Ray considers alive: id → resources; without a head that offers no cores.

        Raises:
            ClusterLostError: The head no longer answers, or the Ray of this machine has no node left.
        """
        # Ray notices some ten seconds later, and ends this process as soon as it needs its raylet.
        node = self._own_node
        if node is not None and any(raylet.process.poll() is not None for raylet in raylets(node)):
            raise self._died("its raylet has ended")
        nodes = self._ask_head(self._alive)
        if self.address is None and not nodes:
            raise self._died("no node is left")
        return nodes

    @property
    def _own_node(self) -> StartedNode | None:
        """The node of the Ray that this process has started; None on a cluster."""
        return started_node() if self.address is None else None

    def _start(self, start: Callable[[], object]) -> None:
        trouble = partial(self._silence, self.address) if self.address else _Daemons().trouble
        try:
            self._answer(start, trouble, lasting=True)
        except ClusterLostError:
            raise
        except Exception as error:  # noqa: BLE001 - Ray's are of any kind
            why = format_error(error)
            if "ersion mismatch" in str(error):
                raise ValueError(f"the Ray cluster at {self.address} can't be used: {why}") from None
            raise self._died(f"it did not start ({why})") from None

    def _ask_head(self, question: Callable[[], T]) -> T:
        """Return the head's answer to a question of Ray's."""
        until = time.monotonic() + _HEAD_S
        return self._answer(question, lambda: self._silence(self._head, until))

    def _silence(self, head: str, until: float = math.inf) -> str:
        """Return that the head does not answer, or nothing if its port does."""
        patience_s = _LOCAL_S if self.address is None else _HEAD_S
        answers = time.monotonic() < until and accepts_connections(head, patience_s=patience_s)
        return "" if answers else f"no answer from {head}"

    def _answer(self, question: Callable[[], T], trouble: Callable[[], str], *, lasting: bool = False) -> T:
        """Return the answer to a question of Ray's, or raise ClusterLostError once there is ``trouble``.

        Ray itself would wait a minute for a head that has died, and then end this process. The processes that
        a question starts are killed when its thread ends, which therefore may be ``lasting``.
        """
        answer = Future[T]()

        def ask() -> None:
            try:
                answer.set_result(question())
            except Exception as error:  # noqa: BLE001 - raised below
                answer.set_exception(error)
            if lasting:
                threading.Event().wait()

        asking = threading.Thread(target=ask, daemon=True)
        while not (why := trouble()):
            if asking.ident is None:
                asking.start()
            wait([answer], _LOOK_S)
            if answer.done():
                return answer.result()
        raise self._died(why)

    def _died(self, why: str) -> ClusterLostError:
        self.lost = True
        where = "on this machine" if self.address is None else f"cluster at {self.address}"
        return ClusterLostError(f"the Ray {where} has died: {why}", own=self.address is None)

    def _alive(self) -> dict[str, Amounts]:
        return {
            node["NodeID"]: {
                NAMES.get(name, name): amount
                for name, amount in node["Resources"].items()
                if not name.startswith(_NO_RESOURCE)
            }
            for node in ray.nodes()
            if node["Alive"] and any(map(node["Resources"].get, NAMES))
        }

    def start(self, job: Job) -> None:
        """Start a job on its nodes."""
        amounts = by_rays_names(job.resources)
        run = pickle.dumps(job.run)
        if len(job.nodes) > 1:
            reference = self._wide_task.remote(run, job.nodes, job.ranks, amounts, self.modules)
        else:
            reference = self._task.options(**on_node(job.nodes[0], amounts)).remote(run, self.modules)
        self._running[reference] = job

    def nodes_named(self, name: str) -> set[str]:
        """Return the ids of the nodes with a host's name, an address, or an id."""
        keys = "NodeID", "NodeName", "NodeManagerHostname", "NodeManagerAddress"
        return {node["NodeID"] for node in self._ask_head(ray.nodes) if name in map(node.get, keys)}

    def ask_to_leave(self, trial: str, *, at_once: bool = False) -> None:
        """Send SIGTERM to a running job, or end it ``at_once``."""
        for reference, job in self._running.items():
            if job.trial == trial:
                self._ask(reference, force=at_once)

    def wait(self, timeout_s: float) -> list[Ended]:
        """Wait until a job ends or the time is over; returns the jobs that ended."""
        for reference, at in list(self._asked_at.items()):
            if time.monotonic() - at > ASK_AGAIN_S:
                self._ask(reference)
        # ray.wait needs at least one reference.
        if not self._running:
            threading.Event().wait(timeout_s)
            return []
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        if ready:  # also return all others that are ready by now
            ready, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._end(reference) for reference in ready]

    def announce(self, waiting: Sequence[tuple[Amounts, int]]) -> None:
        """Request room for waiting and running trials from an autoscaler, which ignores node-bound tasks."""
        if self.address is None:
            return
        wanted = [
            by_rays_names(resources) for resources, count in waiting[:_LARGEST_DEMAND] for _ in range(count)
        ]
        if wanted != self._announced:
            self._announced = wanted
            self._ask_head(partial(request_resources, bundles=wanted))

    def _ask(self, reference: Any, *, force: bool = False) -> None:  # noqa: ANN401 - Ray's references have no public type
        """Let Ray interrupt a task; repeated, because an interrupt before the task listens is lost."""
        self._asked_at[reference] = math.inf if force else time.monotonic()
        ray.cancel(reference, force=force, recursive=force)

    def _end(self, reference: Any) -> Ended:  # noqa: ANN401 - Ray's references have no public type
        job = self._running.pop(reference)
        self._asked_at.pop(reference, None)
        end, lost = end_of_task(reference)
        return replace(ended_by(job.trial, end), dead_nodes=job.nodes if lost else ())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        node = self._own_node
        try:
            if self.lost:
                never_shut_down()
                return
            if self._announced:
                self.announce([])
            if node is not None:
                node.destroy_external_storage()
                forget_started_node()
            ray.shutdown()
        finally:
            if node is not None:
                kill_node(node)
                if not (self.lost or any(error)):  # else its logs may tell why
                    shutil.rmtree(node.get_session_dir_path(), ignore_errors=True)


class _Daemons:
    """Head and raylet of the Ray that this process starts now."""

    def __init__(self) -> None:
        self._began, self._seen = time.time(), set[int]()

    def trouble(self) -> str:
        """Return that one of them has ended, or nothing."""
        import psutil  # type: ignore[import-untyped]  # noqa: PLC0415 - Ray brings it along

        alive, ended = set[int](), False
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                if child.name() in {"gcs_server", "raylet"} and child.create_time() >= self._began - 1:
                    alive.add(child.pid)
                    ended |= child.status() == psutil.STATUS_ZOMBIE
        ended, self._seen = ended or bool(self._seen - alive), alive
        return "one of its processes ended while it started" if ended else ""


def kill_node(node: StartedNode) -> None:
    """Kill the processes of a node and all that its raylet has started.

    Ray kills only the former; its agents would notice that the raylet is gone a minute later.
    """
    import psutil  # noqa: PLC0415 - as above

    started: list[Any] = []
    with suppress(psutil.NoSuchProcess):
        started = [
            process
            for raylet in raylets(node)
            for process in psutil.Process(raylet.process.pid).children(recursive=True)
        ]
    node.kill_all_processes(check_alive=False, allow_graceful=False)
    for process in started:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Context manager: processes that start inside it get these environment variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def _python_path() -> str:
    """Return the search path of workers: this checkout before an installed package, then the driver's own."""
    return os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
