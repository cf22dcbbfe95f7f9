"""A Ray cluster of simulated nodes on loopback."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.shared_server import shared_server


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster with a head that runs no trials; the tests of a file add nodes."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    from ray._raylet import Config  # type: ignore[attr-defined]  # noqa: PLC0415 - after the mode is set

    from tests.runners.scheduling.simulated import simulated_cluster  # noqa: PLC0415 - as above

    Config.initialize("")  # other tests may have imported Ray, which read its configuration then
    with pytest.MonkeyPatch.context() as environment:
        for name, value in shared_server().items():
            environment.setenv(name, value)
        with simulated_cluster() as cluster:
            yield cluster
