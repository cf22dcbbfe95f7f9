"""The loop that runs trials: follows the schedule, books each trial's end, writes events and tables.

`study.run.pipeline.Run` (the grid) and `study.run.tuning_round.Round` (the tuning) build on it. They differ
in the names of their trials, in the budget they may use, and in the tables they write.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from budgets.book.ledger import Ledger, drop_torn_line
from budgets.planning.plan import Plan, Trial
from runners.data.reading.cache import drop_idle
from runners.scheduling.backend import Backend, Ended, Job
from runners.scheduling.schedule import Done, GiveUp, Retry, Schedule, ScheduledTrial, Start
from runners.trials.loggers import Loggers
from runners.trials.throughput import predict_s
from runners.trials.trial import run_trial, take_part
from runners.trials.trial_files import Outcome, drop_scaffolding, forget_failure, kept_steps, write_failure
from study.run.site import Site
from study.show.progress import Progress
from study.state.agenda import Agenda
from study.state.bookkeeping import (
    add_event,
    book_given_up,
    book_lost,
    book_outcome,
    needs,
    trial_folder,
    trial_job,
)
from study.state.study import Study, measured_throughput

_WAIT_S = 0.5
_BACKOFF = 4
_WRITE_TABLES_S = 5.0
_TABLES_PAUSE = 20  # pause between writes, in multiples of the last write's duration: at most 5 % of the time


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The trials that a run left without a result.

    Attributes:
        plan: The plan of the run.
        failures: Trial id → reason, for trials that failed.
        remaining: Trials that the budget had no room for.
        stopped: Source of the request to stop the run early; empty if there was none.
    """

    plan: Plan
    failures: dict[str, str]
    remaining: tuple[Trial, ...]
    stopped: str

    @property
    def unfinished(self) -> bool:
        """Whether any trial is left without a result."""
        return bool(self.failures or self.remaining or self.stopped)


class Execution(ABC):
    """A run of the trials of one part of a study: its tuning or its grid.

    Args:
        study: The study, locked for this run.
        plan: The study's plan.
        trials: The part's trials.
        progress: The view that shows progress.
        site: Access to the backend and the storage.

    Attributes:
        name: Name of the part in events.
    """

    name: ClassVar[str]

    def __init__(
        self, study: Study, plan: Plan, trials: Sequence[Trial], progress: Progress, site: Site
    ) -> None:
        self.study, self.plan, self.progress, self.site = study, plan, progress, site
        self.ledger = Ledger(study.folder / "ledger.jsonl", plan.study_flops)
        self.trials = {trial.trial_id: trial for trial in trials}
        self.outcomes: dict[str, Outcome] = {}
        self.failures: dict[str, str] = {}
        self._loggers = Loggers(study.declaration.loggers, study.folder, progress.say)
        self._remaining: list[Trial] = []
        self._stopped = ""
        self._retry_at: dict[str, float] = {}
        self._kept: dict[str, int] = {}  # checkpointed steps at a trial's last crash
        self._last: dict[
            str, tuple[dict[str, Any], str]
        ] = {}  # time span and reason of each trial's last end
        self._started_at: dict[str, tuple[int, float]] = {}
        self._tables_due = 0.0

    @abstractmethod
    def backend(self) -> Backend:
        """Return the backend that runs the trials."""

    @property
    @abstractmethod
    def room_flops(self) -> int | None:
        """Training FLOPs neither spent nor reserved (None: no limit); negative if crashes wasted too much."""

    @abstractmethod
    def words(self, trial: Trial) -> str:
        """Return a readable name of a trial."""

    @abstractmethod
    def show(self, trial: Trial, outcome: Outcome) -> None:
        """Show a trial that has just ended with a result."""

    @abstractmethod
    def write_tables(self) -> None:
        """Write the results so far as tables."""

    def take_up(self, todo: Agenda) -> None:
        """Take over the results of earlier runs, and book what a crashed driver could not book.

        A trial writes its folder before the driver books it, so after a crash of the driver the ledger may
        lack results that the folders hold.
        """
        drop_torn_line(self.study.folder / "events.jsonl")
        self.ledger.charge(self.plan)
        for trial in self.trials.values():
            outcome = todo.finished.get(trial.trial_id)
            if outcome is None:
                if self.ledger.has_reserved(trial.trial_id):
                    self._book_lost(trial)
                continue
            drop_scaffolding(self.folder(trial.trial_id))
            if not self.ledger.has_spent(trial.trial_id):
                self.ledger.reserve(trial.trial_id, trial.train_flops)
            self._take(trial, outcome)
        self.failures.update(todo.failed)
        for trial in todo.to_run:
            if forget_failure(self.folder(trial.trial_id)):
                self.site.with_storage(partial(self.study.storage.give, trial.trial_id))

    def run(self, waiting: Sequence[Trial]) -> None:
        """Run trials until each has a result, has failed, has no room in the budget, or was stopped.

        Raises:
            ValueError: A trial does not fit on the nodes of the cluster.
        """
        measured = measured_throughput(self.study, self.plan)

        def scheduled(trial: Trial) -> ScheduledTrial:
            return ScheduledTrial(
                trial=trial.trial_id,
                predicted_s=predict_s(trial, measured),
                resources=needs(self.study, trial),
                nodes=trial.resources.nodes,
                train_flops=0 if self.ledger.has_reserved(trial.trial_id) else trial.train_flops,
            )

        retries = self.study.declaration.resources.retries
        self._schedule = Schedule(map(scheduled, waiting), retries=retries)
        backend = self.backend()
        here = self.site.look_around(self._schedule, backend)
        slots = here.slots
        self.event(f"{self.name}-started", slots=slots, trials=len(waiting))
        while True:
            self._schedule.add(map(scheduled, self._further(slots)))
            if not self._obey(backend):
                break
            here.look()
            if here.slots != slots:
                slots = here.slots
                self.event("slots-changed", slots=slots)
            self._heed(backend)
            for ended in here.wait(_WAIT_S):
                self._end(ended)
            for trial_id in [each for each, due in self._retry_at.items() if due <= time.monotonic()]:
                del self._retry_at[trial_id]
                self._schedule.retry(trial_id)
            self.study.storage.watch(self._started_at)
            self.progress.tick(self._started_at, slots=slots)
            self._loggers.follow(self.trials, self._started_at)
            if time.monotonic() > self._tables_due:
                self._write_tables()
        self.event(f"{self.name}-ended")
        self._loggers.close()
        drop_idle()

    def further(self, slots: int, waiting: Sequence[str], room_flops: int | None) -> Sequence[Trial]:  # noqa: ARG002
        """Return trials to add to those that run and wait; none by default.

        Args:
            slots: Number of trials that could start.
            waiting: Trials that have no result yet and are running or going to.
            room_flops: FLOPs that are neither spent nor promised; None without a limit.
        """
        return ()

    @property
    def result(self) -> Result:
        """The trials without a result so far."""
        return Result(
            plan=self.plan, failures=self.failures, remaining=tuple(self._remaining), stopped=self._stopped
        )

    def event(self, event: str, **facts: object) -> None:
        """Append a line to ``events.jsonl``."""
        self.site.with_storage(partial(add_event, self.study, event, **facts))

    def folder(self, trial_id: str) -> Path:
        """Return a trial's folder."""
        return trial_folder(self.study, trial_id)

    def _further(self, slots: int) -> Sequence[Trial]:
        """Return trials to add where fewer wait or run than there are slots."""
        waiting = self._schedule.unfinished()
        free = max(1, slots) - len(waiting)
        if free <= 0 or self._stopped:
            return ()
        room = self.room_flops
        promised = sum(task.train_flops for task in self._schedule.waiting())
        return self.further(free, waiting, None if room is None else room - promised)

    def _heed(self, backend: Backend) -> None:
        """Stop all running trials once the run was asked to stop."""
        told = self.site.told()
        if self._stopped or not told:
            return
        self._stopped = told
        self._schedule.drain()
        self.event("study-stopping", reason=told)
        self.progress.say(f"stopped by {told}: running trials write a checkpoint and exit")
        for trial_id in self._started_at:
            backend.ask_to_leave(trial_id)

    def _obey(self, backend: Backend) -> bool:
        """Carry out the schedule's instructions.

        Returns:
            False once the schedule is done.
        """
        for each in self._schedule.instructions(self.room_flops):
            match each:
                case Start(trial=trial_id, nodes=nodes):
                    self._start(trial_id, nodes, backend)
                case Retry(trial=trial_id, attempt=attempt):
                    self._retry(self.trials[trial_id], attempt)
                case GiveUp(trial=trial_id, cause="budget"):
                    self._leave_out(self.trials[trial_id])
                case GiveUp(trial=trial_id, cause=cause):
                    self._give_up(self.trials[trial_id], keep=cause == "crashed")
                case Done():
                    return False
        return True

    def _start(self, trial_id: str, nodes: tuple[str, ...], backend: Backend) -> None:
        trial = self.trials[trial_id]
        # Reserve before the start: if the driver dies in between, the next run finds the reservation and
        # books the trial's FLOPs, so that no computed FLOP is missing from the ledger.
        self.site.with_storage(partial(self.ledger.reserve, trial_id, trial.train_flops))
        taken = {slot for slot, _ in self._started_at.values()}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        self._started_at[trial_id] = (slot, time.monotonic())
        where = {"nodes": nodes} if backend.binds else {}
        self.event("trial-started", trial=trial_id, slot=slot, **where)
        backend.start(
            Job(
                trial=trial_id,
                run=self.study.storage.call(
                    run_trial if len(nodes) == 1 else take_part, trial_job(self.study, trial)
                ),
                nodes=nodes,
                resources=self._schedule.task(trial_id).resources,
                ranks=trial.resources.ranks_per_node,
            )
        )

    def _end(self, ended: Ended) -> None:
        trial = self.trials[ended.trial]
        slot, started_at = self._started_at.pop(ended.trial)
        span = {"trial": ended.trial, "slot": slot, "wall_s": time.monotonic() - started_at}
        self._last[ended.trial] = span, ended.reason
        self.site.with_storage(partial(self.study.storage.fetch, ended.trial))
        if ended.how == "finished":
            assert isinstance(ended.value, Outcome)
            self._schedule.finish(ended.trial)
            timing = {name: value for name, value in ended.value.timing.items() if name != "wall_s"}
            self.event("trial-finished", **span, **timing)
            self._take(trial, ended.value)
            self.show(trial, ended.value)
            return
        self._book_lost(trial)
        if ended.how == "failed":
            self._schedule.fail(ended.trial)
        elif ended.how == "crashed":
            kept = kept_steps(self.folder(ended.trial))
            progressed = kept > self._kept.get(ended.trial, 0)
            self._kept[ended.trial] = kept
            self._schedule.crash(ended.trial, progressed=progressed, dead_nodes=ended.dead_nodes)
        else:
            self.event("trial-left", **span, reason=ended.reason)
            if not self._stopped:
                self.progress.say(
                    f"{self.words(trial)}: {ended.reason}; it will continue from its checkpoint"
                )
            self._schedule.left(ended.trial, dead_nodes=ended.dead_nodes)

    def _take(self, trial: Trial, outcome: Outcome) -> None:
        self.outcomes[trial.trial_id] = outcome
        folder = self.folder(trial.trial_id)
        self.site.with_storage(partial(book_outcome, self.ledger, trial, folder, outcome))
        self._loggers.finish(outcome.row, folder / "curve.parquet")

    def _book_lost(self, trial: Trial) -> None:
        folder = self.folder(trial.trial_id)
        for path in self.site.with_storage(partial(book_lost, self.ledger, trial, folder)):
            self.event("checkpoint-damaged", trial=trial.trial_id, file=path.name)
            self.progress.say(
                f"{self.words(trial)}: {path} is damaged and was removed; using the checkpoint before it"
            )

    def _retry(self, trial: Trial, attempt: int) -> None:
        span, reason = self._last[trial.trial_id]
        self.event("trial-retried", **span, reason=reason)
        self.progress.say(f"{self.words(trial)}: {reason}; retrying from its last checkpoint")
        wait_s = self.study.declaration.resources.backoff_s * _BACKOFF ** (attempt - 1)
        self._retry_at[trial.trial_id] = time.monotonic() + wait_s

    def _give_up(self, trial: Trial, *, keep: bool) -> None:
        """Book a trial as failed; with ``keep``, its checkpoint stays for a later ``--retry-failed``."""
        span, reason = self._last[trial.trial_id]
        folder = self.folder(trial.trial_id)
        # Close the reservation first: if the driver dies before the failure is written, the trial runs again;
        # in the other order a failed trial would hold its reservation for good.
        if not keep:
            self.site.with_storage(partial(book_given_up, self.ledger, trial.trial_id, folder))
        self.site.with_storage(partial(write_failure, folder, reason))
        self.site.with_storage(partial(self.study.storage.give, trial.trial_id))
        self.event("trial-failed", **span, reason=reason)
        self.failures[trial.trial_id] = reason
        self._loggers.leave(trial.trial_id)
        self.progress.failed(trial, reason)

    def _leave_out(self, trial: Trial) -> None:
        """Book a trial that the budget has no room for; a later run with a larger budget starts it anew."""
        self._retry_at.pop(trial.trial_id, None)
        _, reason = self._last.get(trial.trial_id, ({}, "not started"))
        folder = self.folder(trial.trial_id)
        self.site.with_storage(partial(book_given_up, self.ledger, trial.trial_id, folder))
        self.site.with_storage(partial(self.study.storage.give, trial.trial_id))
        self.event("trial-left-out", trial=trial.trial_id, reason=f"{reason}; the budget has no room for it")
        self._remaining.append(trial)

    def _write_tables(self) -> None:
        began = time.monotonic()
        self.site.with_storage(self.write_tables)
        took_s = time.monotonic() - began
        self._tables_due = time.monotonic() + max(_WRITE_TABLES_S, _TABLES_PAUSE * took_s)
