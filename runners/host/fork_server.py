"""First import of a fork server: without garbage collection, its other imports take a fifth less time.

Processes forked from it collect garbage again, but leave out the imported modules, of which nothing is freed.
A terminal sends Ctrl-C to the server as well, which ignores it: the driver handles it, and the server ends
with the driver.
"""

import gc
import os
import signal
from types import FrameType

_SERVER = os.getpid()


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Do nothing in the server; raise KeyboardInterrupt in processes that are forked from it."""
    if os.getpid() != _SERVER:
        signal.default_int_handler(number, frame)


def _collect() -> None:
    gc.freeze()
    gc.enable()


gc.disable()
# Multiprocessing lets the server ignore it only after the imports. In the background it is ignored already.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupted)
os.register_at_fork(after_in_child=_collect)
