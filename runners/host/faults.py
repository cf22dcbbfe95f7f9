"""What ends a trial before its time, and what follows from it; `docs/faults.md` has it as a table."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

Fault = Literal["left", "crashed", "failed"]
"""A trial ``left`` with its state kept, as it was told to; it ``crashed`` of what may pass, and is tried
again; or it ``failed`` of what is its own, and would again."""

T = TypeVar("T")

_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # the last one over and over
_NOTICES = (signal.SIGTERM, signal.SIGUSR1)  # of a spot machine that is taken away, of Slurm's --signal


class Left(Exception):  # noqa: N818 - what it was told to do, not an error
    """The trial has written a checkpoint and stopped, as it was told to."""


class ProcessEnded(Exception):  # noqa: N818 - it may have left as it was told to
    """A process that the trial runs in ended before its time, and others of it with that one.

    Attributes:
        fault: How.
    """

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault


def fault_of(error: BaseException) -> Fault:
    """Says what follows from an error that a trial raised.

    Storage that is away, memory that others have taken and a device that broke may be well a little later.
    A GPU is the trial's own: a trial that does not fit will not fit next time.
    """
    if isinstance(error, Left):
        return "left"
    if isinstance(error, ProcessEnded):
        return error.fault
    if _is_gpu_full(error):
        return "failed"
    if isinstance(error, OSError | MemoryError):
        return "crashed"
    # What torch has no class for: its CPU allocator, and a device that gave up.
    passing = ("can't allocate memory", "CUDA error", "NCCL error")
    of_torch = isinstance(error, RuntimeError) and any(words in str(error) for words in passing)
    return "crashed" if of_torch else "failed"


def words_of(error: BaseException) -> str:
    """Format an error in one line, with what to do where that is known."""
    name, lines = type(error).__name__, str(error).splitlines()
    if _is_gpu_full(error):
        first = lines[0].partition(". ")[0] if lines else name
        return f"{first}. Lower training.batch_size, or give a trial more resources.gpus"
    if isinstance(error, ProcessEnded):
        return str(error)
    return f"{name}: {lines[0]}" if lines else name


def _is_gpu_full(error: BaseException) -> bool:
    # By its name, since this module is read where torch is not loaded.
    return isinstance(error, RuntimeError) and type(error).__name__ == "OutOfMemoryError"


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
    """Whether this process was told to leave.

    Attributes:
        by: The signal that told it; empty before.
    """

    def __init__(self) -> None:
        self.by = ""

    @contextmanager
    def listening(self, *signals: signal.Signals) -> Iterator[None]:
        """Take signals as notices; SIGTERM and SIGUSR1 unless others are named. The second Ctrl-C is none.

        A process can take them in its main thread alone; called in another, `tell_to_leave` alone is heard.
        """
        _listening.append(self)
        try:
            with self._taking(*signals):
                yield
        finally:
            _listening.remove(self)

    @contextmanager
    def _taking(self, *signals: signal.Signals) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def take(number: int, _frame: object) -> None:
            if self.by and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.by = signal.Signals(number).name

        before = {number: signal.signal(number, take) for number in signals or _NOTICES}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


_listening: list[Notice] = []


def tell_to_leave(by: str) -> None:
    """Tells whoever listens in this process, as a signal does, where none arrives.

    Args:
        by: By what it was told.
    """
    for notice in _listening:
        notice.by = by
