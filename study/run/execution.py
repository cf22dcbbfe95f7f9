"""The loop that runs trials: follows the schedule, starts and stops trials, retries them, writes tables.

`study.run.pipeline.Run` (the grid) and `study.run.run_tuning.Round` (the tuning) build on it. They differ
in the names of their trials, in the budget they may use, and in the tables they write.
"""

import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import inf
from typing import ClassVar

from budgets.declaration.rules import CPUS_PER_GPU
from budgets.planning.plan import TOO_LARGE, Plan
from budgets.planning.planned_trial import Trial
from budgets.planning.price import wall_s
from budgets.planning.resources import estimated_memory, words_of_settings
from budgets.quantity import format_seconds
from runners.scheduling.backend import Backend, ClusterLostError, Ended, Job
from runners.scheduling.cluster import LiveCluster
from runners.scheduling.instructions import GiveUp, LeaveOut, Retry, ScheduledTrial, SetBack, Start
from runners.scheduling.nodes import cores_per_gpu
from runners.scheduling.schedule import Schedule
from runners.scheduling.trial_record import State
from runners.trials.run_on_node import run_trial, take_part
from runners.trials.trial_files import Outcome, kept_steps, milestone
from study.run.books import Books, RunSummary
from study.run.run_context import RunContext
from study.show.progress import Progress
from study.state.plan_study import device_name, measured_throughput, plan_study
from study.state.study import Study, needs, trial_job
from study.state.trial_states import passed_milestone

_WAIT_S = 0.5
_END_S = 20.0  # before the limit of a request to stop, trials are ended, and the run then ends itself
_LEAVE_S = 120.0  # time in which trials may leave before an error ends the run
_WRITE_TABLES_S = 5.0
_TABLES_PAUSE = 20  # pause between writes, in multiples of the last write's duration: at most 5 % of the time


class Execution(Books):
    """A run of the trials of one part of a study: its tuning or its grid.

    Attributes:
        name: Name of the part in events.
    """

    name: ClassVar[str]

    def __init__(
        self, study: Study, plan: Plan, trials: Sequence[Trial], progress: Progress, site: RunContext
    ) -> None:
        super().__init__(study, plan, trials, progress, site)
        self._stopped = ""
        self._cores: int | None = None  # of the nodes for each GPU
        self._within_s, self._kill_at = inf, inf  # limit of a request to stop, and when trials are ended
        self._ends: dict[str, tuple[dict[str, object], str]] = {}  # time span and reason of the last end
        self._started_at: dict[str, tuple[int, float]] = {}
        self._run_ids = set[str]()  # trials that the schedule has or had
        self._tables_due = 0.0

    @property
    @abstractmethod
    def room_flops(self) -> int | None:
        """Training FLOPs neither spent nor reserved (None: no limit); negative if crashes wasted too much."""

    @abstractmethod
    def show_result(self, trial: Trial, outcome: Outcome) -> None:
        """Show a trial that has just ended with a result."""

    @abstractmethod
    def write_tables(self) -> None:
        """Write the results so far as tables."""

    def run(self, waiting: Sequence[Trial], backend: Backend) -> None:
        """Run trials until each has a result, has failed, has no room in the budget, or was stopped.

        Raises:
            ValueError: A trial does not fit on the nodes of the cluster.
        """
        # Each round of the loop: carry out the schedule's decisions, choose further trials, look at the
        # cluster, then wait for the backend. Ended trials are recorded before the schedule decides again.
        self.site.with_storage(self.link)
        self._measured = measured_throughput(self.study, self.plan)
        self._take_cores(cores_per_gpu(backend.nodes().values()))
        limits = self.study.declaration.resources
        self._schedule = Schedule(
            self._scheduled(waiting), retries=limits.retries, backoff_s=limits.backoff_s
        )
        self.site.listen()
        cluster = self.site.look_around(self._schedule, backend)
        slots = cluster.slots
        self.event(f"{self.name}-started", slots=slots, trials=len(waiting))
        with self._left_on_error(backend):
            self._stop_if_requested(backend)  # perhaps while the pool was built
            while True:
                self._carry_out(backend)  # first, so that a trial given up is not chosen again
                if further := self._scheduled(self._further(slots)):
                    self._schedule.add(further)
                    self._carry_out(backend)
                if self._schedule.over:
                    break
                self._leave_nodes(backend, cluster)
                cluster.look()
                if cluster.slots != slots:
                    slots = cluster.slots
                    self.event("slots-changed", slots=slots)
                self._stop_if_requested(backend)
                for ended in cluster.wait(_WAIT_S):
                    self._end(ended)
                self.study.storage.watch(self._started_at, self._awaited(self._started_at))
                self.progress.tick(self._started_at, slots=slots)
                self.loggers.follow(self.trials, self._started_at)
                if time.monotonic() > self._tables_due:
                    self._write_tables()
        self.event(f"{self.name}-ended")
        self.loggers.close()

    def _take_cores(self, share: int | None) -> None:
        """Give trials whose cores were assumed the nodes' cores of each GPU, which the plan does not know."""
        self._cores = share
        for trial_id, trial in self.trials.items():
            self.trials[trial_id] = replace(trial, resources=trial.resources.on_nodes(share))
        if share is not None and any(trial.resources.assumed for trial in self.trials.values()):
            self.progress.detail(f"cores a GPU: {share}, the nodes' share ({CPUS_PER_GPU} were assumed)")

    def _scheduled(self, trials: Sequence[Trial]) -> list[ScheduledTrial]:
        """Return trials as tasks; each waits for the shorter one of its trunk if that runs and it must."""
        self._run_ids.update(trial.trial_id for trial in trials)
        return [
            ScheduledTrial(
                trial=trial.trial_id,
                predicted_s=wall_s(trial, self.plan.cluster, self._measured).middle,
                resources=needs(self.study, trial),
                nodes=trial.resources.nodes,
                paid_flops=trial.paid_flops,
                reserved=self.book.of(trial.trial_id).reserved_flops > 0,
                after="" if self.can_start(trial) or trial.previous not in self._run_ids else trial.previous,
            )
            for trial in (self.trials[trial.trial_id] for trial in trials)
        ]

    def _link_again(self, ended: Trial) -> None:
        """Have longer trials of a trunk go on without a trial that ended, if it left no milestone."""
        folder, look = self.study.trial_folder(ended.trial_id), self.site.with_storage
        if not ended.keeps_milestone or look(milestone, folder) is not None:
            return
        look(self.link)
        for task in self._schedule.blocked():
            (linked,) = self._scheduled([self.trials[task.trial]])
            if linked.after != task.after:
                self._schedule.replace(linked)
                self.progress.add_trials([self.trials[task.trial]])

    @contextmanager
    def _left_on_error(self, backend: Backend) -> Iterator[None]:
        """Context manager: before an error is raised, running trials write a checkpoint and leave."""
        try:
            yield
        except ClusterLostError:
            raise
        except Exception:
            if left := set(self._started_at):
                self.progress.say("the run ends with an error: running trials write a checkpoint and exit")
            with suppress(Exception):  # must not hide the first one
                for trial_id in left:
                    backend.ask_to_leave(trial_id)
                until = time.monotonic() + _LEAVE_S
                while left and time.monotonic() < until:
                    left -= {ended.trial for ended in backend.wait(_WAIT_S)}
            raise

    def link(self) -> None:
        """Update which shorter trial of its trunk each trial continues from, if the trials have trunks."""

    def further(self, slots: int, waiting: Sequence[str], room_flops: int | None) -> Sequence[Trial]:  # noqa: ARG002
        """Return up to ``slots`` trials to add to those that run or wait; none by default.

        ``room_flops`` are neither spent nor set aside for those that run or wait; None without a limit.
        """
        return ()

    @property
    def result(self) -> RunSummary:
        """The trials without a result so far."""
        return RunSummary(
            plan=self.plan, failures=self.failures, remaining=tuple(self.remaining), stopped=self._stopped
        )

    def _further(self, slots: int) -> Sequence[Trial]:
        """Return trials to add if fewer trials run or wait than there are slots."""
        waiting = self._schedule.unfinished()
        # Trials that wait for a milestone do not take a slot yet.
        free = max(1, slots) - len(waiting) + self._schedule.count(State.BLOCKED)
        if free <= 0 or self._stopped:
            return ()
        # `room_flops` leaves out what is reserved, but not what waiting trials will reserve.
        room = self.room_flops
        return self.further(free, waiting, None if room is None else room - self._schedule.promised_flops)

    def _stop_if_requested(self, backend: Backend) -> None:
        """Ask all running trials to stop if the run was asked to stop."""
        source, now = self.site.stop_source(), time.monotonic()
        if self.site.within_s is not None and self.site.within_s < self._within_s:
            self._within_s = self.site.within_s
            self._kill_at = now + self._within_s - min(_END_S, self._within_s / 2)
        for trial_id in list(self._started_at) if now >= self._kill_at else ():
            backend.ask_to_leave(trial_id, at_once=True)
            if now >= self._kill_at + _END_S / 2:  # no longer wait until it has ended
                self._end(Ended(trial=trial_id, how="left"))
        if self._stopped or not source:
            return
        self._stopped = source
        self._schedule.drain()
        self.event("study-stopping", reason=source)
        self.progress.say(f"stopped by {source}: running trials write a checkpoint and exit")
        for trial_id in self._started_at:
            backend.ask_to_leave(trial_id)

    def _leave_nodes(self, backend: Backend, cluster: LiveCluster) -> None:
        """Stop the trials of nodes that the run is asked to leave, and start no more there."""
        for name in self.site.nodes_to_leave():
            nodes = backend.nodes_named(name)
            running = self._schedule.running_on(nodes)
            if cluster.leave(nodes):
                self.site.leave_out(name, f"asked to leave node {name}", "its trials continue elsewhere")
                for trial_id in running:
                    backend.ask_to_leave(trial_id)
            if not nodes:
                self.progress.say(f"asked to leave node {name}: the cluster has no node of this name")
            if not running:
                self.site.with_storage(self.study.storage.left, name)

    def _carry_out(self, backend: Backend) -> None:
        for instruction in self._schedule.instructions(self.room_flops):
            match instruction:
                case Start(trial=trial_id, nodes=nodes):
                    self._start(trial_id, nodes, backend)
                case Retry(trial=trial_id):
                    span, reason = self._ends[trial_id]
                    self.event("trial-retried", **span, reason=reason)
                    title = self.title(self.trials[trial_id])
                    self.progress.say(f"{title}: {reason}; retrying from its last checkpoint")
                case SetBack(trial=trial_id):
                    self.set_back(self.trials[trial_id])
                case GiveUp(trial=trial_id, cause="budget"):
                    _, reason = self._ends.get(trial_id, ({}, "not started"))
                    self.leave_out(self.trials[trial_id], reason)
                case GiveUp(trial=trial_id, cause=cause):
                    steps = self.site.with_storage(kept_steps, self.study.trial_folder(trial_id))
                    keep = cause == "crashed" or (cause == "full" and steps > 0)
                    self.give_up(self.trials[trial_id], *self._ends[trial_id], keep=keep)
                    self._link_again(self.trials[trial_id])
                case LeaveOut(node=node, failures=0):
                    self.progress.say(f"node {node} is used again")
                case LeaveOut(node=node, failures=failures, wait_s=wait_s):
                    why = f"trials failed on node {node} ({failures} times), and not on others"
                    how = f"it gets one trial in {format_seconds(wait_s)}, and others if this gets on"
                    self.site.leave_out(node, why, how)

    def _start(self, trial_id: str, nodes: tuple[str, ...], backend: Backend) -> None:
        trial = self.trials[trial_id]
        self._reserve(trial)
        self.site.with_storage(self.study.storage.announce, trial_id)
        # The lowest free number: events use it to show which trials ran one after the other.
        taken = {slot for slot, _ in self._started_at.values()}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        where = {"nodes": nodes} if backend.binds else {}
        self.event("trial-started", trial=trial_id, slot=slot, devices=trial.resources.devices, **where)
        backend.start(
            Job(
                trial=trial_id,
                run=self.study.storage.call(
                    run_trial if len(nodes) == 1 else take_part,
                    self.site.with_storage(trial_job, self.study, trial, self.trials),
                    nodes=len(nodes),
                ),
                nodes=nodes,
                resources=self._schedule.task(trial_id).resources,
                ranks=trial.resources.ranks_per_node,
            )
        )
        self._started_at[trial_id] = (slot, time.monotonic())

    def _reserve(self, trial: Trial) -> None:
        account = self.book.of(trial.trial_id)
        self.book.trials[trial.trial_id] = replace(account, reserved_flops=trial.paid_flops)

    def _end(self, ended: Ended) -> None:
        if ended.trial not in self._started_at:  # it was not waited for any longer
            return
        trial = self.trials[ended.trial]
        if ended.how in {"left", "crashed"} and time.monotonic() >= self._kill_at:
            ended = replace(ended, how="left", reason=f"had not left within {self._within_s:g} s")
        # Fetch the trial's files first: result, meter and milestone are read from its folder.
        slot, started_at = self._started_at.pop(ended.trial)
        span = {"trial": ended.trial, "slot": slot, "wall_s": time.monotonic() - started_at}
        self._ends[ended.trial] = span, ended.reason
        self.site.with_storage(self.study.storage.fetch, ended.trial)
        self._awaited([ended.trial])
        if ended.how == "finished":
            assert isinstance(ended.value, Outcome)
            self._schedule.finish(ended.trial, milestone=passed_milestone(trial, ended.value))
            timing = {name: value for name, value in ended.value.timing.items() if name != "wall_s"}
            self.event("trial-finished", **span, **timing)
            self.book_outcome(trial, ended.value)
            self.show_result(trial, ended.value)
            self._link_again(trial)
            return
        self.book_lost(trial)
        self._reserve(trial)  # until it is given up or set back
        self.write_book()
        if ended.how == "full" and self._with_less_memory(trial, span):
            return
        if ended.how in {"failed", "full"}:
            self._schedule.fail(ended.trial, full=ended.how == "full")
        elif ended.how == "crashed":
            kept = self.site.with_storage(kept_steps, self.study.trial_folder(ended.trial))
            self._schedule.crash(ended.trial, kept=kept, dead_nodes=ended.dead_nodes)
        else:
            self.event("trial-left", **span, reason=ended.reason)
            if not self._stopped:
                self.progress.say(
                    f"{self.title(trial)}: {ended.reason}; it will continue from its checkpoint"
                )
            self._schedule.left(ended.trial, dead_nodes=ended.dead_nodes)

    def _with_less_memory(self, trial: Trial, span: Mapping[str, object]) -> bool:
        """Let a trial that was too large for a GPU go on, and those of its kind start, with other settings.

        Returns:
            False if the plan has no settings that need less memory.
        """
        (architecture, strategy), batch = kind = trial.cell.combination, trial.batch_size
        facts = {"architecture": architecture, "strategy": strategy, "batch_size": batch}
        facts |= {"device": device_name(self.study.declaration), "memory_bytes": estimated_memory(trial)}
        self.event(TOO_LARGE, **span, **facts)
        planned = {new.trial_id: new for new in self.site.with_storage(plan_study, self.study).all_trials}
        new = planned.get(trial.trial_id, trial)
        resources = new.resources.on_nodes(self._cores)
        if (new.recipe, resources) == (trial.recipe, trial.resources):
            return False
        self.progress.say(
            f"{self.title(trial)}: too large with {words_of_settings(trial)}; it continues, and others of "
            f"its kind start, with {words_of_settings(new)}"
        )
        self._schedule.left(trial.trial_id)
        fixed = {task.trial for task in self._schedule.running()}
        scheduled = self._schedule.unfinished()
        for old in [candidate for candidate in self.trials.values() if candidate.trial_id not in fixed]:
            new = planned.get(old.trial_id, old)
            if (new.cell.combination, new.batch_size) == kind:
                changed = replace(old, recipe=new.recipe, resources=new.resources.on_nodes(self._cores))
                self.trials[old.trial_id] = changed
                if old.trial_id in scheduled:
                    needed = needs(self.study, changed)
                    self._schedule.change(old.trial_id, needed, changed.resources.nodes)
        return True

    def _awaited(self, trials: Iterable[str]) -> list[str]:
        """Return the trials whose milestones are still missing; report those that exist to the schedule."""
        awaited = []
        for trial_id in trials:
            if self.trials[trial_id].keeps_milestone:
                if self.site.with_storage(milestone, self.study.trial_folder(trial_id)) is None:
                    awaited.append(trial_id)
                else:
                    self._schedule.milestone(trial_id)
        return awaited

    def _write_tables(self) -> None:
        began = time.monotonic()
        self.site.with_storage(self.write_tables)
        self.write_book()
        took_s = time.monotonic() - began
        self._tables_due = time.monotonic() + max(_WRITE_TABLES_S, _TABLES_PAUSE * took_s)
