"""One call in a fresh process, whose memory goes back when it ends: tens of milliseconds, not seconds.

The process is forked from a server that has torch and open_clip loaded and has computed nothing, so neither
memory, threads nor a GPU's state pass from one trial to the next.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal

from runners.host.faults import Fault, fault_of, words_of

TRIAL_MODULES = ("runners.trials.trial",)
"""What takes seconds to import for each trial."""

_CONTEXT = multiprocessing.get_context("forkserver")
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exit:
    """How a call ended.

    Attributes:
        how: ``finished`` with a value, or by its fault (`runners.host.faults`); one that died crashed.
        pickled: What it returned, when finished; who passes it on need not import what it is made of.
        reason: One line, otherwise.
    """

    how: Literal["finished"] | Fault
    pickled: bytes = b""
    reason: str = ""


class FreshProcess:
    """A call that runs in a process of its own; it dies with the process that started it.

    Args:
        run: What to call, pickled; it returns what can be pickled.
        environment: Environment variables of the process; those of this one by default.
        fork: Whether to fork this process, which must have computed nothing, instead of the server: a process
            that was forked itself would have to start a server of its own.
    """

    def __init__(
        self, run: bytes, environment: Mapping[str, str] | None = None, *, fork: bool = False
    ) -> None:
        self.connection, sender = _CONTEXT.Pipe(duplex=False)
        self._process = (_FORK if fork else _CONTEXT).Process(
            target=_call, args=(run, sender, dict(os.environ if environment is None else environment))
        )
        self._process.start()
        self._asked = False
        sender.close()

    def ended(self, timeout_s: float) -> bool:
        """Wait for the call's end, at most so long, and says whether it has ended."""
        return self.connection.poll(timeout_s)

    def wait(self) -> Exit:
        """Wait for the call's end; ``connection`` is readable from then on."""
        try:
            ended = self.connection.recv()
        except EOFError:
            ended = None
        self._process.join()
        self.connection.close()
        code = self._process.exitcode or 0
        if ended is None and self._asked and code == -signal.SIGTERM:
            return Exit(how="left", reason="told to leave before it began")
        if ended is None:
            why = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            return Exit(how="crashed", reason=f"the trial's process died {why}")
        assert isinstance(ended, Exit)
        return ended

    def ask_to_leave(self) -> None:
        """Send SIGTERM."""
        self._asked = True
        self._process.terminate()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()


def load_ahead(*modules: str) -> None:
    """Names what the server imports, before the first call of this process."""
    _CONTEXT.set_forkserver_preload(list(modules))


def _call(run: bytes, sender: Connection, environment: Mapping[str, str]) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's, who tells what is to be done
    os.environ.clear()
    os.environ.update(environment)
    try:
        ended = Exit(how="finished", pickled=pickle.dumps(pickle.loads(run)()))  # noqa: S301 - our own
    except Exception as error:  # noqa: BLE001 - whatever a trial raises is its result
        ended = Exit(how=fault_of(error), reason=words_of(error))
    sender.send(ended)


def _follow(parent: multiprocessing.process.BaseProcess) -> None:
    """Dies with the parent, even one that was killed."""
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
