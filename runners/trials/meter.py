"""Meter of a trial's compute over all attempts, exact even when the process is killed."""

import os
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from runners.store.files import new_file, read_bytes

METER = "meter"
"""Name of the meter's file in the trial's folder."""

_LOOKS, _LOOK_S = 3, 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class FlopCount:
    """Compute that a trial's processes have started: of training steps, and forward FLOPs of evaluations."""

    train_flops: int = 0
    evaluation_flops: int = 0


class Meter:
    """A trial's FLOP count, increased before each step.

    Each update writes a few bytes into the page cache: it takes microseconds and survives if the process is
    killed at the next instruction. A step in progress at that moment is counted, never missed. After a power
    cut the count is that of the last `sync`, or of the checkpoint that the trial continues from.
    """

    def __init__(self, folder: Path) -> None:
        self.count = read_meter(folder) or FlopCount()
        self._file = os.open(folder / METER, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o666)

    def add(self, *, train_flops: int = 0, evaluation_flops: int = 0) -> None:
        """Count compute that starts now."""
        train_flops += self.count.train_flops
        evaluation_flops += self.count.evaluation_flops
        self._write(FlopCount(train_flops=train_flops, evaluation_flops=evaluation_flops))

    def raise_to(self, least: FlopCount) -> None:
        """Raise the count to that of a checkpoint: after a power cut, the meter may be the older one."""
        metered = self.count
        self._write(
            FlopCount(
                train_flops=max(metered.train_flops, least.train_flops),
                evaluation_flops=max(metered.evaluation_flops, least.evaluation_flops),
            )
        )

    def _write(self, count: FlopCount) -> None:
        # One write at offset 0: a kill leaves the old count or the new one.
        os.pwrite(self._file, meter_text(count), 0)
        self.count = count

    def sync(self) -> None:
        """Flush the count to disk."""
        os.fsync(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def meter_text(count: FlopCount) -> bytes:
    """Format a count at constant length, so that overwriting leaves no digits of a longer text.

    Its CRC-32 shows a digit that was changed.
    """
    numbers = b"%030d %030d" % (count.train_flops, count.evaluation_flops)
    return b"%s %08x\n" % (numbers, zlib.crc32(numbers))


def read_meter(folder: Path) -> FlopCount | None:
    """Read a trial's count, or return None if there is none: it never started, or the file is damaged."""
    for look in range(_LOOKS):
        # A read during a write can mix both counts, so look again: a damaged file stays damaged.
        if look:
            time.sleep(_LOOK_S)
        with suppress(ValueError):
            try:
                text = read_bytes(folder / METER)
            except FileNotFoundError:
                return None
            train, evaluation, _crc = text.split()
            count = FlopCount(train_flops=int(train), evaluation_flops=int(evaluation))
            if text == meter_text(count):
                return count
    return None


def write_meter(folder: Path, count: FlopCount) -> None:
    """Replace a trial's count, while no process of the trial is running."""
    with new_file(folder / METER) as file:
        file.write_bytes(meter_text(count))
