"""Preflight of a study: every node and every kind of trial is tried before anything is spent."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

from analysis.labels import plural
from budgets.declaration import require_runnable
from budgets.planning.plan import Plan, Trial
from runners.scheduling.backend import Backend, Job
from runners.scheduling.nodes import Amounts
from runners.scheduling.shared_storage import Folders, SharedStorage
from runners.trials.speed.preflight import Check, Expected, check_kind, check_node, check_ranks, versions
from runners.trials.speed.throughput import Calibration, Throughput, kind, read_calibration
from study.run.calibration import estimated_memory, one_of_each_kind
from study.state.bookkeeping import needs, trial_job
from study.state.study import Study, ensure_pool, plan_study

_WAIT_S = 1.0
_SKEW_S = 2.0  # clocks that differ by more muddle events and leases


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """A call on a node; ``name`` identifies it."""

    name: str
    node: str
    run: Callable[[], object]
    amounts: Amounts


def preflight(
    study: Study, open_backend: Callable[[], AbstractContextManager[Backend]], *, where: str
) -> Iterator[Check]:
    """Yield the checks of a study as they are done: the backend, each node, each kind of trial.

    Args:
        study: The study.
        open_backend: Connects to what would run it.
        where: Name of that, for the first check.

    Raises:
        ValueError: The study cannot be planned or run.
    """
    require_runnable(study.declaration)
    plan = plan_study(study)
    try:
        opened = open_backend()
    except ValueError as error:
        advice = "start the cluster, and give its address and RAY_AUTH_TOKEN as docs/cluster.md says"
        yield Check(node="driver", what=where, verdict="failed", found=str(error), advice=advice)
        return
    with opened as backend:
        nodes = {name: has for name, has in backend.nodes().items() if has.get("cpus")}
        yield Check(
            node="driver", what=where, verdict="ok", found=f"{backend.name}, {plural(len(nodes), 'node')}"
        )
        ensure_pool(study, lambda _line: None)
        study.folder.mkdir(parents=True, exist_ok=True)
        yield from _check_nodes(study, plan, backend, nodes)
        yield from _check_kinds(study, plan, backend, nodes)


def _check_nodes(study: Study, plan: Plan, backend: Backend, nodes: Mapping[str, Amounts]) -> Iterator[Check]:
    widest = max(plan.trials, key=lambda trial: trial.resources.ranks_per_node)
    resources = widest.resources
    shared = study.storage.seen_by_nodes((study.pool.resolve(),))
    storage = SharedStorage(backend, shared)
    try:
        storage.require()
    except ValueError as error:
        yield Check(node="all", what="storage", verdict="failed", found=str(error))
        return
    expected = Expected(
        versions=versions(),
        gpus=resources.gpus // resources.nodes,
        shared_bytes=resources.ranks_per_node * study.declaration.resources.loader_memory
        if resources.gpus
        else 0,
        folder=shared.written if isinstance(shared, Folders) else None,
    )
    ranks = partial(check_ranks, resources.ranks_per_node, gpus=bool(resources.gpus))
    tasks = [
        _Task(name=f"node {node}", node=node, run=partial(check_node, expected), amounts={}) for node in nodes
    ]
    if resources.ranks_per_node > 1:
        tasks += [
            _Task(name=f"ranks {node}", node=node, run=ranks, amounts=needs(study, widest)) for node in nodes
        ]
    began = time.time()
    for task, found in _run(backend, tasks):
        if isinstance(found, Check):
            yield found
        elif isinstance(found, tuple):
            clock, checks = found
            yield from checks
            yield _clock(checks[0].node, clock, began, time.time())
        else:
            yield Check(node=task.node[:8], what=task.name, verdict="failed", found=str(found), advice=_LOGS)


def _clock(node: str, clock: float, began: float, ended: float) -> Check:
    """Compare a node's clock with the driver's, which read ``began`` before it and ``ended`` after it."""
    skew = max(began - clock, clock - ended, 0.0)
    return Check(
        node=node,
        what="clock",
        verdict="slow" if skew > _SKEW_S else "ok",
        found=f"within {max(skew, 0.1):.1f} s of the driver's",
        advice="synchronise the clocks (chrony, ntpd): times of events and leases compare them"
        if skew > _SKEW_S
        else "",
    )


def _check_kinds(study: Study, plan: Plan, backend: Backend, nodes: Mapping[str, Amounts]) -> Iterator[Check]:
    """Train a few steps of each kind, on the nodes in turn, and keep the speeds that were not calibrated."""
    kinds = {" ".join(kind(trial)): trial for trial in one_of_each_kind(plan)}
    places = list(nodes)
    tasks = [
        _Task(
            name=name,
            node=places[number % len(places)],
            run=study.storage.call(check_kind, trial_job(study, trial)),
            amounts=needs(study, trial),
        )
        for number, (name, trial) in enumerate(kinds.items())
    ]
    measured = []
    for task, found in _run(backend, tasks):
        if isinstance(found, Throughput):
            measured.append(found)
            yield _speed(kinds[task.name], found)
        else:
            yield Check(node=task.node[:8], what=task.name, verdict="failed", found=str(found), advice=_LOGS)
    _keep(study, measured)


_LOGS = "run it alone to see all of its output: study run --backend local --only"


def _speed(trial: Trial, found: Throughput) -> Check:
    estimate = estimated_memory(trial, found)
    # On a processor the process's whole resident set was measured, most of which is no part of the estimate.
    over = bool(trial.resources.gpus) and found.memory_bytes > 1.2 * estimate
    return Check(
        node="",
        what=f"{found.architecture} {found.strategy}",
        verdict="slow" if over else "ok",
        found=f"batch {found.batch_size:,} in {found.precision}: {found.samples_per_s:,.0f} samples/s, "
        f"{found.memory_bytes / 2**20:,.0f} MiB, {estimate / 2**20:,.0f} MiB estimated",
        advice="takes over 1.2 times the memory that was estimated: leave room when you choose devices"
        if over
        else "",
    )


def _keep(study: Study, measured: list[Throughput]) -> None:
    """Add speeds of kinds that were not calibrated to what ``plan`` and ``run`` read."""
    known = read_calibration(study.calibration)
    if known is None:
        known = Calibration(machine="preflight", device=None, side_by_side=1, kinds=())
    before = {each.kind for each in known.kinds}
    if new := [each for each in measured if each.kind not in before]:
        replace(known, kinds=(*known.kinds, *new)).write(study.calibration)


def _run(backend: Backend, tasks: list[_Task]) -> Iterator[tuple[_Task, object]]:
    """Run tasks, one at a time on each node; yield each with its value, or the reason why it has none."""
    waiting: dict[str, deque[_Task]] = {}
    for task in tasks:
        waiting.setdefault(task.node, deque()).append(task)
    running: dict[str, _Task] = {}

    def start(node: str) -> None:
        if waiting[node]:
            task = waiting[node].popleft()
            running[task.name] = task
            backend.start(Job(trial=task.name, run=task.run, nodes=(node,), resources=task.amounts))

    for node in waiting:
        start(node)
    while running:
        for ended in backend.wait(_WAIT_S):
            task = running.pop(ended.trial)
            start(task.node)
            yield task, ended.value if ended.how == "finished" else ended.reason
