"""The loop that runs trials: follows the schedule, books each trial's end, writes events and tables.

`study.run.pipeline.Run` (the grid) and `study.run.tuning_round.Round` (the tuning) build on it. They differ
in the names of their trials, in the budget they may use, and in the tables they write.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from budgets.book.ledger import Ledger, drop_torn_line
from budgets.planning.levels.trunks import before
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
from runners.trials.records.loggers import Loggers
from runners.trials.records.trial_files import (
    Outcome,
    drop_milestone,
    drop_scaffolding,
    forget_failure,
    kept_steps,
    milestone,
    write_failure,
)
from runners.trials.speed.throughput import predict_s
from runners.trials.trial_job import run_trial, take_part
from study.run.site import Site
from study.show.progress import Progress
from study.state.agenda import Agenda, paid_again
from study.state.bookkeeping import (
    add_event,
    book_given_up,
    book_lost,
    book_outcome,
    needs,
    paid_by,
    trial_folder,
    trial_job,
)
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


class PaidBeforeError(ValueError):
    """Trials of the run were paid before, but their results are gone; running them pays them again."""


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

        Raises:
            PaidBeforeError: Trials would be paid again, and the run may not do that.
            ValueError: The ledger contradicts a result.
        """
        self._refuse_to_pay_again(todo)
        drop_torn_line(self.study.folder / "events.jsonl")
        self.ledger.charge(self.plan)
        for trial in self.trials.values():
            outcome = todo.finished.get(trial.trial_id)
            if outcome is None:
                if self.ledger.has_reserved(trial.trial_id):
                    self._book_lost(trial)
                    self.ledger.renew(trial.trial_id, trial.paid_flops)
                continue
            drop_scaffolding(self.folder(trial.trial_id))
            if not self.ledger.has_spent(trial.trial_id):
                self.ledger.reserve(trial.trial_id, max(trial.paid_flops, paid_by(outcome, trial)))
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
        waiting = self._end_lost_branches(waiting)
        ids = {trial.trial_id for trial in waiting}
        measured = measured_throughput(self.study, self.plan)

        def scheduled(trial: Trial) -> ScheduledTrial:
            return ScheduledTrial(
                trial=trial.trial_id,
                predicted_s=predict_s(trial, measured),
                resources=needs(self.study, trial),
                nodes=trial.resources.nodes,
                train_flops=0 if self.ledger.has_reserved(trial.trial_id) else trial.paid_flops,
                after="" if self._can_start(trial) or trial.previous not in ids else trial.previous,
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
            self._see_milestones(self._started_at)
            for ended in here.wait(_WAIT_S):
                self._end(ended)
            for trial_id in [each for each, due in self._retry_at.items() if due <= time.monotonic()]:
                del self._retry_at[trial_id]
                self._schedule.retry(trial_id)
            self.study.storage.watch(self._started_at, [*self._awaited(self._started_at)])
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
                    self._leave_out(self.trials[trial_id])
                case GiveUp(trial=trial_id, cause=cause):
                    self._give_up(self.trials[trial_id], keep=cause == "crashed")
                case EndBranches(trial=trial_id, branches=branches):
                    self._end_branches(trial_id, branches)
                case Done():
                    return False
        return True

    def _start(self, trial_id: str, nodes: tuple[str, ...], backend: Backend) -> None:
        trial = self.trials[trial_id]
        # Reserve before the start: if the driver dies in between, the next run finds the reservation and
        # books the trial's FLOPs, so that no computed FLOP is missing from the ledger.
        self.site.with_storage(partial(self.ledger.reserve, trial_id, trial.paid_flops))
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
        self._last[ended.trial] = span, ended.reason
        self.site.with_storage(partial(self.study.storage.fetch, ended.trial))
        self._see_milestones([ended.trial])
        if ended.how == "finished":
            assert isinstance(ended.value, Outcome)
            self._schedule.finish(ended.trial, milestone=_passed(trial, ended.value))
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
        # It may have been trained under another name of the same pairs (`budgets.planning.identity`).
        outcome = replace(outcome, row={**outcome.row, "quality": trial.cell.quality})
        self.outcomes[trial.trial_id] = outcome
        folder = self.folder(trial.trial_id)
        book = partial(book_outcome, self.ledger, trial, folder, outcome, self.progress.say)
        self.site.with_storage(book)
        self._loggers.finish(outcome.row, folder / "curve.parquet")
        if trial.previous and milestone(folder) is not None:  # longer trials continue from this one
            drop_milestone(self.folder(trial.previous))
            self.site.with_storage(partial(self.study.storage.give, trial.previous))

    def _book_lost(self, trial: Trial) -> None:
        folder = self.folder(trial.trial_id)
        book = partial(book_lost, self.ledger, trial, folder, self.progress.say)
        for path in self.site.with_storage(book):
            self.event("checkpoint-damaged", trial=trial.trial_id, file=path.name)
            self.progress.say(
                f"{self.words(trial)}: {path} is damaged and was removed; using the checkpoint before it"
            )

    def _book_given_up(self, trial: Trial) -> None:
        folder = self.folder(trial.trial_id)
        book = partial(book_given_up, self.ledger, trial.trial_id, folder, self.progress.say)
        self.site.with_storage(book)

    def _refuse_to_pay_again(self, todo: Agenda) -> None:
        paid = [trial for trial in todo.to_run if self.ledger.has_spent(trial.trial_id)]
        if paid and not self.site.pay_again:
            raise PaidBeforeError(
                f"{paid_again(paid)}: their results are not in {self.study.folder / 'trials'} any more. "
                f"Restore the folders (such as {paid[0].trial_id}), or use --pay-again"
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
            self._book_given_up(trial)
        self.site.with_storage(partial(write_failure, folder, reason))
        self.site.with_storage(partial(self.study.storage.give, trial.trial_id))
        self.event("trial-failed", **span, reason=reason)
        self.failures[trial.trial_id] = reason
        self._loggers.leave(trial.trial_id)
        self.progress.failed(trial, reason)

    def _can_start(self, trial: Trial) -> bool:
        """Return whether a trial needs no other one to run before it."""
        previous = self.trials.get(trial.previous)
        return (
            previous is None
            or kept_steps(self.folder(trial.trial_id)) > 0
            or milestone(self.folder(previous.trial_id)) is not None
            or (
                previous.trial_id in self.outcomes
                and _passed(previous, self.outcomes[previous.trial_id])  # lost: it is computed again
            )
        )

    def _end_lost_branches(self, waiting: Sequence[Trial]) -> list[Trial]:
        """Return the trials that can run; the others wait for a trial that ended before its milestone."""
        runs, lost = dict[str, Trial](), dict[str, list[str]]()
        for trial in sorted(waiting, key=lambda each: each.samples_seen):
            if self._can_start(trial) or trial.previous in runs:
                runs[trial.trial_id] = trial
                continue
            first = [each.trial_id for each in before(trial, self.trials)]
            ended = next((each for each in first if each in self.outcomes or each in self.failures), first[0])
            lost.setdefault(ended, []).append(trial.trial_id)
        for ended, branches in lost.items():
            self._end_branches(ended, branches)
        return [trial for trial in waiting if trial.trial_id in runs]

    def _end_branches(self, trunk: str, branches: Sequence[str]) -> None:
        """Record as failed the trials whose milestones a trial of their trunk did not reach; say it once."""
        outcome = self.outcomes.get(trunk)
        how = "failed" if outcome is None else "diverged"
        reason = f"its trunk ended: {self.words(self.trials[trunk])} {how} before its milestone"
        for trial_id in branches:
            self.site.with_storage(partial(write_failure, self.folder(trial_id), reason))
            self.site.with_storage(partial(self.study.storage.give, trial_id))
            self.failures[trial_id] = reason
        self.event("trunk-ended", trunk=trunk, branches=list(branches), reason=reason)
        self.progress.trunk_ended([self.trials[each] for each in branches], reason)

    def _see_milestones(self, trials: Iterable[str]) -> None:
        """Tell the schedule which trials have reached their milestones."""
        for trial_id in trials:
            if self.trials[trial_id].milestone_step and milestone(self.folder(trial_id)) is not None:
                self._schedule.milestone(trial_id)

    def _awaited(self, trials: Iterable[str]) -> Iterator[str]:
        """Yield the trials that have not reached their milestones."""
        for trial_id in trials:
            if self.trials[trial_id].milestone_step and milestone(self.folder(trial_id)) is None:
                yield trial_id

    def _leave_out(self, trial: Trial) -> None:
        """Book a trial that the budget has no room for; a later run with a larger budget starts it anew."""
        self._retry_at.pop(trial.trial_id, None)
        _, reason = self._last.get(trial.trial_id, ({}, "not started"))
        self._book_given_up(trial)
        self.site.with_storage(partial(self.study.storage.give, trial.trial_id))
        self.event("trial-left-out", trial=trial.trial_id, reason=f"{reason}; the budget has no room for it")
        self._remaining.append(trial)

    def _write_tables(self) -> None:
        began = time.monotonic()
        self.site.with_storage(self.write_tables)
        took_s = time.monotonic() - began
        self._tables_due = time.monotonic() + max(_WRITE_TABLES_S, _TABLES_PAUSE * took_s)


def _passed(trial: Trial, outcome: Outcome) -> bool:
    """Return whether a trial with a result got as far as its milestone."""
    return int(outcome.row["steps"]) >= trial.milestone_step
