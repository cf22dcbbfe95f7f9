"""Terms of a schedule: its trials with what has happened to them, and the instructions that it gives."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from runners.scheduling.nodes import Amounts


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Start the trial on these nodes and reserve its FLOPs."""

    trial: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """The trial crashed or failed and will start again, after a pause, on other nodes if it can."""

    trial: str


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
    """Trials failed on the node and not on others: it gets none for some seconds, and then one.

    Without failures, it is in use again.
    """

    node: str
    failures: int
    wait_s: float


Instruction = Start | Retry | SetBack | GiveUp | LeaveOut


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
    def width(self) -> float:
        """GPUs or, without any, cores on all of its nodes."""
        return self.nodes * (self.resources.get("gpus") or self.resources.get("cpus", 1))

    @property
    def slot_s(self) -> float:
        """Predicted seconds × width."""
        return self.predicted_s * self.width

    @property
    def need(self) -> tuple[tuple[tuple[str, float], ...], int]:
        """Resources and nodes; trials with equal needs fit on the same nodes."""
        return tuple(sorted(self.resources.items())), self.nodes


@dataclass(kw_only=True, slots=True)
class Record:
    """A trial in a schedule, with what has happened to it."""

    task: ScheduledTrial
    state: State
    set_aside: bool  # its FLOPs are reserved
    ahead_s: float  # slot seconds of the trial and of those that wait for it, which set its priority
    crashes: int = 0  # consecutive ones, without progress
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

    def move(self, state: State, event: str) -> None:
        """Change the state, and note the event that caused it."""
        self.events.append(event)
        self.state = state

    def require(self, state: State) -> None:
        """Raise ValueError, with the trial's events, unless it is in a state."""
        if self.state is not state:
            events = ", ".join(self.events) or "nothing yet"
            raise ValueError(f"trial {self.task.trial} is {self.state}, not {state}; so far: {events}")
