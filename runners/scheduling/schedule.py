"""Pure state machine that decides which trial starts next and where; no Ray, no clock, no disk.

Trials start longest first, by predicted time × width, so that the last ones are short and narrow; each on the
nodes it fits best. A trial that fits nowhere now is skipped, and trials behind it may start. Nodes are kept
free for it, from the time at which it will have them by the predicted ends of others, if it has run before or
the others take hardly longer than it does; to keep them for each trial costs more than it gains
(docs/dev/log.md).

A trial that continues from the milestone of another trial waits until the milestone exists, and then runs
beside the other trial. Its length is added to that of the other, so that trunks start first. If a trial ends
without a milestone, those that wait for it are replaced: they continue from another trial, or from none.

What can happen to a trial in which state is in `runners.scheduling.trial_record.TRANSITIONS`. The schedule
alone owns retries: callers report how a trial ended, and carry out what it decides.

A trial whose worker died is retried before all others, until its retries are used up. If crashes lost so much
that the study budget is exceeded, and no running trial can leave room, the shortest trial with a reservation
releases it and waits as if it had never started. A trial is given up only if no other can leave room for it.

A trial that crashed or failed starts next on another node, and is given up only once it has failed on two
nodes, or sets of nodes, that differ, if two can hold it. A node that died gets no trial until it has
disappeared from the cluster's list of nodes. A node that fails out of proportion
(`runners.scheduling.node_health`) gets none for a while, or one at a time, unless a trial fits on no others.
"""

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import accumulate, chain
from typing import Literal

from runners.scheduling.instructions import GiveUp, Instruction, Retry, ScheduledTrial, SetBack, Start
from runners.scheduling.node_health import NodeHealth
from runners.scheduling.nodes import Amounts, Nodes, Use
from runners.scheduling.trial_record import Order, Record, State

_CRITICAL = 1.5  # the others may take this many times as long as a trial that nodes are kept for
_SOON_S = 60.0  # nodes are kept free for a retry that is due by then


class Schedule:
    """The state of a study's trials and of the nodes they run on.

    Each method reports an event; `instructions` returns what to do next. A trial is started again after its
    worker died ``retries`` consecutive times at most; the first pause before that takes ``backoff_s``
    seconds, and each further one four times as long.

    Attributes:
        now_s: Time of the next events, by the caller's clock.
    """

    def __init__(self, tasks: Iterable[ScheduledTrial], *, retries: int, backoff_s: float = 0.0) -> None:
        self.now_s = 0.0
        self._next = defaultdict[str, set[str]](set)  # trial → those that wait for its milestone
        self._records: dict[str, Record] = {}
        self._retries, self._backoff_s = retries, backoff_s
        # Queues by need: if the first trial of a queue does not fit, none of the queue does.
        self._waiting: dict[object, list[Order]] = {}
        self._delayed: dict[str, Record] = {}
        self._nodes, self._health = Nodes(), NodeHealth()
        self._draining = False
        self._pending: list[Instruction] = []
        self.add(tasks)

    def add(self, tasks: Iterable[ScheduledTrial]) -> None:
        """Add trials to those that wait."""
        added = {task.trial: task for task in tasks}
        for task in added.values():
            self._wait_for(task)
        for task in added.values():
            assert task.trial not in self._records, "a trial is scheduled once"
            state = State.BLOCKED if task.after else State.WAITING
            # Priority: Σ predicted_s × width of the trial and of all that wait for it.
            ahead_s = task.slot_s + sum(added[branch].slot_s for branch in self._following(task.trial))
            record = Record(task=task, state=state, set_aside=task.reserved, ahead_s=ahead_s)
            self._records[task.trial] = record
            if not task.after:
                self._queue(record)

    def see_nodes(self, nodes: Mapping[str, Amounts]) -> None:
        """Replace the cluster's nodes and their total resources."""
        self._nodes.see(nodes)

    def finish(self, trial: str, *, milestone: bool = True) -> None:
        """Record that a running trial has its result; ``milestone`` is False if it diverged too early.

        Then the trials that wait for its milestone are to be replaced, as after `GiveUp`.
        """
        record = self._record(trial, "finished")
        self._health.finished(trial, self._nodes.uses[trial], self.now_s, record.tried)
        self._leave(record, "finished")
        if milestone:
            self.milestone(trial)

    def milestone(self, trial: str) -> None:
        """Record that a trial's milestone exists; may be repeated."""
        for record in (self._records[dependent] for dependent in sorted(self._next[trial])):
            if record.state is State.BLOCKED:
                record.move("its milestone is there")
                self._queue(record)

    def replace(self, task: ScheduledTrial) -> None:
        """Replace a trial whose milestone will not come by the same one with another ``after`` or none."""
        record = self._record(task.trial, "continues without that milestone")
        self._next[record.task.after].remove(task.trial)
        record.task = task
        self._wait_for(task)
        if not task.after:
            record.move("continues without that milestone")
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
        """Record that a running trial raised an error of its own.

        It is tried once more on other nodes, if there are others, and else given up. ``full`` is True if a
        GPU has too little memory, which others have no more of.
        """
        record = self._record(trial, "failed")
        if full:
            self._give_up(record, "full")
        else:
            self._end_badly(record, "failed", last=True)

    def crash(self, trial: str, *, kept: int = 0, dead_nodes: Collection[str] = ()) -> None:
        """Record that a running trial's worker died, alone or with nodes it ran on.

        ``kept`` are the steps, or what else work is counted in, that it need not do again. If they are more
        than at its last crash, the count of its crashes restarts.
        """
        record = self._record(trial, "crashed")
        self._nodes.leave_out(dead_nodes)
        progressed = record.crash(kept)
        last = record.crashes > self._retries
        self._end_badly(record, "crashed", last=last, progressed=progressed, dead=bool(dead_nodes))

    def left(self, trial: str, *, dead_nodes: Collection[str] = ()) -> None:
        """Record that a running trial left through no fault of its own: its node was gone, for example."""
        self._nodes.leave_out(dead_nodes)
        record = self._record(trial, "left its nodes")
        self._leave(record, "left its nodes")
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
        for record in [delayed for delayed in self._delayed.values() if delayed.due_s <= self.now_s]:
            del self._delayed[record.task.trial]
            record.move("retried")
            self._queue(record)
        if room_flops is not None and not self._draining:
            self._keep_within(room_flops)
        self._pending += self._health.look(self._nodes.total, self._nodes.uses.values(), self.now_s)
        given, self._pending = self._pending, []
        return given if self._draining else given + self._starts(room_flops)

    def count(self, state: State) -> int:
        """Count the trials in a state."""
        return sum(record.state is state for record in self._records.values())

    def waiting(self) -> list[ScheduledTrial]:
        """Return the waiting trials, in the order in which they would start."""
        orders = sorted(order for queue in self._waiting.values() for order in queue)
        return [self._records[trial].task for *_, trial in orders]

    def blocked(self) -> list[ScheduledTrial]:
        """Return the trials that wait for a milestone."""
        return [record.task for record in self._records.values() if record.state is State.BLOCKED]

    def delayed(self) -> list[ScheduledTrial]:
        """Return the trials that wait before a retry."""
        return [record.task for record in self._delayed.values()]

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
        return [self._records[trial].task for trial in self._nodes.uses]

    def running_on(self, nodes: Collection[str]) -> list[str]:
        """Return the running trials that use any of some nodes."""
        return [trial for trial, use in self._nodes.uses.items() if not {*use.nodes}.isdisjoint(nodes)]

    def task(self, trial: str) -> ScheduledTrial:
        """Return a trial's task."""
        return self._records[trial].task

    @property
    def over(self) -> bool:
        """True if no trial is running and none will start."""
        if self._nodes.uses:
            return False
        return self._draining or not (self._waiting or self._delayed)

    def could_run(self, resources: Amounts, nodes: int) -> bool:
        """Return whether a trial would fit on the current nodes if nothing else ran."""
        return self._nodes.could_hold(resources, nodes)

    def slots(self, task: ScheduledTrial) -> int:
        """Count the trials of a kind that fit at once on the nodes in use."""
        return self._nodes.slots(task.resources, task.nodes, without=self._health.resting)

    def _end_badly(
        self, record: Record, cause: Literal["failed", "crashed"], *,
        last: bool, progressed: bool = False, dead: bool = False,
    ) -> None:  # fmt: skip
        """Retry a trial that failed; if this was its last attempt, only on other nodes, or give it up."""
        # 1. Which nodes may be at fault? A node that died says nothing about those that are left.
        task, use = record.task, self._nodes.uses[record.task.trial]
        if not dead:
            self._health.failed(task.trial, use, self.now_s)
        # 2. Where does it go next? Not to the node that has failed most trials, by name if equal: a guess.
        if last or not progressed:
            record.tried.append(frozenset(use.nodes))
            if last or (task.nodes == 1 and not dead):
                record.banned = max(use.nodes, key=lambda node: (self._health.suspect.get(node, 0), node))
        others = self._nodes.could_hold(task.resources, task.nodes, without={record.banned})
        # 3. Is it over? A trial is at fault only after two different sets of nodes have failed it.
        enough = len({*record.tried}) > 1 or len(record.tried) > self._retries + 1
        if last and (enough or not others):
            self._give_up(record, cause)
            return
        self._leave(record, cause)
        self._delayed[task.trial] = record
        record.due_s = self.now_s + record.pause_s(self._backoff_s)
        self._pending.append(Retry(trial=task.trial))

    def _keep_within(self, room_flops: int) -> None:
        """Once nothing runs: set back one trial if the budget is exceeded, or give up those without room."""
        if self._nodes.uses:  # they may leave room
            return
        records = self._records.values()
        idle = [record for record in records if record.state in {State.WAITING, State.DELAYED}]
        set_aside = [record for record in idle if record.set_aside]
        if room_flops < 0 and set_aside:
            # The shortest; one at a time, because the book then knows how much room that makes.
            self._set_back(min(set_aside, key=lambda record: record.ahead_s))
        elif not set_aside:
            for record in idle:
                if record.cost > room_flops:
                    self._give_up(record, "budget")

    def _starts(self, room_flops: int | None) -> list[Instruction]:
        # By priority, from a heap of the head of each queue; a queue whose head fits nowhere is dropped from
        # it. Retries that are due soon take part without a queue: nodes may be held for them.
        starts: list[Instruction] = []
        held_s, held = 0.0, set[str]()  # nodes held for the first trial that fits nowhere, from a time on
        places = Counter[object]()  # queue → the place in it that the walk has come to
        heads: list[tuple[Order, object]] = [(queue[0], key) for key, queue in self._waiting.items()]
        soon = [record for record in self._delayed.values() if record.due_s <= self.now_s + _SOON_S]
        heads += [(record.order, None) for record in soon]
        heapify(heads)
        while heads:
            order, key = heappop(heads)
            record = self._records[order[-1]]
            queue = self._waiting.get(key, [])
            too_long = bool(held) and self.now_s + record.task.predicted_s > held_s
            if room_flops is not None and record.cost > room_flops:
                places[key] += 1  # it keeps its place and waits for room in the budget
            elif queue and (nodes := self._place(record, held if too_long else set())):
                room_flops = None if room_flops is None else room_flops - record.cost
                starts.append(self._start(record, nodes))
            elif queue and too_long:  # a shorter one may end before the nodes are needed
                limit_s = held_s - self.now_s
                while places[key] < len(queue) and self.task(queue[places[key]][-1]).predicted_s > limit_s:
                    places[key] += 1
            else:  # nor does any other of its queue
                held_s, held = (held_s, held) if held else self._keep(record)
                continue
            if places[key] < len(queue):
                heappush(heads, (queue[places[key]], key))
        return starts

    def _place(self, record: Record, held: set[str]) -> tuple[str, ...]:
        """Return the nodes, not among those held, on which a trial starts now; none if it has to wait."""
        task, without = record.task, self._shunned(record) | held
        tried = frozenset[str]().union(*record.tried)
        # Beside sound nodes a suspect one shows whether it is at fault.
        first = self._health.suspect.keys() if task.nodes > 1 else ()
        return self._nodes.best_fit(task.resources, task.nodes, without=without, first=first, last=tried)

    def _shunned(self, record: Record) -> set[str]:
        """Return the nodes on which a trial does not start now: the most for which others could hold it."""
        # From the strictest choice to the most lenient; the last one is "no node is shunned".
        task, health, banned = record.task, self._health, {record.banned} - {""}
        choices = [health.resting | banned, banned]
        if task.nodes > 1:
            # With one suspect node at most, the end shows which one is at fault. The ban is a guess.
            choices[0] |= set(sorted(health.suspect.keys() - choices[0])[1:])
            choices[:1] = [choices[0] | health.apart, choices[0], health.resting]
        if record.tried:  # another trial tries a doubtful node: each failure may be this one's last
            choices.insert(0, choices[0] | health.doubtful)
        for shunned in choices:
            if self._nodes.could_hold(task.resources, task.nodes, without=shunned):
                return shunned if shunned is choices[-1] else shunned | health.probed
        return set()

    def _keep(self, record: Record) -> tuple[float, set[str]]:
        """Return the nodes that a trial will have first, and when; none if it can wait for its turn."""
        task, others = record.task, self._nodes.uses.items()
        # It can wait while the others take longer: then it is not the last to end. With k slots like its own
        # they take Σ seconds × width ÷ (k × its width), which is compared with 1.5 × its predicted_s.
        limit_s = _CRITICAL * task.slot_s * self.slots(task)
        running = ((use.until_s - self.now_s) * self.task(trial).width for trial, use in others)
        waiting = (-order[1] for queue in self._waiting.values() for order in queue)  # the trial, too
        if not record.started and any(all_s >= limit_s for all_s in accumulate(chain(running, waiting))):
            return 0.0, set()
        from_s, nodes = self._nodes.earliest(
            task.resources, task.nodes, without=self._shunned(record), now_s=self.now_s
        )
        return max(from_s, record.due_s), nodes

    def _start(self, record: Record, nodes: tuple[str, ...]) -> Start:
        self._unqueue(record)
        task, record.set_aside, record.started = record.task, True, True
        record.move("started", f" on {', '.join(nodes)}")
        until_s = self.now_s + task.predicted_s
        use = Use(nodes=nodes, resources=task.resources, since_s=self.now_s, until_s=until_s)
        self._nodes.take(task.trial, use)
        self._health.probed |= self._health.suspect.keys() & nodes
        return Start(trial=task.trial, nodes=nodes)

    def _leave(self, record: Record, event: str, details: str = "") -> None:
        self._nodes.give_back(record.task.trial)
        record.move(event, details)

    def _set_back(self, record: Record) -> None:
        record.move("set back")
        if self._delayed.pop(record.task.trial, None):
            self._queue(record)
        record.set_aside, record.crashes, record.kept = False, 0, 0
        self._pending.append(SetBack(trial=record.task.trial))

    def _give_up(self, record: Record, cause: Literal["failed", "full", "crashed", "budget"]) -> None:
        event = "no room in the budget" if cause == "budget" else "given up"
        if record.state is State.WAITING:
            self._unqueue(record)
        self._delayed.pop(record.task.trial, None)
        self._leave(record, event, "" if cause == "budget" else f": {cause}")
        self._pending.append(GiveUp(trial=record.task.trial, cause=cause))
        if cause == "budget":  # longer trials would need more
            for branch in self._following(record.task.trial):
                if self._records[branch].state is State.BLOCKED:
                    self._records[branch].move(event)
                    self._pending.append(GiveUp(trial=branch, cause=cause))

    def _following(self, trial: str) -> Iterator[str]:
        for branch in sorted(self._next[trial]):
            yield branch
            yield from self._following(branch)

    def _wait_for(self, task: ScheduledTrial) -> None:
        if task.after:
            self._next[task.after].add(task.trial)

    def _queue(self, record: Record) -> None:
        insort(self._waiting.setdefault(record.queue, []), record.order)

    def _unqueue(self, record: Record) -> None:
        queue = self._waiting[record.queue]
        queue.remove(record.order)
        if not queue:
            del self._waiting[record.queue]

    def _record(self, trial: str, event: str) -> Record:
        """Return the record of a trial to which an event of `TRANSITIONS` can happen now."""
        if trial not in self._records:
            raise ValueError(f"no trial {trial} in this schedule")
        self._records[trial].after(event)
        return self._records[trial]
