"""Tests of a file, and all that start Ray, run on one worker of pytest-xdist."""

import os

import pytest


def test_a_test_is_sent_to_the_worker_of_its_group(request: pytest.FixtureRequest) -> None:
    group = request.node.get_closest_marker("xdist_group")

    assert group is not None
    # pytest-xdist reads the group from the end of a test's id; without it, tests with Ray run side by side.
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith(f"@{group.args[0]}")
