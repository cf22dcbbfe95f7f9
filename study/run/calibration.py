"""Calibration: samples/s and memory of each kind of trial, measured on this machine.

The result is ``throughput.json`` in the study's folder. ``plan`` uses it for prices, ``run`` to order trials.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import torch

from budgets.declaration.declaration import require_runnable
from budgets.declaration.rules import ResourceRule
from budgets.devices import find_device
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from budgets.planning.resources import estimated_memory
from budgets.quantity import plural
from runners.host.workers import usable_cores
from runners.scheduling.local_backend import LocalBackend
from runners.trials.throughput import Calibration, Throughput
from study.run.prepare_data import ensure_pools
from study.run.try_kinds import try_kinds
from study.show.terminal import table_lines
from study.state.environment import environment
from study.state.plan_study import plan_study
from study.state.study import Study

_START_S = 2.0  # start of a process: load the data, build the model, first steps


def calibrate_study(study: Study, *, device_name: str | None, seconds: float) -> Iterator[str]:
    """Measure each kind of trial, write ``throughput.json``, and yield the lines to print.

    ``device_name`` is the GPU's name in `budgets.devices`; None for that of the declared cluster.
    ``seconds`` is an approximate limit.

    Raises:
        ValueError: The study can't be run, or this machine does not have the device.
    """
    require_runnable(study.declaration)
    plan = plan_study(_at_width(study, 1))
    gpus = max(trial.resources.gpus for trial in plan.trials)
    if any(trial.resources.nodes > 1 for trial in plan.trials):
        raise ValueError("calibrate tries trials on this machine; this study's resources: declare more nodes")
    named, machine = _device_names(study, gpus, device_name)
    ensure_pools(study, lambda _line: None)
    kinds = _trial_of_each_kind(plan)
    # Trials that share a processor slow each other, so as many run at once as in a study.
    most_cpus = max(trial.resources.cpus for trial in kinds.values())
    at_once = 1 if gpus else max(1, min(usable_cores() // most_cpus, len(kinds)))
    widest = torch.cuda.device_count() if study.declaration.resources.auto else 0
    for width in (2**power for power in range(1, widest.bit_length())):
        with suppress(ValueError):  # no trial fits this width
            kinds |= _trial_of_each_kind(plan_study(_at_width(study, width)))
    yield f"{plural(len(kinds), 'kind')} of trials on {machine}, {at_once} at once, in about {seconds:g} s"
    seconds_each = max(0.5, seconds * at_once / len(kinds) - _START_S)
    speeds, failed = dict[str, Throughput](), list[str]()
    with LocalBackend(modules=("runners.trials.try_kind",)) as backend:
        placed = {name: (trial, tuple(backend.nodes())) for name, trial in kinds.items()}
        for job, tried in try_kinds(study, placed, backend, seconds=seconds_each, at_once=at_once):
            if isinstance(tried, str):
                failed.append(f"{job.trial}: {tried}")
            else:
                speeds[job.trial] = tried.speed
    if not speeds:
        raise ValueError(f"not measured: {'; '.join(failed)}")
    measured = [(trial, speeds[name]) for name, trial in kinds.items() if name in speeds]
    calibration = Calibration(
        machine=machine, device=named, side_by_side=at_once, kinds=tuple(speed for _, speed in measured)
    )
    study.folder.mkdir(parents=True, exist_ok=True)
    calibration.write(study.calibration)
    rows = [_measured_row(trial, speed) for trial, speed in measured]
    yield from table_lines(rows, words=("architecture", "strategy", "precision"))
    yield f"written to {study.calibration}; plan and run use it from now on"
    if failed:
        raise ValueError(f"not measured: {'; '.join(failed)}")


def _trial_of_each_kind(plan: Plan) -> dict[str, Trial]:
    """Return the first trial of each combination, by words; they have one number of devices in a plan."""
    kinds: dict[str, Trial] = {}
    for trial in plan.trials:
        devices = trial.resources.devices
        on_several = f" on {devices} devices" if devices > 1 else ""
        kinds.setdefault(" ".join(trial.cell.combination) + on_several, trial)
    return kinds


def _at_width(study: Study, gpus: int) -> Study:
    """Return the study with a fixed number of GPUs a trial, if the planner would choose it."""
    declaration, resources = study.declaration, study.declaration.resources
    if not resources.auto or declaration.cluster is None:
        return study
    cluster = replace(declaration.cluster, count=gpus)
    fixed = replace(resources, rules=(*resources.rules, ResourceRule(gpus=gpus)))
    return replace(study, declaration=replace(declaration, cluster=cluster, resources=fixed))


def _device_names(study: Study, gpus: int, wanted: str | None) -> tuple[str | None, str]:
    """Return the device's name in the price table (None for a processor) and the machine's name for it."""
    cluster = study.declaration.cluster
    if not gpus:
        if wanted is not None:
            raise ValueError(
                f"--device {wanted} needs a GPU, but resources.gpus is 0: trials run on the processor"
            )
        return None, environment()["processor"]
    if not torch.cuda.is_available():
        raise ValueError("resources.gpus is 1, but torch sees no GPU on this machine")
    machine = torch.cuda.get_device_name()
    name = wanted or (cluster and cluster.device)
    if not name:
        raise ValueError(
            f"no device name for this machine's {machine}: use --device NAME, or declare cluster:"
        )
    return require_named(find_device(name).name, machine), machine


def require_named(name: str, machine: str) -> str:
    """Return the device's name if it fits the machine's own name: h100-sxm fits NVIDIA H100.

    Raises:
        ValueError: The machine's name does not contain the device's model.
    """
    if name.split("-", maxsplit=1)[0] not in machine.lower():
        raise ValueError(f"the device is declared as {name}, but this machine has {machine}")
    return name


def _measured_row(trial: Trial, speed: Throughput) -> dict[str, str]:
    return {
        "architecture": speed.architecture,
        "strategy": speed.strategy,
        "batch": f"{speed.batch_size:,}",
        "precision": speed.precision,
        "devices": f"{speed.gpus}",
        "steps": f"{speed.steps:,}",
        "samples/s": f"{speed.samples_per_s:,.0f}",
        "GFLOP/s": f"{speed.samples_per_s * trial.train_flops_per_sample / 1e9:,.1f}",
        "memory": f"{speed.memory_bytes / 2**20:,.0f} MiB",
        "training alone, estimated": f"{estimated_memory(trial) / 2**20:,.0f} MiB",
    }
