"""What ends a trial before its time, and what follows from it; `docs/faults.md` has it as a table."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import torch

Fault = Literal["left", "crashed", "failed"]
"""A trial ``left`` with its state kept, as it was told to; it ``crashed`` of what may pass, and is tried
again; or it ``failed`` of what is its own, and would again."""

T = TypeVar("T")

_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # the last one over and over
_LEAVE = "leave"
_NOTICES = (signal.SIGTERM, signal.SIGUSR1)  # of a spot machine that is taken away, of Slurm's --signal


class Left(Exception):  # noqa: N818 - what it was told to do, not an error
    """The trial has written a checkpoint and stopped, as it was told to."""


def fault_of(error: BaseException) -> Fault:
    """Says what follows from an error that a trial raised.

    Storage that is away, memory that others have taken and a device that broke may be well a little later.
    A GPU is the trial's own: a trial that does not fit will not fit next time.
    """
    if isinstance(error, Left):
        return "left"
    if isinstance(error, torch.OutOfMemoryError):
        return "failed"
    if isinstance(error, OSError | MemoryError):
        return "crashed"
    # What torch has no class for: its CPU allocator, and a device that gave up.
    passes = ("can't allocate memory", "CUDA error", "NCCL error")
    return "crashed" if isinstance(error, RuntimeError) and any(p in str(error) for p in passes) else "failed"


def words_of(error: BaseException) -> str:
    """Words an error in one line, with what to do where that is known."""
    lines = str(error).splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0]}".removesuffix(": ")
    if isinstance(error, torch.OutOfMemoryError):
        return f"{text.partition('. ')[0]}. Lower training.batch_size, or give the trial more resources.gpus"
    return text


def patiently(
    do: Callable[[], T],
    *,
    patience_s: float,
    say: Callable[[str], None] = lambda _text: None,
    hurry: Callable[[], bool] = lambda: False,
) -> T:
    """Does what needs the storage, and again until the storage is there.

    Args:
        do: What to do; it must be safe to do again.
        patience_s: How long to go on.
        say: Told once what is waited for.
        hurry: Whether there is no time left to wait.

    Raises:
        OSError: It is still away.
    """
    began = time.monotonic()
    for attempt in range(10**9):
        try:
            return do()
        except OSError as error:
            if time.monotonic() - began >= patience_s or hurry():
                raise
            if attempt == 0:
                say(f"{error}; trying again for up to {patience_s:.0f} s")
        time.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
    raise AssertionError("a century is over")


class Notice:
    """Whether a process was told to leave: by a signal, or by a file in its folder.

    Args:
        folder: Where the file would be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.signal = ""

    def told(self) -> str:
        """Says by what it was told to leave; empty when it was not. Looks at the disk."""
        return self.signal or ("a request" if (self._folder / _LEAVE).exists() else "")

    @contextmanager
    def listening(self, *signals: signal.Signals) -> Iterator[None]:
        """Takes signals as notices, where this is the process's main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def take(number: int, _frame: object) -> None:
            self.signal = signal.Signals(number).name

        before = {number: signal.signal(number, take) for number in signals or _NOTICES}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def ask_to_leave(folder: Path) -> None:
    """Tells whoever works in a folder to leave, on whatever machine it is."""
    (folder / _LEAVE).touch()


def forget_request(folder: Path) -> None:
    """Takes back what `ask_to_leave` left."""
    (folder / _LEAVE).unlink(missing_ok=True)
