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

from runners.scheduling.ray_backend.core import kill_node
from tests.holding import hold, let_go
from tests.root import ROOT
from tests.study.ray_head import RAY, Head
from tests.study.tiny_study import TinyStudy, ended
from tests.waiting import wait_for

pytestmark = pytest.mark.ray


def run(words: list[object], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)), cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        timeout=240,
    )  # fmt: skip


def command(tiny: TinyStudy) -> list[object]:
    return [sys.executable, "-m", "study", "run", tiny.declaration, "--results", tiny.place]


def test_a_job_that_is_submitted_to_a_cluster_runs_the_study_on_it(head: Head, tiny: TinyStudy) -> None:
    tiny.declare(more=f"storage: {tiny.place / 'shared'}\n")
    submit = [RAY, "job", "submit", "--address", head.dashboard, "--", "bash", "-c"]
    path = head.environment["PYTHONPATH"]  # of the fork server of the tests
    where = f"cd {shlex.quote(str(ROOT))} && PYTHONPATH={path}"
    submitted = f"{where} {sys.executable} -m study run {tiny.declaration}"

    until = time.monotonic() + 120
    while True:
        found = run([*submit, submitted], os.environ | head.environment)
        # A head that has just started has no agent yet.
        if "No available agent" not in found.stderr or time.monotonic() > until:
            break
        time.sleep(1)

    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{head.address}: 2 trials at once on 1 node" in found.stdout
    results = pd.read_parquet(tiny.place / "shared" / "results" / "tiny" / "results.parquet")
    assert results["status"].tolist() == ["finished"]


def test_head_on_loopback_is_found_without_an_environment_variable(head: Head, tiny: TinyStudy) -> None:
    both = os.environ | head.environment
    plain = {name: value for name, value in both.items() if not name.startswith("RAY_ENABLE_")}
    before = time.monotonic()

    found = run([*command(tiny), "--address", head.address], plain)

    assert found.returncode == 0, found.stdout + found.stderr
    assert f"Ray cluster at {head.address}" in found.stdout
    assert time.monotonic() - before < 120


def test_a_wrong_cluster_token_gives_one_clear_error(head: Head, tiny: TinyStudy) -> None:
    strange = {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ADDRESS": head.address}
    stranger = {**os.environ, **head.environment, **strange}
    before = time.monotonic()

    found = run(command(tiny), stranger)

    assert found.returncode == 2
    assert f"{head.address} rejects" in found.stderr
    assert "InvalidAuthToken" in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert time.monotonic() - before < 60


TWO_TRIALS = {"levels": "30 GFLOP", "seeds": "0, 1"}


@pytest.fixture(scope="module")
def quiet(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    undisturbed = TinyStudy(tmp_path_factory.mktemp("quiet"), pool, **TWO_TRIALS)
    undisturbed.run()
    return undisturbed.tables()


@pytest.mark.parametrize("leaves", [False, True], ids=["dies", "is left before it ends"])
def test_the_trials_of_a_removed_node_continue_elsewhere(
    tiny: TinyStudy, quiet: dict[str, bytes], on_ray: Head, *, leaves: bool
) -> None:
    tiny.declare(**TWO_TRIALS, resources=f"checkpoint: 0.2 s, retries: {0 if leaves else 3}")
    hold(tiny.folder, step=60)
    with on_ray.joined() as node, tiny.start() as process:
        wait_for(lambda: len(tiny.at_work()) == 2 or process.poll() is not None)
        victim = node.node_id
        (there,) = (event["trial"] for event in tiny.events("trial-started") if event["nodes"] == [victim])
        if leaves:  # as of a spot machine
            said = tiny.says(f"stop --node {victim} --within 60s")
            assert said.endswith(f"no trial runs on {victim} any more\n")
        kill_node(node)
        let_go(tiny.folder)
        ended(process)

    *_, again = tiny.events("trial-started")
    assert again["trial"] == there
    assert victim not in again["nodes"]
    assert [event["trial"] for event in tiny.events("trial-left" if leaves else "trial-retried")] == [there]
    assert not tiny.events("trial-retried" if leaves else "trial-left")
    assert tiny.settled()["spent"] == tiny.planned_flops()
    assert tiny.settled()["wasted"] == 0 or not leaves
    assert tiny.tables() == quiet
