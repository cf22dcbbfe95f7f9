"""Runs trials as Ray Core tasks. It and `runners.tune` alone import Ray.

Ray places and watches the processes; which trial starts when is `runners.schedule`'s decision.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import ray.exceptions

from runners.trial import Outcome, TrialJob, run_trial

_OBJECT_STORE_BYTES = 100_000_000
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a task ended.

    Attributes:
        trial: The trial's id.
        how: ``finished`` with an outcome, ``failed`` by its own error, or ``crashed``: its worker died.
        outcome: The trial's result, when finished.
        reason: One line, otherwise.
    """

    trial: str
    how: Literal["finished", "failed", "crashed"]
    outcome: Outcome | None = None
    reason: str = ""


class RayBackend:
    """A connection to Ray; a local cluster is started unless an address is given.

    Args:
        cpus: Processor cores of one trial.
        gpus: GPUs of one trial.
        address: Address of a running cluster, or None for one on this machine that ends with the study.
    """

    def __init__(self, *, cpus: int, gpus: int, address: str | None = None) -> None:
        self._cpus, self._gpus = cpus, gpus
        # A worker must import this checkout, not an installed package of the same name.
        environment = {"env_vars": {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": str(cpus)}}
        local: dict[str, Any] = (
            {} if address else {"object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
        )
        ray.init(
            address=address or "local",
            runtime_env=environment,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **local,
        )
        # A fresh process a trial gives GPU memory back; on the processor, its imports would cost more.
        self._task = ray.remote(max_retries=0, max_calls=1 if gpus else 0)(run_trial).options(
            num_cpus=cpus, num_gpus=gpus
        )
        self._running: dict[Any, str] = {}

    @property
    def slots(self) -> int:
        """How many trials the cluster runs at once."""
        resources = ray.cluster_resources()
        by_cpu = int(resources.get("CPU", 0) // self._cpus)
        return min(by_cpu, int(resources.get("GPU", 0) // self._gpus)) if self._gpus else by_cpu

    def start(self, job: TrialJob) -> None:
        """Starts a trial; it runs when Ray has room."""
        self._running[self._task.remote(job)] = job.trial.trial_id

    def wait(self, timeout_s: float) -> list[Ended]:
        """Waits until a trial ends or the time is over.

        Returns:
            The trials that ended.
        """
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        return [self._end(reference) for reference in ready]

    def _end(self, reference: Any) -> Ended:  # noqa: ANN401 - Ray's references have no public type
        trial = self._running.pop(reference)
        try:
            return Ended(trial=trial, how="finished", outcome=ray.get(reference))
        except ray.exceptions.RayTaskError as error:
            return Ended(trial=trial, how="failed", reason=_one_line(error.cause))
        except ray.exceptions.RayError as error:
            return Ended(
                trial=trial, how="crashed", reason=f"{type(error).__name__}: the worker process died"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()


def _one_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
