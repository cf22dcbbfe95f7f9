"""The loop that runs trials: follows the schedule, starts and stops trials, retries them, writes tables.

`study.run.pipeline.Run` (the grid) and `study.run.tuning_round.Round` (the tuning) build on it. They differ
in the names of their trials, in the budget they may use, and in the tables they write.
"""

import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from budgets.planning.plan import Plan, Trial
from runners.data.reading.cache import drop_idle
from runners.scheduling.backend import Backend, Ended, Job
from runners.scheduling.schedule import (
    Done,
    EndBranches,
    GiveUp,
    Retry,
    Schedule,
    ScheduledTrial,
    Start,
    State,
)
from runners.trials.records.trial_files import Outcome, kept_steps, milestone
from runners.trials.speed.throughput import predict_s
from runners.trials.trial_job import run_trial, take_part
from study.run.books import Books, passed
from study.run.site import Site
from study.show.progress import Progress
from study.state.jobs import needs, trial_job
from study.state.planning.speeds import measured_throughput
from study.state.study import Study

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
        """True if a trial is left without a result."""
        return bool(self.failures or self.remaining or self.stopped)


class Execution(Books):
    """A run of the trials of one part of a study, its tuning or its grid; arguments are those of `Books`.

    Attributes:
        name: Name of the part in events.
    """

    name: ClassVar[str]

    def __init__(
        self, study: Study, plan: Plan, trials: Sequence[Trial], progress: Progress, site: Site
    ) -> None:
        super().__init__(study, plan, trials, progress, site)
        self._stopped = ""
        self._retry_at: dict[str, float] = {}
        self._kept: dict[str, int] = {}  # checkpointed steps at a trial's last crash
        self._ends: dict[str, tuple[dict[str, object], str]] = {}  # time span and reason of the last end
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
    def show(self, trial: Trial, outcome: Outcome) -> None:
        """Show a trial that has just ended with a result."""

    @abstractmethod
    def write_tables(self) -> None:
        """Write the results so far as tables."""

    def run(self, waiting: Sequence[Trial]) -> None:
        """Run trials until each has a result, has failed, has no room in the budget, or was stopped.

        Raises:
            ValueError: A trial does not fit on the nodes of the cluster.
        """
        waiting = self.end_lost_branches(waiting)
        ids = {trial.trial_id for trial in waiting}
        measured = measured_throughput(self.study, self.plan)

        def scheduled(trial: Trial) -> ScheduledTrial:
            return ScheduledTrial(
                trial=trial.trial_id,
                predicted_s=predict_s(trial, measured),
                resources=needs(self.study, trial),
                nodes=trial.resources.nodes,
                train_flops=0 if self.ledger.has_reserved(trial.trial_id) else trial.paid_flops,
                after="" if self.can_start(trial) or trial.previous not in ids else trial.previous,
            )

        retries = self.study.declaration.resources.retries
        self._schedule = Schedule(map(scheduled, waiting), retries=retries)
        backend = self.backend()
        here = self.site.look_around(self._schedule, backend)
        slots = here.slots
        self.event(f"{self.name}-started", slots=slots, trials=len(waiting))
        while True:
            further = self._further(slots)
            ids.update(trial.trial_id for trial in further)
            self._schedule.add([scheduled(trial) for trial in further])
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
            self.study.storage.watch(self._started_at, self._awaited(self._started_at))
            self.progress.tick(self._started_at, slots=slots)
            self.loggers.follow(self.trials, self._started_at)
            if time.monotonic() > self._tables_due:
                self._write_tables()
        self.event(f"{self.name}-ended")
        self.loggers.close()
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
            plan=self.plan, failures=self.failures, remaining=tuple(self.remaining), stopped=self._stopped
        )

    def _further(self, slots: int) -> Sequence[Trial]:
        """Return trials to add where fewer wait or run than there are slots."""
        waiting = self._schedule.unfinished()
        free = max(1, slots) - len(waiting) + self._schedule.count(State.BLOCKED)
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
                    self._retry_at.pop(trial_id, None)
                    _, reason = self._ends.get(trial_id, ({}, "not started"))
                    self.leave_out(self.trials[trial_id], reason)
                case GiveUp(trial=trial_id, cause=cause):
                    self.give_up(self.trials[trial_id], *self._ends[trial_id], keep=cause == "crashed")
                case EndBranches(trial=trial_id, branches=branches):
                    self.end_branches(trial_id, branches)
                case Done():
                    return False
        return True

    def _start(self, trial_id: str, nodes: tuple[str, ...], backend: Backend) -> None:
        trial = self.trials[trial_id]
        # Reserve before the start: if the driver dies in between, the next run finds the reservation and
        # books the trial's FLOPs, so that no computed FLOP is missing from the ledger.
        self.site.with_storage(self.ledger.reserve, trial_id, trial.paid_flops)
        taken = {slot for slot, _ in self._started_at.values()}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        self._started_at[trial_id] = (slot, time.monotonic())
        where = {"nodes": nodes} if backend.binds else {}
        devices = trial.resources.devices
        self.event("trial-started", trial=trial_id, slot=slot, devices=devices, **where)
        backend.start(
            Job(
                trial=trial_id,
                run=self.study.storage.call(
                    run_trial if len(nodes) == 1 else take_part,
                    trial_job(self.study, trial, self.trials),
                    nodes=len(nodes),
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
        self._ends[ended.trial] = span, ended.reason
        self.site.with_storage(self.study.storage.fetch, ended.trial)
        self._awaited([ended.trial])
        if ended.how == "finished":
            assert isinstance(ended.value, Outcome)
            self._schedule.finish(ended.trial, milestone=passed(trial, ended.value))
            timing = {name: value for name, value in ended.value.timing.items() if name != "wall_s"}
            self.event("trial-finished", **span, **timing)
            self.take(trial, ended.value)
            self.show(trial, ended.value)
            return
        self.book_lost(trial)
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

    def _retry(self, trial: Trial, attempt: int) -> None:
        span, reason = self._ends[trial.trial_id]
        self.event("trial-retried", **span, reason=reason)
        self.progress.say(f"{self.words(trial)}: {reason}; retrying from its last checkpoint")
        wait_s = self.study.declaration.resources.backoff_s * _BACKOFF ** (attempt - 1)
        self._retry_at[trial.trial_id] = time.monotonic() + wait_s

    def _awaited(self, trials: Iterable[str]) -> list[str]:
        """Return the trials whose milestones are still to come; tell the schedule those that are there."""
        awaited = []
        for trial_id in trials:
            if self.trials[trial_id].milestone_step:
                if milestone(self.folder(trial_id)) is None:
                    awaited.append(trial_id)
                else:
                    self._schedule.milestone(trial_id)
        return awaited

    def _write_tables(self) -> None:
        began = time.monotonic()
        self.site.with_storage(self.write_tables)
        took_s = time.monotonic() - began
        self._tables_due = time.monotonic() + max(_WRITE_TABLES_S, _TABLES_PAUSE * took_s)
