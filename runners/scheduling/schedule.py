"""Pure state machine that decides which trial starts next and where; no Ray, no clock, no disk.

Trials start longest first, by predicted time × width, so that the last ones are short and narrow; each on the
nodes it fits best. A trial that fits nowhere now is skipped, and trials behind it may start. It cannot be
skipped forever, because a study is finite; keeping a node free for it costs more than it gains
(docs/dev/log.md).

A trial that continues from the milestone of another trial waits until the milestone exists, and then runs
beside the other trial. Its length is added to that of the other, so that trunks start first. If a trial ends
without a milestone, the one that waits for it is replaced: it continues from another trial, or from none.

A trial whose worker died is retried with its old priority until its retries are used up. If crashes lost so
much that the study budget is exceeded, and no running trial can leave room, the shortest trial with a
reservation releases it and waits as if it had never started. A trial is given up only if no other can leave
room for it. A trial that failed by itself (bad data, a bug) would fail again and is given up at once. A node
that died gets no trial until it has disappeared from the cluster's list of nodes. The same holds for a node
without usable devices, whose slots would be free for each trial in turn; it stays if a trial fits on no
other node.
"""

from bisect import insort
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from runners.scheduling.nodes import Amounts, Nodes


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Start the trial on these nodes and reserve its FLOPs."""

    trial: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Wait, longer for a higher ``attempt`` (from 1), then call `Schedule.retry`."""

    trial: str
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SetBack:
    """Book the trial's work as lost and release its reservation: crashes exceeded the budget."""

    trial: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """The trial will have no result.

    It failed, a GPU has too little memory, its retries are used up, or the budget has no room for it.
    """

    trial: str
    cause: Literal["failed", "full", "crashed", "budget"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaveOut:
    """The node gets no more trials: they found no usable device there."""

    node: str


Instruction = Start | Retry | SetBack | GiveUp | LeaveOut


class State(StrEnum):
    """State of a trial."""

    BLOCKED = "blocked"  # waits for the milestone of another trial
    WAITING = "waiting"
    DELAYED = "delayed"  # waits before a retry
    RUNNING = "running"
    DONE = "done"
    GIVEN_UP = "given up"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduledTrial:
    """A trial's properties that the schedule needs."""

    trial: str
    predicted_s: float
    resources: Amounts  # on each of its nodes
    nodes: int = 1
    paid_flops: int = 0  # training FLOPs to reserve when it starts
    reserved: bool = False  # by an earlier run
    after: str = ""  # trial whose milestone it waits for; empty if it can start at once

    @property
    def slot_s(self) -> float:
        """Predicted seconds × width, in GPUs or, without any, cores."""
        return self.predicted_s * self.nodes * (self.resources.get("gpus") or self.resources.get("cpus", 1))

    @property
    def need(self) -> tuple[tuple[tuple[str, float], ...], int]:
        """Resources and nodes; trials with equal needs fit on the same nodes."""
        return tuple(sorted(self.resources.items())), self.nodes


@dataclass(kw_only=True, slots=True)
class _Record:
    """A trial in a schedule, with what has happened to it."""

    task: ScheduledTrial
    state: State
    set_aside: bool  # its FLOPs are reserved
    ahead_s: float  # slot seconds of the trial and of those that wait for it, which set its priority
    crashes: int = 0  # consecutive ones, without progress
    events: list[str] = field(default_factory=list)  # in words, for error messages

    @property
    def order(self) -> tuple[float, str]:
        """Key that sorts trials by priority: longest first, equal ones by name."""
        return (-self.ahead_s, self.task.trial)

    @property
    def cost(self) -> int:
        """Training FLOPs to reserve when it starts."""
        return 0 if self.set_aside else self.task.paid_flops

    def move(self, state: State, event: str) -> None:
        """Change the state, and note the event that caused it."""
        self.events.append(event)
        self.state = state

    def require(self, state: State) -> None:
        """Raise ValueError, with the trial's events, unless it is in a state."""
        if self.state is not state:
            events = ", ".join(self.events) or "nothing yet"
            raise ValueError(f"trial {self.task.trial} is {self.state}, not {state}; so far: {events}")


class Schedule:
    """The state of a study's trials and of the nodes they run on.

    Each method reports an event; `instructions` returns what to do next. A trial is started again after its
    worker died ``retries`` consecutive times at most.
    """

    def __init__(self, tasks: Iterable[ScheduledTrial], *, retries: int) -> None:
        self._next: dict[str, str] = {}  # trial → the one that waits for its milestone
        self._records: dict[str, _Record] = {}
        self._retries = retries
        # Queues by need: if the first trial of a queue does not fit, none of the queue does.
        self._waiting: dict[object, list[tuple[float, str]]] = {}
        self._nodes = Nodes()
        self._draining = False
        self._pending: list[Instruction] = []
        self.add(tasks)

    def add(self, tasks: Iterable[ScheduledTrial]) -> None:
        """Add trials to those that wait."""
        added = {task.trial: task for task in tasks}
        self._next |= {task.after: task.trial for task in added.values() if task.after}
        for task in added.values():
            assert task.trial not in self._records, "a trial is scheduled once"
            state = State.BLOCKED if task.after else State.WAITING
            ahead_s = task.slot_s + sum(added[branch].slot_s for branch in self._following(task.trial))
            record = _Record(task=task, state=state, set_aside=task.reserved, ahead_s=ahead_s)
            self._records[task.trial] = record
            if not task.after:
                self._queue(record)
        self._nodes.readmit_for((task.resources, task.nodes) for task in added.values())

    def see_nodes(self, nodes: Mapping[str, Amounts]) -> None:
        """Replace the cluster's nodes and their total resources."""
        self._nodes.see(nodes)
        self._nodes.readmit_for(self._needs())

    def finish(self, trial: str, *, milestone: bool = True) -> None:
        """Record that a running trial has its result; ``milestone`` is False if it diverged too early.

        Then the trial that waits for its milestone is to be replaced, as after `GiveUp`.
        """
        record = self._running(trial)
        self._nodes.got_on(trial)
        self._leave(record, State.DONE, "finished")
        if milestone:
            self.milestone(trial)

    def milestone(self, trial: str) -> None:
        """Record that a trial's milestone exists; may be repeated."""
        record = self._records.get(self._next.get(trial, ""))
        if record is not None and record.state is State.BLOCKED:
            record.move(State.WAITING, "its milestone is there")
            self._queue(record)

    def replace(self, task: ScheduledTrial) -> None:
        """Replace a trial whose milestone will not come by the same one with another ``after`` or none."""
        record = self._record(task.trial, State.BLOCKED)
        del self._next[record.task.after]
        record.task = task
        if task.after:
            self._next[task.after] = task.trial
        else:
            record.move(State.WAITING, "continues without that milestone")
            self._queue(record)

    def change(self, trial: str, resources: Amounts, nodes: int) -> None:
        """Give a trial that does not run other resources and nodes."""
        record = self._records[trial]
        waits = record.state is State.WAITING
        if waits:
            self._unqueue(record)
        record.task = replace(record.task, resources=resources, nodes=nodes)
        if waits:
            self._queue(record)

    def fail(self, trial: str, *, full: bool = False) -> None:
        """Record that a running trial raised an error of its own, and give it up.

        ``full`` is True if a GPU has too little memory.
        """
        self._give_up(self._running(trial), "full" if full else "failed", "failed")

    def crash(
        self,
        trial: str,
        *,
        progressed: bool = False,
        no_device: bool = False,
        dead_nodes: Collection[str] = (),
    ) -> None:
        """Record that a running trial's worker died, alone or with nodes it ran on.

        If the trial has ``progressed`` further than before, the count of its crashes restarts. ``no_device``
        is True if it found no usable device on its nodes.
        """
        record = self._running(trial)
        self._nodes.leave_out(dead_nodes)
        if progressed:
            self._nodes.got_on(trial)
        elif no_device:
            self._nodes.refused(trial)
        record.crashes = 1 if progressed else record.crashes + 1
        if record.crashes > self._retries:
            self._give_up(record, "crashed", "crashed")
        else:
            self._leave(record, State.DELAYED, "crashed")
            self._pending.append(Retry(trial=trial, attempt=record.crashes))
        self._pending += [LeaveOut(node=node) for node in self._nodes.leave_out_faulty(self._needs())]

    def retry(self, trial: str) -> None:
        """Record that the delay after a trial's crash is over."""
        record = self._record(trial, State.DELAYED)
        record.move(State.WAITING, "retried")
        self._queue(record)

    def left(self, trial: str, *, dead_nodes: Collection[str] = ()) -> None:
        """Record that a running trial left through no fault of its own: its node was gone, for example."""
        self._nodes.leave_out(dead_nodes)
        record = self._running(trial)
        self._leave(record, State.WAITING, "left its nodes")
        self._queue(record)

    def drain(self) -> None:
        """Start no more trials; running trials may end."""
        self._draining = True

    def instructions(self, room_flops: int | None) -> list[Instruction]:
        """Return what to do now, in order; every instruction is returned once.

        ``room_flops`` are the training FLOPs of the study budget that are neither spent nor reserved, None
        without a budget; those of all started trials together fit into them. If they are below 0, because
        crashes lost work, nothing starts until a running trial leaves room; if none runs, one trial that
        waits with a reservation is set back.
        """
        if room_flops is not None and not self._draining:
            self._keep_within(room_flops)
        given, self._pending = self._pending, []
        return given if self._draining else given + self._starts(room_flops)

    def count(self, state: State) -> int:
        """Count the trials in a state."""
        return sum(record.state is state for record in self._records.values())

    def waiting(self) -> list[ScheduledTrial]:
        """Return the waiting trials, in the order in which they would start."""
        orders = sorted(order for queue in self._waiting.values() for order in queue)
        return [self._records[trial].task for _, trial in orders]

    def blocked(self) -> list[ScheduledTrial]:
        """Return the trials that wait for a milestone."""
        return [record.task for record in self._records.values() if record.state is State.BLOCKED]

    def delayed(self) -> list[ScheduledTrial]:
        """Return the trials that wait before a retry."""
        return [record.task for record in self._records.values() if record.state is State.DELAYED]

    @property
    def promised_flops(self) -> int:
        """Training FLOPs to reserve for trials that wait, for a slot or for a milestone of their trunk."""
        ahead = State.WAITING, State.BLOCKED
        return sum(record.cost for record in self._records.values() if record.state in ahead)

    def unfinished(self) -> list[str]:
        """Return the trials that wait, run, or wait before a retry."""
        ended = State.DONE, State.GIVEN_UP
        return [trial for trial, record in self._records.items() if record.state not in ended]

    def running(self) -> list[ScheduledTrial]:
        """Return the running trials."""
        return [self._records[trial].task for trial in self._nodes.users]

    def task(self, trial: str) -> ScheduledTrial:
        """Return a trial's task."""
        return self._records[trial].task

    @property
    def over(self) -> bool:
        """True if no trial is running and none will start."""
        if self._nodes.users:
            return False
        return self._draining or not (self._waiting or self.delayed())

    def could_run(self, resources: Amounts, nodes: int) -> bool:
        """Return whether a trial would fit on the current nodes if nothing else ran."""
        return self._nodes.could_hold(resources, nodes)

    def slots(self, task: ScheduledTrial) -> int:
        """Count the trials of a kind that fit at once on the living nodes."""
        return self._nodes.slots(task.resources, task.nodes)

    def _needs(self) -> Iterator[tuple[Amounts, int]]:
        for trial in self.unfinished():
            task = self._records[trial].task
            yield task.resources, task.nodes

    def _keep_within(self, room_flops: int) -> None:
        """Once nothing runs: set back one trial if the budget is exceeded, or give up those without room."""
        if self._nodes.users:  # they may leave room
            return
        records = self._records.values()
        idle = [record for record in records if record.state in {State.WAITING, State.DELAYED}]
        set_aside = [record for record in idle if record.set_aside]
        if room_flops < 0 and set_aside:
            # The shortest; one at a time, because the ledger then knows how much room that makes.
            self._set_back(max(set_aside, key=lambda record: record.order))
        elif not set_aside:
            for record in idle:
                if record.cost > room_flops:
                    self._give_up(record, "budget", "no room in the budget")

    def _starts(self, room_flops: int | None) -> list[Instruction]:
        starts: list[Instruction] = []
        skipped: list[_Record] = []
        queues = dict(self._waiting)
        while queues:
            need, queue = min(queues.items(), key=lambda item: item[1][0])
            record = self._records[queue[0][1]]
            task = record.task
            nodes = self._nodes.best_fit(task.resources, task.nodes)
            if not nodes:
                del queues[need]
                continue
            # Out of its queue at once: the next trial of the same need is tried on what is then free.
            self._unqueue(record)
            if need not in self._waiting:
                del queues[need]
            if room_flops is not None:
                if record.cost > room_flops:
                    skipped.append(record)
                    continue
                room_flops -= record.cost
            record.set_aside = True
            record.move(State.RUNNING, f"started on {', '.join(nodes)}")
            self._nodes.take(task.trial, nodes, task.resources)
            starts.append(Start(trial=task.trial, nodes=nodes))
        for record in skipped:  # they keep their place and wait for room in the budget
            self._queue(record)
        return starts

    def _leave(self, record: _Record, state: State, event: str) -> None:
        self._nodes.give_back(record.task.trial)
        record.move(state, event)

    def _set_back(self, record: _Record) -> None:
        if record.state is State.DELAYED:
            record.move(State.WAITING, "set back")
            self._queue(record)
        record.set_aside, record.crashes = False, 0
        self._pending.append(SetBack(trial=record.task.trial))

    def _give_up(
        self, record: _Record, cause: Literal["failed", "full", "crashed", "budget"], event: str
    ) -> None:
        if record.state is State.WAITING:
            self._unqueue(record)
        self._leave(record, State.GIVEN_UP, event)
        self._pending.append(GiveUp(trial=record.task.trial, cause=cause))
        if cause == "budget":  # longer trials would need more
            for branch in self._following(record.task.trial):
                if self._records[branch].state is State.BLOCKED:
                    self._records[branch].move(State.GIVEN_UP, event)
                    self._pending.append(GiveUp(trial=branch, cause=cause))

    def _following(self, trial: str) -> Iterator[str]:
        while trial in self._next:
            trial = self._next[trial]
            yield trial

    def _queue(self, record: _Record) -> None:
        insort(self._waiting.setdefault(record.task.need, []), record.order)

    def _unqueue(self, record: _Record) -> None:
        queue = self._waiting[record.task.need]
        queue.remove(record.order)
        if not queue:
            del self._waiting[record.task.need]

    def _running(self, trial: str) -> _Record:
        return self._record(trial, State.RUNNING)

    def _record(self, trial: str, state: State) -> _Record:
        if trial not in self._records:
            raise ValueError(f"no trial {trial} in this schedule")
        self._records[trial].require(state)
        return self._records[trial]
