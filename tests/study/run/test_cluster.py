"""A study on an existing Ray cluster: a real head on loopback with token authentication."""

import os
import secrets
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.root import ROOT
from tests.study.conftest import write_declaration
from tests.study.ray_head import RAY, Head

pytestmark = pytest.mark.ray


def run(words: list[object], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_a_job_that_is_submitted_to_a_cluster_runs_the_study_on_it(
    head: Head, pool: Path, tmp_path: Path
) -> None:
    declaration = write_declaration(tmp_path, pool)
    with declaration.open("a") as file:
        file.write(f"storage: {tmp_path / 'shared'}\n")
    submit = [RAY, "job", "submit", "--address", head.dashboard, "--", "bash", "-c"]
    path = head.environment["PYTHONPATH"]  # of the fork server of the tests
    command = f"cd {shlex.quote(str(ROOT))} && PYTHONPATH={path} {sys.executable} -m study run {declaration}"

    until = time.monotonic() + 120
    while True:
        ended = run([*submit, command], os.environ | head.environment)
        # A head that has just started has no agent yet.
        if "No available agent" not in ended.stderr or time.monotonic() > until:
            break
        time.sleep(1)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"Ray cluster at {head.address}: 2 trials at once on 1 node (2 cpus)" in ended.stdout
    results = pd.read_parquet(tmp_path / "shared" / "results" / "tiny" / "results.parquet")
    assert results["status"].tolist() == ["finished"]


def test_head_on_loopback_is_found_without_an_environment_variable(
    head: Head, pool: Path, tmp_path: Path
) -> None:
    declaration = write_declaration(tmp_path, pool)
    both = os.environ | head.environment
    plain = {name: value for name, value in both.items() if not name.startswith("RAY_ENABLE_")}
    words = ["run", declaration, "--results", tmp_path, "--address", head.address]
    before = time.monotonic()

    ended = run([sys.executable, "-m", "study", *words], plain)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"Ray cluster at {head.address}" in ended.stdout
    assert time.monotonic() - before < 120


def test_a_wrong_cluster_token_gives_one_clear_error(head: Head, pool: Path, tmp_path: Path) -> None:
    declaration = write_declaration(tmp_path, pool)
    stranger = {
        **os.environ,
        **head.environment,
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ADDRESS": head.address,
    }
    before = time.monotonic()

    ended = run([sys.executable, "-m", "study", "run", declaration, "--results", tmp_path], stranger)

    assert ended.returncode == 2
    assert f"the Ray cluster at {head.address} rejects this process" in ended.stderr
    assert "InvalidAuthToken" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert time.monotonic() - before < 60
