"""Calls of tests in a fresh process, where trials run: processes that it forks have all that it changes."""

import pickle
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import pytest

from runners.host.faults import ProcessEnded
from runners.host.process import FreshProcess

T = TypeVar("T")


def in_fresh_process(call: Callable[[], T], values: Mapping[str, object] | None = None) -> T:
    """Return the value of a call, while names, with those of their modules and dots, have other values.

    Raises:
        ProcessEnded: The call raised, or its process died.
    """
    end = FreshProcess(pickle.dumps(partial(_with_values, values or {}, call))).wait()
    if end.how != "finished":
        raise ProcessEnded(end.how, end.reason, lost_connection=end.lost_connection)
    value: T = pickle.loads(end.pickled)  # noqa: S301 - written by our own process
    return value


def _with_values(values: Mapping[str, object], call: Callable[[], T]) -> T:
    patch = pytest.MonkeyPatch()
    for name, value in values.items():
        patch.setattr(name, value)
    return call()
