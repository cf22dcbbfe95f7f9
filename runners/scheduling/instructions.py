"""Terms of a schedule: what it knows of a trial beforehand, and the instructions that it gives."""

from dataclasses import dataclass
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
