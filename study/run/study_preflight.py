"""Preflight of a study: tries every node and every kind of trial before anything is spent."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from budgets.declaration.declaration import require_runnable
from budgets.declaration.rules import CPUS_PER_GPU
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from budgets.planning.resources import estimated_memory
from budgets.quantity import format_share, plural
from runners.scheduling.backend import Backend, Job
from runners.scheduling.nodes import Amounts, cores_per_gpu, has_room, no_room_text
from runners.scheduling.storage_check import StorageCheck
from runners.trials.preflight import (
    SLOW_BYTES_PER_S,
    PreflightCheck,
    check_node,
    check_ranks,
    holding_lock,
    package_versions,
)
from runners.trials.throughput import Calibration, Throughput, read_calibration, slow_loading
from runners.trials.try_kind import TriedKind
from study.run.prepare_data import ensure_pools, share_data
from study.run.try_kinds import run_jobs, try_kinds
from study.state.plan_study import plan_study
from study.state.study import Study, needs
from study.state.subset_copies import amplification_lines

_MOST_OF_ESTIMATE = 1.2  # of memory: beyond it, a choice of devices by the estimate may not fit
_NODE_ANSWERS_S = 180.0  # its first process imports torch, perhaps over a network
_ID_SIGNS = 12  # of a node's id: Ray's are long, and "this machine" is one
_SKEW_S = 2.0  # larger differences of clocks make times of events and leases unreliable


def preflight(
    study: Study, open_backend: Callable[[], AbstractContextManager[Backend]], *, where: str
) -> Iterator[PreflightCheck]:
    """Yield the checks of a study as they are done: the backend, each node, each kind of trial.

    ``open_backend`` connects to the backend that would run it; ``where`` names it in the first check.

    Raises:
        ValueError: The study cannot be planned or run.
    """
    require_runnable(study.declaration)
    plan = plan_study(study)
    try:
        opened = open_backend()
    except ValueError as error:
        advice = "start the cluster, and give its address and RAY_AUTH_TOKEN as docs/cluster.md says"
        yield PreflightCheck(node="driver", what=where, verdict="failed", found=str(error), advice=advice)
        return
    with opened as backend:
        nodes = backend.nodes()
        yield PreflightCheck(
            node="driver", what=where, verdict="ok", found=f"{backend.name}, {plural(len(nodes), 'node')}"
        )
        share, assumed = cores_per_gpu(nodes.values()), any(trial.resources.assumed for trial in plan.trials)
        if assumed and share is not None:
            detail = f"{share} a GPU, the nodes' share; the plan assumes {CPUS_PER_GPU}"
            yield PreflightCheck(node="all", what="cores", verdict="ok", found=detail)
            placed = (replace(trial, resources=trial.resources.on_nodes(share)) for trial in plan.trials)
            plan = replace(plan, trials=tuple(placed))
        ensure_pools(study, lambda _line: None)
        study.folder.mkdir(parents=True, exist_ok=True)
        for line in amplification_lines(study, plan):
            yield PreflightCheck(node="driver", what="subset", verdict="slow", found=line)
        yield from _check_nodes(study, plan, backend, nodes)
        yield from _check_kinds(study, plan, backend, nodes)


def _check_nodes(
    study: Study, plan: Plan, backend: Backend, nodes: Mapping[str, Amounts]
) -> Iterator[PreflightCheck]:
    widest = max(plan.trials, key=lambda trial: trial.resources.ranks_per_node)
    resources = widest.resources
    shared = study.storage.seen_by_nodes(tuple(path.resolve() for path in study.pool_folders.values()))
    storage = StorageCheck(backend, shared)
    try:
        storage.require()
    except (ValueError, OSError) as error:
        yield PreflightCheck(node="all", what="storage", verdict="failed", found=str(error))
        return
    loader_bytes = resources.ranks_per_node * study.declaration.resources.loader_memory
    ranks = partial(check_ranks, resources.ranks_per_node, gpus=bool(resources.gpus))
    jobs = [
        Job(trial=f"ranks {node}", nodes=(node,), run=ranks, resources=needs(study, widest))
        for node, has in nodes.items()
        if resources.ranks_per_node > 1 and has_room(has, needs(study, widest))
    ]
    began = time.time()
    with holding_lock(shared.written.local if shared.written is not None else None) as lock:
        check = partial(
            check_node,
            expected=package_versions(),
            gpus=resources.gpus // resources.nodes,
            shared_bytes=loader_bytes if resources.gpus else 0,
            compiled=any(trial.recipe.compile for trial in plan.trials),
            lock=lock,
        )
        jobs = [Job(trial=f"node {node}", nodes=(node,), run=check, resources={}) for node in nodes] + jobs
        for job, answer in run_jobs(backend, jobs, answer_s=_NODE_ANSWERS_S):
            if isinstance(answer, PreflightCheck):
                yield answer
            elif isinstance(answer, tuple):
                clock, checks = answer
                yield from checks
                yield _clock_check(checks[0].node, clock, began, time.time())
            else:
                yield _failed_check(job, answer)


def _failed_check(job: Job, reason: object, advice: str = "") -> PreflightCheck:
    where = ", ".join(node[:_ID_SIGNS] for node in job.nodes)
    return PreflightCheck(node=where, what=job.trial, verdict="failed", found=str(reason), advice=advice)


def _clock_check(node: str, clock: float, began: float, ended: float) -> PreflightCheck:
    """Compare a node's clock with the driver's, which read ``began`` before it and ``ended`` after it."""
    # The node read its clock between the two times; only what lies outside of them is known to be skew.
    skew = max(began - clock, clock - ended, 0.0)
    problem = "synchronise the clocks (chrony, ntpd): times of events compare them"
    detail = f"within {max(skew, 0.1):.1f} s of the driver's"
    return replace(
        PreflightCheck.of("clock", problem if skew > _SKEW_S else "", found=detail, verdict="slow"), node=node
    )


def _check_kinds(
    study: Study, plan: Plan, backend: Backend, nodes: Mapping[str, Amounts]
) -> Iterator[PreflightCheck]:
    """Train a few steps of each kind, on the nodes in turn, and keep the speeds that were not calibrated."""
    kinds = _trial_of_each_kind(plan)
    try:
        share_data(study, plan.trials, lambda _line: None)
    except OSError as error:
        yield PreflightCheck(node="driver", what="pools", verdict="failed", found=str(error))
        return
    placed, measured = dict[str, tuple[Trial, Sequence[str]]](), list[Throughput]()
    for number, (name, trial) in enumerate(kinds.items()):
        count, needed = trial.resources.nodes, needs(study, trial)
        room = [node for node, has in nodes.items() if has_room(has, needed)]
        if count > len(room):
            few, advice = no_room_text(needed, count, nodes.values()), "see resources: in the declaration"
            yield PreflightCheck(node="all", what=name, verdict="failed", found=few, advice=advice)
        else:
            first = number % len(room) if count == 1 else 0
            placed[name] = trial, room[first : first + count]
    for job, tried in try_kinds(study, placed, backend, folder=study.folder):
        if isinstance(tried, str):
            alone = f"python -m study run {study.word} --backend local --only '{job.trial}'"
            yield _failed_check(job, tried, f"for all of its output: {alone}")
            continue
        if tried.ranks is not None:
            yield replace(tried.ranks, what=f"ranks of {job.trial}")
        measured.append(tried.speed)
        yield _speed_check(job.trial, kinds[job.trial], tried)
    _keep_speeds(study, measured)


def _trial_of_each_kind(plan: Plan) -> dict[str, Trial]:
    """Return a trial of each kind, by its words.

    The words of a kind are architecture and strategy; those of a further kind, to which rules give another
    batch or other resources, are all words of its first cell.
    """
    kinds: dict[tuple[object, ...], Trial] = {}
    for trial in plan.trials:
        kinds.setdefault((*trial.cell.combination, trial.batch_size, trial.resources), trial)
    named: dict[str, Trial] = {}
    for trial in kinds.values():
        words = " ".join(trial.cell.combination)
        named[str(trial.cell) if words in named else words] = trial
    return named


def _speed_check(name: str, trial: Trial, measured: TriedKind) -> PreflightCheck:
    speed, estimate = measured.speed, estimated_memory(trial)
    # On a processor the process's whole resident set was measured, most of which the estimate does not
    # include.
    over = bool(trial.resources.gpus) and speed.memory_bytes > _MOST_OF_ESTIMATE * estimate
    advice = [f"takes over {_MOST_OF_ESTIMATE} times the estimated memory: leave room on devices"] * over
    advice += slow_loading([trial], Calibration(machine="", device=None, side_by_side=1, kinds=(speed,)))
    facts = [
        f"batch {speed.batch_size:,} in {speed.precision}: {speed.samples_per_s:,.0f} samples/s",
        f"waits {format_share(speed.waited)} of the time for data",
        f"{speed.memory_bytes / 2**20:,.0f} MiB, {estimate / 2**20:,.0f} MiB estimated",
    ]
    if size := measured.checkpoint_bytes:
        rates = f"written in {measured.write_s:.1f} s, read in {measured.read_s:.1f} s"
        facts.append(f"checkpoint of {size / 2**20:,.0f} MiB {rates}")
        if size / max(measured.write_s, 1e-9) < SLOW_BYTES_PER_S and measured.write_s > 1:
            advice.append(
                "checkpoints are written slowly: name a faster storage, or raise resources.checkpoint"
            )
    return replace(
        PreflightCheck.of(name, "; ".join(advice), found=", ".join(facts), verdict="slow"), node=""
    )


def _keep_speeds(study: Study, measured: list[Throughput]) -> None:
    """Add speeds of kinds that were not calibrated to what ``plan`` and ``run`` read."""
    known = read_calibration(study.calibration)
    if known is None:
        known = Calibration(machine="preflight", device=None, side_by_side=1, kinds=())
    before = {kind.combination for kind in known.kinds}
    new: dict[tuple[object, ...], Throughput] = {}
    for speed in measured:
        if speed.combination not in before:
            new.setdefault((*speed.combination, speed.gpus), speed)
    if new:
        replace(known, kinds=(*known.kinds, *new.values())).write(study.calibration)
