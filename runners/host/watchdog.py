"""Watchdog: ends a trial whose processes no longer make progress, or do not leave when asked to.

Each process of a trial notes where it stands in memory that it shares with the process that started it. A
thread there ends all ranks of this node if one stands at the same place for longer than is allowed, and names
it. It counts its own looks, not the clock: a machine that was suspended, or has no time for it, is no hang.
"""

import ctypes
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from runners.host.faults import Fault

if TYPE_CHECKING:
    from runners.host.process import FreshProcess

GRACE_S = 30.0
"""Seconds in which a trial has to leave when asked to; spot machines give no more."""

_LONG = 18
"""Multiple of the limit of a step that holds for set-up, evaluation, checkpoints, and the first step."""

_STEPS, _LAST = 20, 50
"""A step may take so many times the mean of the last ones, even if that is more than declared."""

_WRITES = 10
"""Times as long as otherwise that a trial may take to leave while it writes its checkpoint."""

_LOOK_S = 1.0
_DUMP_S = 1.0  # in which stacks are dumped


class Phase(IntEnum):
    """Where a rank stands, in the order in which it passes through them."""

    SET_UP = 0
    STEP = 1
    BETWEEN = 2  # two steps, where files are written
    EVALUATION = 3
    DATA = 4


_WORDS = (
    "in its set-up", "in step {}", "writing files after step {}", "in the evaluation after step {}",
    "waiting for data after step {}",
)  # fmt: skip


class SharedPosition(ctypes.Structure):
    """A process's place, in memory that it shares with its parent; all zero before it is known."""

    phase: int
    step: int  # from 1; that is computed, or was
    changes: int
    meets: int  # 1 in an operation that waits for the other ranks
    stacks: int  # descriptor of the file to which SIGUSR2 dumps the stacks of its threads
    limit_s: float  # that it may stay here; 0 for no limit
    leave_s: float  # in which it leaves when asked to; 0 for `GRACE_S`
    folder: bytes  # for a file with the stacks
    _fields_ = (
        *((name, ctypes.c_long) for name in ("phase", "step", "changes", "meets", "stacks")),
        *((name, ctypes.c_double) for name in ("limit_s", "leave_s")),
        ("folder", ctypes.c_char * 4096),
    )


class _Position:
    """The position of this process."""

    def __init__(self) -> None:
        self._record = SharedPosition()
        self._floor_s, self._began, self._took = 0.0, 0.0, deque[float](maxlen=_LAST)

    def share(self, record: SharedPosition) -> None:
        """Note places in memory that the parent reads, and dump stacks when it asks for them."""
        import faulthandler  # noqa: PLC0415 - few processes need it

        self._floor_s, self._took = 0.0, deque(maxlen=_LAST)  # a forked process begins from scratch
        record.stacks = os.memfd_create("stacks")
        faulthandler.register(signal.SIGUSR2, file=record.stacks, all_threads=True)
        self._record = record

    def watch(self, floor_s: float | None, folder: Path) -> None:
        """Set the limit of a step, None for none; the stacks of a process that hangs go to the folder."""
        self._floor_s = floor_s or 0.0
        self._record.folder = os.fsencode(folder)[:4000]
        self.at(Phase.SET_UP, 0)

    def at(self, phase: Phase, step: int) -> None:
        """Note that the process has come to a place, in or after a step, counted from 1."""
        record, now = self._record, time.monotonic()
        record.changes += 1  # first: else a look might hold the age at the last place against the new limit
        if phase is Phase.DATA:
            self._began = now
        elif (record.phase, phase) == (Phase.STEP, Phase.BETWEEN):
            self._took.append(now - self._began)
        usual_s = sum(self._took) / max(1, len(self._took))
        record.limit_s = _LONG * self._floor_s
        if self._floor_s and usual_s and phase in {Phase.DATA, Phase.STEP}:
            record.limit_s = max(self._floor_s, _STEPS * usual_s)
        record.leave_s = max(GRACE_S, 3 * usual_s)
        record.phase, record.step = phase, step

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Context manager: the process evaluates the model after its last step."""
        self.at(Phase.EVALUATION, self._record.step)
        try:
            yield
        finally:
            self.at(Phase.BETWEEN, self._record.step)

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Context manager: the process waits for the other ranks."""
        self._record.meets = 1
        try:
            yield
        finally:
            self._record.meets = 0
            self._record.changes += 1

    def no_exit_deadline(self) -> None:
        """Let the process, which waits for a trial's own or uploads for it, leave when that is done."""
        self._record.leave_s = float("inf")


position = _Position()
"""The position of this process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankStatus:
    """Where a rank stands, and for how long."""

    rank: int
    host: str
    phase: Phase
    step: int
    meets: bool  # it waits for the other ranks
    age_s: float
    limit_s: float  # 0 for none
    silent: str = ""  # why it can't make progress, if known

    def __str__(self) -> str:
        return _WORDS[self.phase].format(self.step)

    @property
    def late(self) -> bool:
        """True if it may not stay any longer."""
        return 0 < self.limit_s < self.age_s


def hanging(ranks: Sequence[RankStatus]) -> list[RankStatus]:
    """Return the ranks for which all others wait, if they have stayed too long.

    Those that have come the least far keep the others waiting; of these, one that is stopped, or else one
    that is outside of an operation of all ranks.
    """
    least = min(((status.step, status.phase) for status in ranks), default=None)
    last = [status for status in ranks if (status.step, status.phase) == least]
    if not all(status.late for status in last):
        return []
    silent = [status for status in last if status.silent]
    apart = [status for status in last if not status.meets]
    return silent or apart or last


def reason_of(late: Sequence[RankStatus], ranks: Sequence[RankStatus], stacks: Sequence[Path]) -> str:
    """Say in one line which rank hangs, where, and where the others stood."""
    first = late[0]
    silent = f", {first.silent}" if first.silent else ""
    reason = f"hung on {first.host} {first} for {first.age_s:.0f} s{silent} (limit: {first.limit_s:.0f} s)"
    where = Counter(f"{other}" for other in ranks if other is not first)
    for text, count in where.items():
        who = next(f"rank {other.rank}" for other in ranks if other is not first and f"{other}" == text)
        reason += f"; {who if count == 1 else f'{count} other ranks'} {text}"
    return reason + (f"; stacks of all threads: {stacks[0]}" if stacks else "")


class Watchdog:
    """Thread that watches the ranks of a trial on this node, or its only process, until they have ended.

    ``first`` is the rank of the first process; ``elsewhere`` takes where this node's ranks stand, and the
    seconds since it was last called, and returns where those of other nodes do.
    """

    def __init__(
        self,
        processes: "Sequence[FreshProcess]",
        first: int = 0,
        elsewhere: Callable[[list[RankStatus], float], list[RankStatus]] = lambda _ranks, _passed_s: [],
    ) -> None:
        self._processes, self._first, self._elsewhere = processes, first, elsewhere
        self._changes = [0] * len(processes)
        self._age_s, self._asked_s = [0.0] * len(processes), [0.0] * len(processes)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        looked, passed_s = time.monotonic(), 0.0
        while ranks := list(self._look(passed_s)):
            if waited_s := max(map(self._overdue_s, range(len(self._processes)))):
                self._end("left", f"asked to leave, and ended after {waited_s:.0f} s in which it did not", ())
            elif late := hanging(everywhere := ranks + self._elsewhere(ranks, passed_s)):
                reason = reason_of(late, everywhere, self._dump(ranks))
                self._end("crashed", reason, [status.rank for status in late])
            time.sleep(_LOOK_S)
            now = time.monotonic()
            passed_s, looked = min(now - looked, 2 * _LOOK_S), now

    def _look(self, passed_s: float) -> Iterator[RankStatus]:
        for number, process in enumerate(self._processes):
            record, state = process.record, _state_of(process.pid)
            if state in {"", "Z", "X"}:  # it has ended
                self._asked_s[number] = 0.0
                continue
            limit_s = record.limit_s  # before the changes, which are noted before the limit
            changed = record.changes != self._changes[number]
            self._changes[number] = record.changes
            self._age_s[number] = 0.0 if changed else self._age_s[number] + passed_s
            stopped = state in {"T", "t"}
            if process.asked:
                writes = record.phase == Phase.BETWEEN and not stopped
                self._asked_s[number] += passed_s / (_WRITES if writes else 1)
            yield RankStatus(
                rank=self._first + number,
                host=socket.gethostname(),
                phase=Phase(record.phase),
                step=record.step,
                meets=bool(record.meets) or record.phase == Phase.STEP,
                age_s=self._age_s[number],
                limit_s=limit_s,
                silent="stopped by a signal" if stopped else "",
            )

    def _overdue_s(self, number: int) -> float:
        """Return for how long a process has not left, if that is too long, else 0."""
        asked_s = self._asked_s[number]
        return asked_s if asked_s > (self._processes[number].record.leave_s or GRACE_S) else 0.0

    def _dump(self, ranks: Sequence[RankStatus]) -> list[Path]:
        """Write the stacks of the ranks that can still answer; return the files."""
        written = []
        processes = {status.rank: self._processes[status.rank - self._first] for status in ranks}
        processes = {rank: process for rank, process in processes.items() if process.record.stacks}
        for process in processes.values():
            with suppress(OSError):
                os.kill(process.pid, signal.SIGUSR2)
        time.sleep(_DUMP_S)
        for rank, process in processes.items():
            with suppress(OSError):
                stacks = Path(f"/proc/{process.pid}/fd/{process.record.stacks}").read_bytes()
                file = Path(os.fsdecode(process.record.folder)) / f"stacks-{rank}.txt"
                if stacks:
                    file.write_bytes(stacks)
                    written.append(file)
        return written

    def _end(self, how: Fault, reason: str, late: Sequence[int]) -> None:
        for number, process in enumerate(self._processes):
            waits = bool(late) and self._first + number not in late
            why = f"waits for rank {late[0]}, which {reason}" if waits else reason
            process.end(how, why, lost_connection=waits)


def _state_of(pid: int) -> str:
    """Return the letter of a process's state, such as T for stopped; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""
