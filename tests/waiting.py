"""Waiting in tests for a condition, with a time limit that suits a busy machine."""

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], seconds: float = 240) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: The condition does not hold within ``seconds`` seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
