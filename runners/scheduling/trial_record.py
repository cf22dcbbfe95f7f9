"""A trial in a schedule: its state, what can happen to it in each state, and what has happened to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from runners.scheduling.instructions import ScheduledTrial

_BACKOFF = 4  # factor between the pauses before two retries

Order = tuple[bool, float, str]
"""Key that sorts trials by priority."""


class State(StrEnum):
    """State of a trial."""

    BLOCKED = "blocked"  # waits for the milestone of another trial
    WAITING = "waiting"
    DELAYED = "delayed"  # waits before a retry
    RUNNING = "running"
    DONE = "done"
    GIVEN_UP = "given up"


TRANSITIONS: Mapping[str, Mapping[State, State]] = {
    "its milestone is there": {State.BLOCKED: State.WAITING},
    "continues without that milestone": {State.BLOCKED: State.WAITING},
    "started": {State.WAITING: State.RUNNING},
    "finished": {State.RUNNING: State.DONE},
    "left its nodes": {State.RUNNING: State.WAITING},
    "crashed": {State.RUNNING: State.DELAYED},
    "failed": {State.RUNNING: State.DELAYED},
    "retried": {State.DELAYED: State.WAITING},
    "set back": {State.DELAYED: State.WAITING, State.WAITING: State.WAITING},
    "given up": {State.RUNNING: State.GIVEN_UP},
    "no room in the budget": dict.fromkeys((State.BLOCKED, State.WAITING, State.DELAYED), State.GIVEN_UP),
}
"""What happens to a trial → its state before → its state after. Nothing else can happen to it."""


@dataclass(kw_only=True, slots=True)
class Record:
    """A trial in a schedule, with what has happened to it."""

    task: ScheduledTrial
    state: State
    set_aside: bool  # its FLOPs are reserved
    ahead_s: float  # slot seconds of the trial and of those that wait for it, which set its priority
    crashes: int = 0  # consecutive ones, without progress
    kept: int = 0  # steps that its last crash left in a checkpoint
    started: bool = False
    due_s: float = 0.0  # time of its retry
    tried: list[frozenset[str]] = field(default_factory=list)  # nodes of each failure without progress
    banned: str = ""  # one of these, on which it does not start if others could hold it
    events: list[str] = field(default_factory=list)  # in words, for error messages

    @property
    def order(self) -> Order:
        """Key that sorts trials by priority: those started before, then longest first, then by name."""
        return (not self.started, -self.ahead_s, self.task.trial)

    @property
    def queue(self) -> tuple[object, ...]:
        """Key of the trials that fit on the same nodes."""
        return self.task.need, frozenset(self.tried), self.banned

    @property
    def cost(self) -> int:
        """Training FLOPs to reserve when it starts."""
        return 0 if self.set_aside else self.task.paid_flops

    def crash(self, kept: int) -> bool:
        """Count a crash; returns whether the trial has kept more steps than at its last one."""
        progressed, self.kept = kept > self.kept, kept
        if progressed:
            self.crashes, self.banned = 0, ""
            self.tried.clear()
        self.crashes += 1
        return progressed

    def pause_s(self, backoff_s: float) -> float:
        """Return the seconds before its retry."""
        # backoff_s × 4^(crashes - 1): a fault that passes gets time to pass, a hopeless trial soon ends.
        return float(backoff_s * _BACKOFF ** max(0, self.crashes - 1))

    def after(self, event: str) -> State:
        """Return the state after an event of `TRANSITIONS`.

        Raises:
            ValueError: It can't happen in the trial's state; the message tells what has happened before.
        """
        if self.state not in TRANSITIONS[event]:
            events, allowed = ", ".join(self.events) or "nothing yet", " or ".join(TRANSITIONS[event])
            raise ValueError(f"trial {self.task.trial} is {self.state}, not {allowed}; so far: {events}")
        return TRANSITIONS[event][self.state]

    def move(self, event: str, details: str = "") -> None:
        """Change the state by an event of `TRANSITIONS`, and note it."""
        self.state = self.after(event)
        self.events.append(event + details)
