"""Calls in fresh processes that free their memory at the end and start within tens of milliseconds.

A process is forked from a server that has torch and open_clip loaded but has computed nothing, so no memory,
threads or GPU state pass from one trial to the next; its own children are forked from itself. No other
process is forked, because it may have used Ray: a child that destroys a client of Ray's, as multiprocessing
does from Python 3.13 on, dies by SIGSEGV. The GPUs' arithmetic is set for a process as a whole.
"""

import ctypes
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, ForkServerContext
from typing import Literal

from runners.host.faults import Fault, fault_of, format_error, lost_connection_of, shielded, unshield
from runners.host.watchdog import SharedPosition, Watchdog, position

_PR_SET_PDEATHSIG = 1

TRIAL_MODULES = ("runners.trials.trial",)
"""Modules that take seconds to import and that every trial needs."""

_SERVER = multiprocessing.get_context("forkserver")
_FORK = multiprocessing.get_context("fork")
_fresh = False  # True in a process that was forked from the server


@dataclass(frozen=True, kw_only=True, slots=True)
class Exit:
    """End of a call; a process that died has ``crashed``."""

    how: Literal["finished"] | Fault
    pickled: bytes = b""  # the value if finished; forwarding it needs none of its imports
    reason: str = ""  # one line if not finished
    lost_connection: bool = (
        False  # communication between ranks broke, possibly because another rank had ended
    )


LET_GO_S = 2.0
"""Seconds in which other ranks of a trial may end from the same cause as the first; then they are killed."""


def first_cause(ends: Iterable[Exit]) -> Exit | None:
    """Return the end that caused the ends of the other ranks of a trial; None if all ranks finished.

    Ends come in the order in which they happened.
    """
    # A rank that lost its peers ended because another one did, so other ends come first. A rank that left was
    # asked to, and kept its state. After a crash the trial is tried again; after a failure it is not.
    order = ("left", "crashed", "full", "failed")
    faults = [end for end in ends if end.how != "finished"]
    return min(faults, key=lambda end: (end.lost_connection, order.index(end.how)), default=None)


class FreshProcess:
    """A call in a process of its own, which ends when the starting process dies.

    The call is pickled, and its return value must be picklable. The environment is by default that of this
    process. A thread ends a call that hangs or does not leave when asked to; ranks, which are ``watched``
    together, have theirs.
    """

    def __init__(
        self, run: bytes, environment: Mapping[str, str] | None = None, *, watched: bool = False
    ) -> None:
        context = child_context()
        self.connection, sender = context.Pipe(duplex=False)
        self.record: SharedPosition = context.RawValue(SharedPosition)
        environment = dict(os.environ if environment is None else environment)
        self._process = context.Process(target=_call, args=(run, sender, environment, self.record))
        self.asked, self._not_begun = False, ""
        self._ended_by: Exit | None = None  # what the watchdog says
        try:
            with shielded():  # the fork server, which the first start brings up, has to outlive its processes
                self._process.start()
        except (EOFError, OSError) as error:  # the fork server was killed; the next start finds a new one
            self._not_begun = f"no process could be started for the trial ({format_error(error)})"
        sender.close()
        if not (watched or self._not_begun):
            Watchdog([self])

    @property
    def pid(self) -> int:
        """The process's id; 0 if it could not be started."""
        return self._process.pid or 0

    def end(self, how: Fault, reason: str, *, lost_connection: bool) -> None:
        """End the process at once, for a reason."""
        self._ended_by = Exit(how=how, reason=reason, lost_connection=lost_connection)
        self.kill()

    def ended(self, timeout_s: float) -> bool:
        """Wait at most ``timeout_s`` seconds for the call's end; returns whether it has ended."""
        return self.connection.poll(timeout_s)

    def wait(self) -> Exit:
        """Wait for the call's end; ``connection`` becomes readable at that moment."""
        try:
            ended = self.connection.recv()
        except (EOFError, ConnectionError):
            ended = None
        self.connection.close()
        if self._not_begun:
            return Exit(how="crashed", reason=self._not_begun)
        self._process.join()
        if ended is None and self._ended_by is not None:
            return self._ended_by
        code = self._process.exitcode or 0
        # SIGTERM before the process installed its handler: it had not begun, so no work is lost.
        if ended is None and self.asked and code == -signal.SIGTERM:
            return Exit(how="left", reason="asked to leave before it began")
        if ended is None:
            why = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            # NCCL's watchdog aborts a process that waits for a rank which has ended: that end is the cause.
            aborted = code == -signal.SIGABRT
            return Exit(how="crashed", reason=f"the trial's process died {why}", lost_connection=aborted)
        assert isinstance(ended, Exit)
        return ended

    def ask_to_leave(self) -> None:
        """Send SIGTERM."""
        self.asked = True
        if not self._not_begun:
            self._process.terminate()

    def kill(self) -> None:
        """End the process at once."""
        if not self._not_begun:
            self._process.kill()


def kill_all(processes: Collection[FreshProcess]) -> None:
    """End processes together and wait for them."""
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def child_context() -> ForkContext | ForkServerContext:
    """Return how this process starts a child: by a fork of itself if it was started here, else of the server.

    A process that was forked itself would have to start a server of its own, which takes seconds.
    """
    return _FORK if _fresh else _SERVER


def load_ahead(*modules: str) -> None:
    """Set the modules that the fork server of this process imports; call it before the server is started."""
    _SERVER.set_forkserver_preload(["runners.host.fork_server", *modules])


def _call(run: bytes, sender: Connection, environment: Mapping[str, str], record: SharedPosition) -> None:
    begin_child(environment)
    # The kernel ends a process that is stopped, too, but only with the one that it was forked from.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    position.share(record)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the driver, which then asks to leave
    try:
        ended = Exit(how="finished", pickled=pickle.dumps(pickle.loads(run)()))  # noqa: S301 - our own data
    except Exception as error:  # noqa: BLE001 - any error of a trial is its result
        ended = Exit(
            how=fault_of(error), reason=format_error(error), lost_connection=lost_connection_of(error)
        )
    sender.send(ended)


def begin_child(environment: Mapping[str, str]) -> None:
    """Give a fresh process the environment of its parent, and kill it when the parent ends or is killed."""
    global _fresh  # noqa: PLW0603 - a fact about the process
    _fresh = True
    unshield()  # the server may have been started shielded, and an executor ends its processes by SIGTERM
    # The fork server's environment is that of its start, not that of the caller.
    os.environ.clear()
    os.environ.update(environment)
    parent = multiprocessing.parent_process()
    assert parent is not None, "it was started by another process"

    def follow() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    # A thread of its own, because the main thread is busy with the call.
    threading.Thread(target=follow, daemon=True).start()


FLOAT32_PRODUCTS = "TF32"
"""Products of fp32 matrices: 10 bits of mantissa, several times faster; ``full`` for 23."""

CUDNN_BENCHMARK = True
"""True if cuDNN times its algorithms for each shape of a convolution and takes the fastest."""


def set_gpu_arithmetic(device_type: str) -> None:
    """Set the arithmetic of products and convolutions as open_clip's training does; a CPU stays as it is."""
    import torch  # noqa: PLC0415 - the constants are also read where torch is not loaded

    if device_type == "cuda":
        torch.set_float32_matmul_precision("high" if FLOAT32_PRODUCTS == "TF32" else "highest")
        torch.backends.cudnn.benchmark = CUDNN_BENCHMARK
