"""Calibration: samples/s and memory of each kind of trial, measured on this machine.

The result is ``throughput.json`` in the study's folder. ``plan`` uses it for prices, ``run`` to order trials.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory

import torch

from budgets.declaration.declaration import require_runnable
from budgets.declaration.rules import ResourceRule
from budgets.devices import find_device
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from budgets.planning.resources import estimated_memory
from budgets.quantity import plural
from runners.host.workers import usable_cores
from runners.scheduling.backend import Job
from runners.scheduling.local_backend import LocalBackend
from runners.trials.measure_speed import measure_kind
from runners.trials.throughput import Calibration, Throughput
from runners.trials.trial_job import TrialJob
from study.run.prepare_data import ensure_pools
from study.run.study_preflight import run_tasks
from study.show.terminal import table_lines
from study.state.environment import environment
from study.state.plan_study import plan_study
from study.state.study import Study, trial_job

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
    if any(trial.resources.ranks_per_node * trial.resources.nodes > 1 for trial in plan.trials):
        raise ValueError("calibrate supports trials of one rank; this study's resources: declare more")
    named, machine = _device_names(study, gpus, device_name)
    ensure_pools(study, lambda _line: None)
    jobs = _job_of_each_kind(study, plan)
    # Trials that share a processor slow each other, so as many run at once as in a study.
    at_once = 1 if gpus else max(1, min(usable_cores() // max(job.cpus for job in jobs), len(jobs)))
    widest = torch.cuda.device_count() if study.declaration.resources.auto else 0
    for width in (2**power for power in range(1, widest.bit_length())):
        with suppress(ValueError):  # no trial fits this width
            jobs += _job_of_each_kind(study, plan_study(_at_width(study, width)))
    yield f"{plural(len(jobs), 'kind')} of trials on {machine}, {at_once} at once, in about {seconds:g} s"
    seconds_each = max(0.5, seconds * at_once / len(jobs) - _START_S)
    measured, failed = dict[tuple[object, ...], Throughput](), list[str]()
    for job, speed in calibrate(jobs, side_by_side=at_once, seconds=seconds_each):
        if isinstance(speed, Throughput):
            measured[_kind_and_width(job.trial)] = speed
        else:  # the reason why there is none
            failed.append(f"{' '.join(job.trial.cell.combination)}: {speed}")
    done = [job.trial for job in jobs if _kind_and_width(job.trial) in measured]
    if not done:
        raise ValueError(f"not measured: {'; '.join(failed)}")
    kinds = tuple(measured[_kind_and_width(trial)] for trial in done)
    calibration = Calibration(machine=machine, device=named, side_by_side=at_once, kinds=kinds)
    study.folder.mkdir(parents=True, exist_ok=True)
    calibration.write(study.calibration)
    rows = [_measured_row(trial, speed) for trial, speed in zip(done, kinds, strict=True)]
    yield from table_lines(rows, words=("architecture", "strategy", "precision"))
    yield f"written to {study.calibration}; plan and run use it from now on"
    if failed:
        raise ValueError(f"not measured: {'; '.join(failed)}")


def calibrate(
    jobs: Sequence[TrialJob], *, side_by_side: int, seconds: float
) -> Iterator[tuple[TrialJob, object]]:
    """Yield a measurement of each job, or the reason why there is none, in order of completion.

    Jobs are a trial of each kind, whose folders and evaluation sets are not used. They run ``side_by_side``
    as in a run of the study, each for about some seconds of timed steps, at least ten.
    """
    with TemporaryDirectory() as folder, LocalBackend(modules=("runners.trials.measure_speed",)) as backend:
        # A process that is killed leaves its files, in the folder.
        calls = [partial(measure_kind, job, seconds, below=folder) for job in jobs]
        node = tuple(backend.nodes())
        tasks = [Job(trial=f"{place}", nodes=node, run=run, resources={}) for place, run in enumerate(calls)]
        for task, speed in run_tasks(backend, tasks, at_once=side_by_side):
            yield jobs[int(task.trial)], speed


def _kind_and_width(trial: Trial) -> tuple[object, ...]:
    return (*trial.cell.combination, trial.resources.devices)


def _job_of_each_kind(study: Study, plan: Plan) -> list[TrialJob]:
    kinds = {trial.cell.combination: trial for trial in reversed(plan.trials)}
    return [trial_job(study, trial) for trial in reversed(kinds.values())]


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
