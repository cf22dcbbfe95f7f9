"""A trial in a schedule: its properties, its state and its events."""

from dataclasses import dataclass, field
from enum import StrEnum

from runners.scheduling.nodes import Amounts


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
    """A trial's properties that the schedule needs.

    Attributes:
        trial: The trial's id.
        predicted_s: Predicted duration in seconds.
        resources: Resources it occupies on each of its nodes.
        nodes: Number of nodes it runs on at once.
        paid_flops: Training FLOPs to reserve when it starts.
        reserved: True if an earlier run reserved them.
        after: Trial whose milestone it waits for; empty if it can start at once.
    """

    trial: str
    predicted_s: float
    resources: Amounts
    nodes: int = 1
    paid_flops: int = 0
    reserved: bool = False
    after: str = ""

    @property
    def slot_s(self) -> float:
        """Predicted seconds × width, in GPUs or, without any, cores."""
        return self.predicted_s * self.nodes * (self.resources.get("gpus") or self.resources.get("cpus", 1))

    @property
    def need(self) -> tuple[tuple[tuple[str, float], ...], int]:
        """Resources and nodes; trials with equal needs fit on the same nodes."""
        return tuple(sorted(self.resources.items())), self.nodes


@dataclass(kw_only=True, slots=True)
class Record:
    """A trial in a schedule.

    Attributes:
        task: The trial.
        state: Its state.
        set_aside: True if its FLOPs are reserved.
        ahead_s: Slot seconds of the trial and of those that wait for it, which set its priority.
        crashes: Consecutive crashes without progress.
        events: Its events in words, for error messages.
    """

    task: ScheduledTrial
    state: State
    set_aside: bool
    ahead_s: float
    crashes: int = 0
    events: list[str] = field(default_factory=list)

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
