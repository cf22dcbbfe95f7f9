"""Backend that runs trials as processes of this machine, without Ray, for tests and debugging."""

import os
import pickle
import socket
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Self

from runners.host.process import TRIAL_MODULES, FreshProcess, kill_all, load_ahead
from runners.host.workers import VISIBLE_DEVICES, usable_cores
from runners.scheduling.backend import Ended, Job, ended_by
from runners.scheduling.nodes import Amounts

# Files of the drivers of NVIDIA, of AMD, and of both under Windows; without one, torch finds no GPU.
_GPU_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))


class LocalBackend:
    """Processes of this machine, which import some modules before a job starts.

    ``nodes`` are simulated: id → resources; by default this machine is one node.
    """

    binds = True

    def __init__(
        self, nodes: Mapping[str, Amounts] | None = None, *, modules: Sequence[str] = TRIAL_MODULES
    ) -> None:
        machine = {"cpus": float(usable_cores()), "gpus": float(len(gpu_names()))}
        self._nodes: dict[str, Amounts] = dict(nodes or {"this machine": machine})
        self._running: dict[Connection, tuple[Job, FreshProcess, list[str]]] = {}
        self._free_gpus = gpu_names()
        load_ahead(*modules)

    @property
    def name(self) -> str:
        """Description for the user."""
        return "processes of this machine, without Ray"

    def nodes(self) -> dict[str, Amounts]:
        """Return the nodes: id → resources."""
        return self._nodes

    def start(self, job: Job) -> None:
        """Start a job's process, which sees only its own GPUs; a check, which declares none, sees all."""
        if len(job.nodes) > 1:
            raise ValueError("resources.nodes: a trial over several nodes needs Ray")
        count = int(job.resources.get("gpus", 0))
        gpus, self._free_gpus = self._free_gpus[:count], self._free_gpus[count:]
        visible = {VISIBLE_DEVICES: ",".join(gpus)} if "gpus" in job.resources else {}
        process = FreshProcess(pickle.dumps(job.run), {**os.environ, **visible})
        self._running[process.connection] = job, process, gpus

    def nodes_named(self, name: str) -> set[str]:
        """Return the ids of the nodes with a host's name, an address, or an id."""
        return {node for node in self._nodes if name in {node, socket.gethostname()}}

    def ask_to_leave(self, trial: str, *, at_once: bool = False) -> None:
        """Send SIGTERM to a running job, or end it ``at_once``."""
        for job, process, _ in self._running.values():
            if job.trial == trial:
                (process.kill if at_once else process.ask_to_leave)()

    def wait(self, timeout_s: float) -> list[Ended]:
        """Wait until a job ends or the time is over; returns the jobs that ended."""
        ended = []
        for connection in wait(list(self._running), timeout_s):
            assert isinstance(connection, Connection)
            job, process, gpus = self._running.pop(connection)
            self._free_gpus += gpus
            ended.append(ended_by(job.trial, process.wait()))
        return ended

    def announce(self, waiting: Sequence[tuple[Amounts, int]]) -> None:
        """Do nothing: one machine does not grow."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        kill_all([process for _, process, _ in self._running.values()])


def gpu_names() -> list[str]:
    """Return the GPUs of this process named as in ``CUDA_VISIBLE_DEVICES``: a number, GPU-… or MIG-…."""
    if not any(driver.exists() for driver in _GPU_DRIVERS):
        return []
    import torch  # noqa: PLC0415 - takes seconds, which a driver on CPUs need not wait

    visible = os.environ.get(VISIBLE_DEVICES)
    count = torch.cuda.device_count()
    # CUDA ignores everything from the first invalid name on, so the valid ones come first.
    return [str(number) for number in range(count)] if visible is None else visible.split(",")[:count]
