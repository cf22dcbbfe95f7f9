"""Tries of each kind of trial on the nodes of a backend, as `check` and `calibrate` make them."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

from budgets.planning.planned_trial import Trial
from runners.scheduling.backend import Backend, Job
from runners.trials.try_kind import TriedKind, try_kind
from study.state.study import Study, needs, trial_job

_WAIT_S = 1.0


def try_kinds(  # noqa: PLR0913 - independent options
    study: Study,
    kinds: Mapping[str, tuple[Trial, Sequence[str]]],
    backend: Backend,
    *,
    folder: Path | None = None,
    seconds: float = 0.0,
    at_once: int = 1,
) -> Iterator[tuple[Job, TriedKind | str]]:
    """Yield what the try of each kind measured, or the reason why it failed, in order of completion.

    Kinds are named, each with one of its trials and its nodes; some run ``at_once`` on each node, for about
    ``seconds`` (`runners.trials.try_kind`). Their files are in a temporary folder, as the trials themselves
    may be running: below ``folder``, which nodes share, or else of this machine, which then has the data.
    """
    with TemporaryDirectory(dir=folder, prefix=".preflight-") as name:
        scratch = Path(name).resolve()
        jobs = list[Job]()
        for number, (kind, (trial, nodes)) in enumerate(kinds.items()):
            own_folder = scratch / f"{scratch.name}-{number}"
            own_folder.mkdir()
            tried = replace(trial_job(study, trial), folder=own_folder)
            run = partial(try_kind, seconds=seconds)
            call = partial(run, tried) if folder is None else study.storage.call(run, tried, checks=True)
            resources, ranks = needs(study, trial), trial.resources.ranks_per_node
            jobs.append(Job(trial=kind, nodes=tuple(nodes), run=call, resources=resources, ranks=ranks))
        for job, value in run_jobs(backend, jobs, at_once=at_once):
            assert isinstance(value, TriedKind | str)
            yield job, value


def run_jobs(
    backend: Backend, jobs: Iterable[Job], *, at_once: int = 1, answer_s: float = inf
) -> Iterator[tuple[Job, object]]:
    """Run jobs, some at once on each node; yield each with its value, or the reason why it has none.

    If no running job ends for ``answer_s`` seconds, the remaining ones are given up.
    """
    waiting, running = list(jobs), dict[str, Job]()

    def start() -> None:
        busy = Counter(node for job in running.values() for node in job.nodes)
        for job in list(waiting):
            if all(busy[node] < at_once for node in job.nodes):
                waiting.remove(job)
                running[job.trial] = job
                backend.start(job)
            busy.update(job.nodes)  # what comes later waits for its turn on these nodes

    start()
    heard = time.monotonic()
    while running and time.monotonic() - heard < answer_s:
        for ended in backend.wait(_WAIT_S):
            heard = time.monotonic()
            job = running.pop(ended.trial)
            start()
            yield job, ended.value if ended.how == "finished" else ended.reason
    for job in running.values():
        ports = "a firewall between the nodes must let the ports of `ray start` through, see docs/cluster.md"
        yield job, f"no answer in {answer_s:.0f} s: {ports}"
