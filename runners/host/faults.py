"""Causes that end a trial early and their consequences; `docs/faults.md` has them as a table."""

import errno
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, TypeVar

from budgets.names import one_line, without_secrets

Fault = Literal["left", "crashed", "full", "failed"]
"""Consequence of an early end: ``left`` (stopped on request, state kept), ``crashed`` (the cause may be
temporary, so it is retried), ``full`` (a GPU has too little memory: would fail again, but can go on with
settings that need less) or ``failed`` (the trial's own fault, would fail again)."""

T = TypeVar("T")

_SHARED_MEMORY = (
    "the node's shared memory is full: give its container more (docker run --shm-size; in Kubernetes an "
    "emptyDir of medium Memory at /dev/shm), or let fewer loader workers run by fewer resources.cpus"
)
_OPEN_FILES = "too few files may be open: raise the limit (ulimit -n 65536) where the node's Ray starts"
_SHORTAGES = {
    "unable to open shared memory object": _SHARED_MEMORY,
    "unable to mmap": _SHARED_MEMORY,
    "Too many open files": _OPEN_FILES,
    "received 0 items of ancdata": _OPEN_FILES,  # a tensor from a loader worker comes as an open file
}
"""Texts of errors of a node that is short of something for now, with advice."""

_PASSING = (
    *_SHORTAGES,
    "can't allocate memory",  # torch's CPU allocator
    "DataLoader worker (pid",  # killed, for example for memory or by a bus error of full shared memory
    "CUDA error",
    "CUDA driver",
    "CUDA unknown error",
    "No CUDA GPUs are available",
    "cudaGetDeviceCount",  # a driver or a fabric manager that is not up
    "cuDNN error",
    "NCCL error",
    "Triton Error [CUDA]",
)
"""Texts in the messages of errors that may pass; torch raises them as plain RuntimeErrors."""

_OWN = (
    "device-side assert",  # an index out of range
    "no kernel image",  # a torch that was not built for this GPU
    "invalid argument",
    "invalid configuration",
    "invalid device function",
    "invalid resource handle",
    "_INVALID_VALUE",  # the same of cuBLAS and cuDNN
    "_BAD_PARAM",
    "_NOT_SUPPORTED",
    "_ARCH_MISMATCH",
)
"""CUDA's and cuDNN's errors of the program, which come back at each attempt."""

_LESS_MEMORY = (
    "training.accumulation, training.gradient_checkpointing and more resources.gpus need less memory and "
    "keep the trial with its finished steps (run --retry-failed); another training.batch_size makes another "
    "trial"
)

_BETWEEN_RANKS = {"DistBackendError", "DistNetworkError", "DistStoreError"}
_BY_GLOO = ("gloo/", "Connection closed by peer", "Connection reset by peer", "Broken pipe")

_PATIENCE_S = 120.0  # longest wait of a trial for unreachable storage
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # the last one is repeated
# Sent when a spot machine is reclaimed; by Slurm's --signal; when a terminal is closed.
NOTICES = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals that ask a process to leave."""


class Left(Exception):  # noqa: N818 - an outcome on request, not an error
    """The trial was asked to leave, wrote a checkpoint and stopped."""


class AskedToStop(BaseException):
    """A signal ends this process, which has nothing yet that must be brought to an end in order."""


class ProcessEnded(Exception):  # noqa: N818 - may be an outcome on request
    """A process of the trial ended early, and the trial's other processes with it.

    ``lost_connection`` is True if communication with other ranks broke.
    """

    def __init__(self, fault: Fault, reason: str, *, lost_connection: bool = False) -> None:
        super().__init__(reason)
        self.fault, self.lost_connection = fault, lost_connection

    def __reduce__(self) -> tuple[Callable[..., "ProcessEnded"], tuple[Fault, str]]:
        """Pickle the other attributes, too; by default an exception is pickled with its message alone."""
        return partial(ProcessEnded, lost_connection=self.lost_connection), (self.fault, str(self))


def fault_of(error: BaseException) -> Fault:
    """Return the consequence of an error that a trial raised.

    Unreachable storage, memory used by others, a killed loader worker, a broken device and a broken
    connection between ranks may recover later, so the trial is retried. A GPU belongs to the trial alone: a
    trial that does not fit will not fit next time either, unless its settings change.
    """
    if isinstance(error, Left | ProcessEnded):
        return "left" if isinstance(error, Left) else error.fault
    if _is_gpu_full(error):
        return "full"
    if getattr(error, "errno", None) == errno.EFBIG:
        return "failed"  # the limit on the size of a file (`ulimit -f`) would be the same
    if isinstance(error, OSError | MemoryError) or lost_connection_of(error):
        return "crashed"
    if not isinstance(error, RuntimeError):
        return "failed"
    message = str(error)
    passing = any(words in message for words in _PASSING) and not any(words in message for words in _OWN)
    return "crashed" if passing else "failed"


def lost_connection_of(error: BaseException) -> bool:
    """Return whether communication with other ranks broke; the cause may be the end of another rank."""
    if isinstance(error, ProcessEnded):
        return error.lost_connection
    if not isinstance(error, RuntimeError):
        return False
    # Compared by name, because this module is also used where torch is not loaded.
    of_torch = any(kind.__name__ in _BETWEEN_RANKS for kind in type(error).__mro__)
    return of_torch or any(words in str(error) for words in _BY_GLOO)


def format_error(error: BaseException) -> str:
    """Format an error as one line, with advice where there is any."""
    name, lines = type(error).__name__, without_secrets(str(error)).splitlines()
    if _is_gpu_full(error):
        first = lines[0].partition(". ")[0] if lines else name
        return f"{first}. {_LESS_MEMORY}"
    if isinstance(error, ProcessEnded):
        return without_secrets(str(error))
    advice = [words for text, words in _SHORTAGES.items() if text in str(error)]
    return one_line(". ".join([f"{name}: {lines[0]}", *advice[-1:]])) if lines else name


def _is_gpu_full(error: BaseException) -> bool:
    # Compared by name, because this module is also used where torch is not loaded.
    return isinstance(error, RuntimeError) and type(error).__name__ == "OutOfMemoryError"


def patiently(
    do: Callable[[], T],
    *,
    patience_s: float,
    say: Callable[[str], None] = lambda _text: None,
    hurry: Callable[[], bool] = lambda: False,
    final: tuple[type[OSError], ...] = (),
) -> T:
    """Call ``do``, and repeat it while it raises OSError, until the storage is back.

    ``do`` must be safe to repeat; after ``patience_s`` seconds its error is raised, and at once if it is
    ``final`` or ``hurry`` says that there is no time left. ``say`` is called when the first attempt fails.
    """
    began = time.monotonic()
    attempt = 0
    while True:
        try:
            return do()
        except OSError as error:
            ended = time.monotonic() - began >= patience_s or hurry()
            if ended or isinstance(error, final) or error.errno == errno.EFBIG:
                raise
            if attempt == 0:
                say(f"{without_secrets(str(error))}; trying again for up to {patience_s:.0f} s")
        time.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
        attempt += 1


class Notice:
    """A request to this process to leave; ``by`` is the name of the signal, empty before it came.

    While ``at_once`` is True, the request raises `AskedToStop` in the main thread.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.by, self.at_once = "", at_once

    def patiently(self, do: Callable[[], T]) -> T:
        """Call ``do`` as `patiently` does, for two minutes at most and only until the request comes."""
        return patiently(do, patience_s=_PATIENCE_S, hurry=lambda: bool(self.by))

    @contextmanager
    def listening(self, *signals: signal.Signals) -> Iterator[None]:
        """Context manager that takes signals (default: SIGTERM, SIGUSR1 and SIGHUP) as requests to leave.

        A second SIGINT raises KeyboardInterrupt. SIGHUP stays ignored under ``nohup``. Python can handle
        signals only in the main thread; another thread notices none.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def take(number: int, _frame: object) -> None:
            if self.by and number == signal.SIGINT:
                raise KeyboardInterrupt
            first, self.by = not self.by, signal.Signals(number).name
            if first and self.at_once:
                raise AskedToStop(self.by)

        before = {
            number: signal.signal(number, take)
            for number in signals or NOTICES
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Context manager: processes that this thread starts have `NOTICES` blocked until they unblock them.

    ``timeout``, Slurm and a terminal signal every process of a run at once. Processes that the run needs,
    such as Ray's daemons, must survive until the driver has seen all checkpoints; the driver then ends them.
    Handlers that were replaced meanwhile, as Ray does in its start, are put back.
    """
    before = shield()
    handlers = {number: signal.getsignal(number) for number in NOTICES}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def shield() -> set[signal.Signals | int]:
    """Block `NOTICES` in this thread and in what it starts; return the signals that were blocked before."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, NOTICES)


def unshield() -> None:
    """Let this thread take `NOTICES`, although its process was started by a shielded one."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NOTICES)
