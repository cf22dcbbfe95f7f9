"""Backend that runs jobs as trials of a Ray Tune experiment, used for a study's tuning.

Tune's search algorithm suggests whatever `runners.scheduling.schedule` starts, so order, retries and budget
are the same as for the grid. Tune itself would retry diverged trials, at once and after all others. The state
of the experiment is not kept: restoring it would start finished trials again and accept no new ones. The
trials' folders record what is done.
"""

import logging
import os
import pickle
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

import fsspec
import ray
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.search import Searcher

from runners.host.faults import format_error
from runners.host.process import Exit, FreshProcess, load_ahead
from runners.scheduling.backend import Ended, Job, ended_by
from runners.scheduling.nodes import Amounts
from runners.scheduling.ray_backend.core import RayBackend
from runners.scheduling.ray_backend.tasks import (
    ASK_AGAIN_S,
    Call,
    JobStore,
    OverNodes,
    by_rays_names,
    on_node,
)

_LOOK_S = 0.5
_IDLE_S = 1.0  # as long as Tune sleeps when nothing is suggested and nothing runs


class TuneBackend:
    """A Ray Tune experiment on a connection's cluster, which ends with this context."""

    binds = False  # if a node is gone, Tune's placement groups choose another

    def __init__(self, connection: RayBackend) -> None:
        self._connection = connection
        drivers_node = on_node(ray.get_runtime_context().get_node_id(), {})
        self._job_store: Any = ray.remote(JobStore).options(**drivers_node).remote()
        self._ended: SimpleQueue[Ended] = SimpleQueue()
        self._search, self._over = _Search(), threading.Event()
        self._error: BaseException | None = None
        # Not in the main thread: there, Tune would handle SIGUSR1, a request to leave, by dropping all
        # trials.
        self._thread = threading.Thread(target=self._fit, daemon=True)

    @property
    def name(self) -> str:
        """Description for the user."""
        return self._connection.name

    def nodes(self) -> dict[str, Amounts]:
        """Return the cluster's nodes: id → resources."""
        return self._connection.nodes()

    def start(self, job: Job) -> None:
        """Make Tune run a job next."""
        ray.get(self._job_store.put.remote(job.trial, pickle.dumps(job.run)))
        self._search.jobs.put(job)

    def nodes_named(self, name: str) -> set[str]:
        """Return the ids of the nodes with a host's name, an address, or an id."""
        return self._connection.nodes_named(name)

    def ask_to_leave(self, trial: str, *, at_once: bool = False) -> None:
        """Send SIGTERM to a running job's process, or end it ``at_once``."""
        self._job_store.ask.remote(trial, at_once)

    def wait(self, timeout_s: float) -> list[Ended]:
        """Wait until a job ends or the time is over; returns the jobs that ended."""
        ended = []
        try:
            ended.append(self._ended.get(timeout=timeout_s))
            while True:
                ended.append(self._ended.get_nowait())
        except Empty:
            pass
        if self._error is not None:
            self._connection.nodes()  # raises ClusterLostError if Ray itself has died
            raise self._error
        return [*ended, *self._connection.wait(0)]  # jobs of the connection: storage checks on new nodes

    def announce(self, waiting: Sequence[tuple[Amounts, int]]) -> None:
        """Request room for waiting and running trials from an autoscaling cluster."""
        self._connection.announce(waiting)

    def _fit(self) -> None:
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # `wait` raises the errors
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one prints tables, whatever its verbosity
        train = tune.with_parameters(_train, job_store=self._job_store, modules=self._connection.modules)
        trainable = tune.with_resources(train, _placement)
        try:
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=self._search,
                    num_samples=-1,
                    reuse_actors=True,  # each job has a process of its own
                    trial_name_creator=_name,
                    trial_dirname_creator=_name,
                ),
                run_config=tune.RunConfig(
                    # In memory, each process its own: a killed driver leaves nothing behind.
                    storage_path="tune",
                    storage_filesystem=PyFileSystem(FSSpecHandler(fsspec.filesystem("memory"))),
                    verbose=0,
                    stop=_Over(self._over),
                    callbacks=[_Ends(self._ended)],
                ),
            ).fit()
        except BaseException as error:  # noqa: BLE001 - raised by `wait`
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._connection.lost:  # Tune's thread and the job store wait for a head that is gone
            return
        self._over.set()
        self._search.jobs.put(None)
        self._thread.join()
        ray.kill(self._job_store)


class _Here:
    """Base class of objects that Tune pickles for a restore that never happens; they stay in this process."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


class _Search(_Here, Searcher):
    """Search algorithm that suggests the schedule's jobs; None in ``jobs`` means that no more will come."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._running = 0

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401, ARG002 - Tune's signature
        try:
            job = self.jobs.get(timeout=0 if self._running else _IDLE_S)
        except Empty:
            return None
        if job is None:
            return Searcher.FINISHED
        self._running += 1
        return {
            "trial": job.trial,
            "nodes": job.nodes,
            "ranks": job.ranks,
            "resources": by_rays_names(job.resources),
        }

    def on_trial_complete(self, trial_id: str, result: object = None, error: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        self._running -= 1

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


class _Over(_Here, tune.Stopper):
    """Stopper that ends the experiment and all its running trials."""

    def __init__(self, over: threading.Event) -> None:
        self._over = over

    def __call__(self, trial_id: str, result: object) -> bool:  # noqa: ARG002
        return False

    def stop_all(self) -> bool:
        return self._over.is_set()


class _Ends(_Here, tune.Callback):
    """Callback that forwards the ends of trials."""

    def __init__(self, ended: SimpleQueue[Ended]) -> None:
        self._ended = ended

    def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: Any, **_info: object) -> None:  # noqa: ANN401, ARG002
        end = trial.last_result
        if "how" in end:  # otherwise it was stopped at the end of the experiment
            exit_ = Exit(how=end["how"], reason=end["reason"], pickled=end["pickled"])
            self._ended.put(ended_by(trial.config["trial"], exit_))

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **_info: object) -> None:  # noqa: ANN401, ARG002
        self._ended.put(Ended(trial=trial.config["trial"], how="crashed", reason=_reason(trial)))


def _reason(trial: Any) -> str:  # noqa: ANN401 - Tune's trials have no public type
    # `get_pickled_error` reads Tune's storage, where the file arrives later.
    if trial.pickled_error_file is None:
        return "its worker died"
    error = pickle.loads(Path(trial.pickled_error_file).read_bytes())  # noqa: S301 - our own data
    if isinstance(error, RayTaskError):
        return format_error(error.cause)
    return f"its worker died ({type(error).__name__})"


def _name(trial: Any) -> str:  # noqa: ANN401 - as above
    name: str = trial.trial_id
    return name


def _placement(config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
    if len(config["nodes"]) > 1:  # the ranks hold the resources, but a group must not be empty
        return tune.PlacementGroupFactory([{"memory": 1}])
    # Prefer the node chosen by the schedule; use another if it is gone.
    return tune.PlacementGroupFactory(
        [{"memory": 1, **config["resources"]}], "STRICT_PACK", _soft_target_node_id=config["nodes"][0]
    )


def _train(config: Mapping[str, Any], job_store: Any, modules: Sequence[str]) -> dict[str, object]:  # noqa: ANN401 - a handle of `JobStore`
    trial = config["trial"]
    run = ray.get(job_store.take.remote(trial))
    if ray.get(job_store.asked.remote(trial)):
        return asdict(Exit(how="left", reason="asked to leave before it began"))
    process, asked_at = _start(run, config, modules), -inf
    while not process.ended(_LOOK_S):
        if time.monotonic() - asked_at > ASK_AGAIN_S and (asked := ray.get(job_store.asked.remote(trial))):
            if asked == "at once":
                os._exit(1)  # the process ends with this one
            asked_at = time.monotonic()
            process.ask_to_leave()
    return asdict(process.wait())


def _start(run: bytes, config: Mapping[str, Any], modules: Sequence[str]) -> Call:
    if len(config["nodes"]) == 1:
        load_ahead(*modules, "ray")
        return FreshProcess(run)  # a process beside Tune's worker, which imports no torch
    return OverNodes(
        run, nodes=config["nodes"], ranks_per_node=config["ranks"], resources=config["resources"],
        modules=modules,
    )  # fmt: skip
