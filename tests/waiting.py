"""Waits in tests: until something is so, and no longer than it may take on a busy machine."""

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    """Waits until a condition holds.

    Raises:
        AssertionError: It does not within so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
