"""Instructions of the schedule to the loop that runs trials."""

from dataclasses import dataclass
from typing import Literal


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
class EndBranches:
    """The trial ended without a milestone: trials that wait for it, directly or not, will have no result."""

    trial: str
    branches: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaveOut:
    """The node gets no more trials: they found no usable device there."""

    node: str


Instruction = Start | Retry | SetBack | GiveUp | EndBranches | LeaveOut
