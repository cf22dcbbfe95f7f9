"""A study on an existing Ray cluster: a real head on loopback with token authentication."""

import os
import secrets
import shlex
import subprocess
import sys
import time

import pandas as pd
import pytest

from runners.results import read_events
from runners.scheduling.ray_backend.core import kill_node
from tests.holding import hold, let_go
from tests.root import ROOT
from tests.study.ray_head import RAY, Head
from tests.study.tiny_study import TinyStudy, ended

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


def test_the_trials_of_a_removed_node_continue_elsewhere(tiny: TinyStudy, on_ray: Head) -> None:
    tiny.declare(levels="30 GFLOP", seeds="0, 1")
    hold(tiny.folder, step=60)
    with on_ray.joined() as node, tiny.start() as process:
        deadline = time.monotonic() + 120
        while len(tiny.at_work()) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline, "no trial began"
            time.sleep(0.05)
        started = read_events(tiny.folder / "events.jsonl").dropna(subset=["nodes"])
        victim = node.node_id
        assert [victim] in started["nodes"].tolist()
        kill_node(node)
        let_go(tiny.folder)
        ended(process)

    assert "trial-retried" in tiny.event_names()
    events = read_events(tiny.folder / "events.jsonl")
    again = events[(events["event"] == "trial-started") & events["trial"].duplicated()]
    assert victim not in {node for each in again["nodes"].iloc[1:] for node in each}
    assert tiny.settled()["spent"] == tiny.planned_flops()
    disturbed = tiny.tables()
    tiny.folder.rename(tiny.place / "disturbed")
    tiny.run()
    assert tiny.tables() == disturbed
