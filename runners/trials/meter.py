"""Counts what a trial computes, over all its attempts, where a killed process leaves the count exact."""

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

METER = "meter"
"""The count's file, in the trial's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlopCount:
    """What a trial's processes have begun to compute.

    Attributes:
        train_flops: Training FLOPs of the steps.
        evaluation_flops: Forward FLOPs of evaluations of the trained model.
    """

    train_flops: int = 0
    evaluation_flops: int = 0


class Meter:
    """A trial's count, raised before each step.

    A step is one write of a few bytes into the page cache: microseconds, and still there when the process is
    killed at the next instruction. What is in the middle of being computed then is counted, never left out.
    A machine that loses its power keeps the count of the last `sync`.

    Args:
        folder: The trial's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.count = read_count(folder) or FlopCount()
        self._file = os.open(folder / METER, os.O_WRONLY | os.O_CREAT, 0o666)

    def add(self, *, train_flops: int = 0, evaluation_flops: int = 0) -> None:
        """Count what begins now."""
        train_flops += self.count.train_flops
        evaluation_flops += self.count.evaluation_flops
        count = FlopCount(train_flops=train_flops, evaluation_flops=evaluation_flops)
        os.pwrite(self._file, count_text(count), 0)
        self.count = count

    def sync(self) -> None:
        """Bring the count to the disk."""
        os.fsync(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def count_text(count: FlopCount) -> bytes:
    """Write a count, always as long: a shorter text would leave digits of a longer one behind."""
    return b"%030d %030d\n" % (count.train_flops, count.evaluation_flops)


def read_count(folder: Path) -> FlopCount | None:
    """Read a trial's count, or None when it never began."""
    try:
        train, evaluation = map(int, (folder / METER).read_text(encoding="ascii").split())
    except (FileNotFoundError, ValueError):  # nothing there, or nothing in it yet
        return None
    return FlopCount(train_flops=train, evaluation_flops=evaluation)
