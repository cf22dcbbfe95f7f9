"""Which trial starts next, and where: a pure state machine, events in, instructions out; no Ray, clock, disk.

Trials start longest first, by predicted time × width, so that the last ones to end are short and narrow;
each on the node that it fits best. One that fits nowhere now is passed by: nothing behind it waits. It can't
be passed by for ever, since a study is finite; to hold a node free for it costs more than it gains
(docs/dev/log.md).

A trial whose worker died is retried with its old priority until its retries are used up; one that failed by
itself (bad data, a bug) would fail again and is given up at once. A node that died gets nothing until it is
gone from the cluster's own list of nodes.
"""

from bisect import insort
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from runners.scheduling.nodes import Amounts, Nodes


class State(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    DELAYED = "delayed"  # it waits to be retried
    RUNNING = "running"
    DONE = "done"
    GIVEN_UP = "given up"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduledTrial:
    """What the schedule must know of a trial.

    Attributes:
        trial: The trial's id.
        predicted_s: How long it will probably run, in seconds.
        resources: What it occupies on each of its nodes.
        nodes: How many nodes it runs on at once.
        train_flops: Training FLOPs to be set aside when it starts; 0 where that was done in an earlier run.
    """

    trial: str
    predicted_s: float
    resources: Amounts
    nodes: int = 1
    train_flops: int = 0

    @property
    def slot_s(self) -> float:
        """Predicted seconds × width: GPUs, or cores where it has none."""
        return self.predicted_s * self.nodes * (self.resources.get("gpus") or self.resources.get("cpus", 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Start the trial on these nodes; its FLOPs are to be set aside."""

    trial: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preempt:
    """Make the trial checkpoint and leave its nodes; `Schedule.left` is to be told of it."""

    trial: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Let some time pass, the longer the higher ``attempt`` (from 1), then tell `Schedule.retry`."""

    trial: str
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """The trial gives no result: it failed, its retries are used up, or the budget has no room for it."""

    trial: str
    cause: Literal["failed", "crashed", "budget"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """Nothing runs, and nothing will."""


Instruction = Start | Preempt | Retry | GiveUp | Done


@dataclass(kw_only=True, slots=True)
class _Story:
    task: ScheduledTrial
    state: State = State.WAITING
    set_aside: bool
    crashes: int = 0
    events: list[str] = field(default_factory=list)

    @property
    def order(self) -> tuple[float, str]:
        return (-self.task.slot_s, self.task.trial)

    @property
    def cost(self) -> int:
        return 0 if self.set_aside else self.task.train_flops


class Schedule:
    """The state of a study's trials and of the nodes that they run on.

    Events are told by its methods; what is to be done then is asked of `instructions`.

    Args:
        tasks: The trials to run.
        retries: How often in a row a trial is started again after its worker died.
    """

    def __init__(self, tasks: Iterable[ScheduledTrial], *, retries: int) -> None:
        self._stories = {task.trial: _Story(task=task, set_aside=not task.train_flops) for task in tasks}
        self._retries = retries
        self._counts = Counter(story.state for story in self._stories.values())
        # By what they need: where the first of equals does not fit, none of them does.
        self._waiting: dict[tuple[object, ...], list[tuple[float, str]]] = {}
        for story in sorted(self._stories.values(), key=lambda each: each.order):
            self._waiting.setdefault(_need(story.task), []).append(story.order)
        self._nodes = Nodes()
        self._draining = False
        self._pending: list[Instruction] = []

    def see_nodes(self, nodes: Mapping[str, Amounts]) -> None:
        """The cluster has these nodes now, with so much in all on each."""
        self._nodes.see(nodes)

    def finish(self, trial: str) -> None:
        """A running trial gave its result."""
        self._leave(self._running(trial), State.DONE, "finished")

    def fail(self, trial: str) -> None:
        """A running trial raised an error of its own: it is given up."""
        self._give_up(self._running(trial), "failed", "failed")

    def crash(self, trial: str, *, progressed: bool = False, dead_nodes: Collection[str] = ()) -> None:
        """A running trial's worker died, with nodes that it ran on or without.

        Args:
            trial: The trial.
            progressed: Whether it got further than the time before; its crashes count from there.
            dead_nodes: The nodes that died.
        """
        story = self._running(trial)
        self._nodes.leave_out(dead_nodes)
        story.crashes = 1 if progressed else story.crashes + 1
        if story.crashes > self._retries:
            self._give_up(story, "crashed", "crashed")
        else:
            self._leave(story, State.DELAYED, "crashed")
            self._pending.append(Retry(trial=trial, attempt=story.crashes))

    def retry(self, trial: str) -> None:
        """Enough time has passed since a trial's crash."""
        story = self._story(trial, State.DELAYED)
        self._move(story, State.WAITING, "retried")
        self._queue(story)

    def left(self, trial: str, *, dead_nodes: Collection[str] = ()) -> None:
        """A running trial left by no fault of its own: preempted, or sent to a node that was gone."""
        self._nodes.leave_out(dead_nodes)
        story = self._running(trial)
        self._leave(story, State.WAITING, "left its nodes")
        self._queue(story)

    def preempt(self, trial: str) -> None:
        """A running trial must leave its nodes."""
        self._running(trial).events.append("preempted")
        self._pending.append(Preempt(trial=trial))

    def drain(self) -> None:
        """Nothing more is to start; what runs may end."""
        self._draining = True

    def instructions(self, room_flops: int | None) -> list[Instruction]:
        """Says what is to be done now; every instruction is given once.

        Args:
            room_flops: Training FLOPs of the study budget that are neither gone nor set aside; None without a
                budget. Below 0, after a crash lost work, it is a delayed trial that has to go.

        Returns:
            The instructions, in order. The FLOPs of what starts fit into the room together.
        """
        for story in self._over_budget(room_flops):
            self._give_up(story, "budget", "no room in the budget")
        given, self._pending = self._pending, []
        if not self._draining:
            given += self._starts(room_flops)
        return [*given, Done()] if self.over else given

    def count(self, state: State) -> int:
        """Count the trials in a state."""
        return self._counts[state]

    def waiting(self) -> list[ScheduledTrial]:
        """Return the trials that wait, first those that start first."""
        orders = sorted(order for queue in self._waiting.values() for order in queue)
        return [self._stories[trial].task for _, trial in orders]

    def running(self) -> list[ScheduledTrial]:
        """Return the trials that run."""
        return [self._stories[trial].task for trial in self._nodes.users]

    def task(self, trial: str) -> ScheduledTrial:
        """Return a trial's task."""
        return self._stories[trial].task

    @property
    def over(self) -> bool:
        """Whether nothing runs, and nothing will."""
        if self._counts[State.RUNNING]:
            return False
        return self._draining or not (self._counts[State.WAITING] or self._counts[State.DELAYED])

    def could_run(self, resources: Amounts, nodes: int) -> bool:
        """Return whether there is room for a trial on the nodes that there are, were nothing else on them."""
        return self._nodes.could_hold(resources, nodes)

    def slots(self, task: ScheduledTrial) -> int:
        """Count how many trials of a kind run at once, node by node, on the nodes that live."""
        return self._nodes.slots(task.resources, task.nodes)

    def _over_budget(self, room_flops: int | None) -> list[_Story]:
        """Find the trials that have to go, or that nothing which still runs can make room for."""
        stands = not self._counts[State.RUNNING] and not self._counts[State.DELAYED]
        if room_flops is None or (room_flops >= 0 and not stands):
            return []
        idle = [each for each in self._stories.values() if each.state in {State.WAITING, State.DELAYED}]
        set_aside = sorted((each for each in idle if each.set_aside), key=lambda each: each.order)
        if room_flops < 0 and set_aside:
            return set_aside[-1:]  # how much room that makes, the book will tell
        return [each for each in idle if each.cost > room_flops] if stands else []

    def _starts(self, room_flops: int | None) -> list[Instruction]:
        starts: list[Instruction] = []
        skipped: list[_Story] = []
        queues = dict(self._waiting)
        while queues:
            need, queue = min(queues.items(), key=lambda item: item[1][0])
            story = self._stories[queue[0][1]]
            nodes = self._nodes.best_fit(story.task.resources, story.task.nodes)
            if not nodes:
                del queues[need]
                continue
            del queue[0]
            if room_flops is not None and story.cost > room_flops:
                skipped.append(story)
            else:
                room_flops = None if room_flops is None else room_flops - story.cost
                story.set_aside = True
                self._move(story, State.RUNNING, f"started on {', '.join(nodes)}")
                self._nodes.take(story.task.trial, nodes, story.task.resources)
                starts.append(Start(trial=story.task.trial, nodes=nodes))
            if not queue:
                del queues[need], self._waiting[need]
        for story in skipped:
            self._queue(story)
        return starts

    def _leave(self, story: _Story, state: State, event: str) -> None:
        self._nodes.give_back(story.task.trial)
        self._move(story, state, event)

    def _give_up(self, story: _Story, cause: Literal["failed", "crashed", "budget"], event: str) -> None:
        if story.state is State.WAITING:
            self._unqueue(story)
        retry = Retry(trial=story.task.trial, attempt=story.crashes)
        self._pending = [each for each in self._pending if each != retry]
        self._leave(story, State.GIVEN_UP, event)
        self._pending.append(GiveUp(trial=story.task.trial, cause=cause))

    def _queue(self, story: _Story) -> None:
        insort(self._waiting.setdefault(_need(story.task), []), story.order)

    def _unqueue(self, story: _Story) -> None:
        need = _need(story.task)
        self._waiting[need].remove(story.order)
        if not self._waiting[need]:
            del self._waiting[need]

    def _running(self, trial: str) -> _Story:
        return self._story(trial, State.RUNNING)

    def _story(self, trial: str, state: State) -> _Story:
        if trial not in self._stories:
            raise ValueError(f"no trial {trial} in this schedule")
        story = self._stories[trial]
        if story.state is not state:
            told = ", ".join(story.events) or "nothing yet"
            raise ValueError(f"trial {trial} is {story.state}, not {state}; so far: {told}")
        return story

    def _move(self, story: _Story, state: State, event: str) -> None:
        story.events.append(event)
        self._counts[story.state] -= 1
        self._counts[state] += 1
        story.state = state


def _need(task: ScheduledTrial) -> tuple[object, ...]:
    return (task.nodes, *sorted(task.resources.items()))
