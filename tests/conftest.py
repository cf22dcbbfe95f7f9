"""Settings for all tests."""

import gc
import os
from multiprocessing import forkserver

import pytest
from hypothesis import settings

from runners.host.process import TRIAL_MODULES, load_ahead
from tests import child_processes
from tests.root import ROOT

# The workers share the cores: more threads than one in each only wait for each other.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

# Collecting garbage takes 4 % of the tests' time: less often, and not while modules are imported.
gc.disable()
gc.set_threshold(50_000, 20)
# So do the Python processes that tests start.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(child_processes.FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
)

# What tests decode into this machine's cache stays small.
os.environ.setdefault("STUDY_CACHE_SIZE", "100 MB")

# Views are tested as in a usual terminal, and output as through a pipe, although pytest-xdist sets a width.
os.environ["TERM"] = "xterm"
os.environ.pop("COLUMNS", None)

# Ray gives its workers the lowest claim to a core: beside another worker of the tests they would starve.
os.environ.setdefault("RAY_worker_niceness", "0")

# A busy machine must not fail a test: speed is measured by benchmarks alone.
settings.register_profile("no deadline", deadline=None, derandomize=True)
settings.load_profile("no deadline")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the figures of reports by empty ones, for tests of their answers and tables."""
    monkeypatch.setattr(
        "analysis.report.report.save_all", lambda figures, *_: {each.name: "<svg></svg>" for each in figures}
    )


@pytest.hookimpl(tryfirst=True)  # before that of xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests that must not run at the same time.

    Those of a file, which share what it made, or of files that name one group; and those of a package that
    start Ray: more than two clusters only wait for the cores.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    # Ray first: the longest groups. Files without a slow test last: the workers end at the same time.
    items.sort(key=lambda item: (item.get_closest_marker("ray") is None, item.path not in slow))
    for item in items:
        package = item.path.relative_to(ROOT / "tests").parts[0]
        group = f"ray {package}" if item.get_closest_marker("ray") else str(item.path)
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish() -> None:
    """Leave the objects of all imported modules out of garbage collection, which would find none to free."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start the server that trials are forked from, with all that any of them needs.

    Whatever starts it first decides what it loads: after a test that forks no trials, each trial would load
    the rest by itself.
    """
    if item.get_closest_marker("ray") or item.get_closest_marker("slow"):
        load_ahead(*TRIAL_MODULES, "ray")
        forkserver.ensure_running()
