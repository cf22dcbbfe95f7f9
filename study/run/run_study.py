"""Runs a study: its tuning, then its grid. Only one run of a study is active at a time."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import cast

from budgets.declaration.declaration import require_runnable
from budgets.planning.plan import AGAIN, Plan
from runners.host.faults import Notice
from runners.scheduling.ray_backend.address import cluster_address
from runners.store.files import locked
from runners.trials.loggers import Loggers
from study.run.agenda import agenda, agenda_lines, require_room, with_again
from study.run.books import RunSummary
from study.run.pipeline import Run, next_of_design
from study.run.prepare_data import ensure_pools, materialise, share_data
from study.run.run_context import RunContext
from study.run.run_tuning import tune_study, write_tuning
from study.show.progress import Guarded, Progress
from study.state.book import trial_folders
from study.state.events import add_event
from study.state.plan_study import select_trials
from study.state.study import Study
from study.state.study_facts import keep_pool_versions, keep_strategy_files

_DYING_S = 30.0  # time for a killed driver's workers to notice and exit


def run_study(  # noqa: PLR0913 - the options of a command
    study: Study,
    plan: Plan,
    progress: Progress,
    *,
    address: str | None = None,
    local: bool = False,
    only: Sequence[str] = (),
    again: Sequence[str] = (),
    retry_failed: bool = False,
    pay_again: bool = False,
    notice: Notice | None = None,
) -> RunSummary:
    """Run every trial that has no result yet; the options are those of the command.

    The view is entered and left here. ``local`` runs without Ray; ``only`` are ids of trials or words of
    their cells, empty for all; ``again`` are ids of trials that get a further attempt; ``notice`` listens to
    signals already.

    Raises:
        NoRoomError: The study budget has no room for the further attempts.
        PaidBeforeError: Trials would be paid again without ``pay_again``.
        ValueError: The study can't be run, or another run of it is active.
    """
    progress = cast("Progress", Guarded(progress, study.folder / "view-errors.txt"))
    require_runnable(study.declaration)
    select_trials(plan.trials, only)
    _require_tuned(plan, only=only)
    Loggers(study.declaration.loggers, study.folder, progress.say)  # one that is not installed is refused
    require_room(study, plan)
    study.folder.mkdir(parents=True, exist_ok=True)
    # The order matters: take the lock before anything is written; build the pool before nodes read it;
    # let the workers of a dead driver exit before their trials' files are read and recorded.
    with ExitStack() as until_the_end:
        until_the_end.enter_context(progress)
        until_the_end.enter_context(study.storage.claim(progress.say))
        site = until_the_end.enter_context(
            RunContext(study, progress, address=address, local=local, pay_again=pay_again, notice=notice)
        )
        if not local and cluster_address(address) is not None:
            _ = site.backend  # a wrong address is refused before a pool is built
        ensure_pools(study, progress.detail)
        keep_pool_versions(study)
        keep_strategy_files(study, plan)
        with site.for_pools() as workers:
            materialise(study, plan, workers, progress)
        share_data(study, plan.all_trials, progress.say)
        (study.folder / "trials").mkdir(exist_ok=True)
        _wait_for_orphans(study)
        plan, attempts, lines = with_again(study, plan, again)
        for attempt in attempts:  # from here on each run has them in its plan
            add_event(study, AGAIN, trial=attempt.trial_id)
        if lines:
            progress.say("\n".join(lines))
        failures: dict[str, str] = {}
        if _tunes(plan, only):
            tuned = tune_study(study, plan, progress, site, retry_failed=retry_failed)
            plan, failures = tuned.plan, tuned.failures
            if tuned.stopped or plan.grid_waits:
                return tuned
        elif plan.tuning is not None:  # another declaration may have other trials and winners
            write_tuning(study, plan)
        summary = Run(study, plan, plan.trials, progress, site).execute(only=only, retry_failed=retry_failed)
        return replace(summary, failures=failures | summary.failures)


def would_run(
    study: Study, plan: Plan, *, only: Sequence[str] = (), again: Sequence[str] = (), retry_failed: bool
) -> Iterator[str]:
    """Yield lines that describe what a run would do; change nothing.

    Raises:
        ValueError: The run would be refused.
    """
    require_runnable(study.declaration)
    _require_tuned(plan, only=only)
    require_room(study, plan)
    plan, _, lines = with_again(study, plan, again)
    yield from lines
    tuning = None
    if plan.tuning is not None and _tunes(plan, only):
        tuning = agenda(study, plan.tuning.ready, retry_failed=retry_failed)
    todo, further = agenda(study, plan.trials, only=only, retry_failed=retry_failed), ""
    if study.declaration.design.adaptive:
        todo, further = next_of_design(study, plan, todo)
    yield from agenda_lines(study, plan, todo, tuning)
    if further:
        yield further


def _tunes(plan: Plan, only: Sequence[str]) -> bool:
    """Return whether a run begins with the tuning or its check; a run of selected trials does not."""
    return plan.tuning is not None and plan.tuning.unfinished and not only


def _wait_for_orphans(study: Study) -> None:
    """Wait until the workers of a killed driver have exited, so that their FLOPs can be recorded."""
    deadline = time.monotonic() + _DYING_S
    for folder in trial_folders(study):
        if (lock := folder / ".lock").exists() and not (folder / "result.json").exists():
            with locked(lock, wait_s=deadline - time.monotonic()):
                pass


def _require_tuned(plan: Plan, *, only: Sequence[str]) -> None:
    if plan.grid_waits and only:
        raise ValueError(
            "--only can't be used before the tuning is finished, because the tuning sets the values of all "
            "cells. Use `run` without --only to tune first, or remove tuning: from the declaration"
        )
