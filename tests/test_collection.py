"""All tests run; those of a file, and those of a package that start Ray, on one worker of pytest-xdist."""

import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.root import ROOT

ALONE = """
import sys
sys.modules |= dict.fromkeys(("moto", "s3fs", "flask"))
import pytest
rule = "test_files_are_whole_and_one_of_several_creates"
sys.exit(pytest.main(["-q", "-n", "0", "-p", "no:cacheprovider", "-k", rule, "tests"]))
"""
"""Runs a test in a folder and in a bucket where the packages of buckets are not installed."""


def test_a_test_is_sent_to_the_worker_of_its_group(request: pytest.FixtureRequest) -> None:
    group = request.node.get_closest_marker("xdist_group")

    assert group is not None
    # pytest-xdist reads the group from the end of a test's id; without it, every test goes to any worker.
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith(f"@{group.args[0]}")


def test_no_folder_of_tests_is_passed_over(pytestconfig: pytest.Config) -> None:
    tests = Path(__file__).parent
    files = [path.relative_to(tests) for path in tests.rglob("test_*.py")]
    passed_over = pytestconfig.getini("norecursedirs")

    assert len(files) > 150
    assert not [path for path in files for name in path.parts for each in passed_over if fnmatch(name, each)]


@pytest.mark.slow
def test_without_the_packages_of_buckets_all_tests_are_collected_and_those_with_buckets_skipped() -> None:
    ran = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "could not import 'moto" in ran.stdout
    assert "\n1 passed, 1 skipped, " in ran.stdout
