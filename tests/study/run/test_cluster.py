"""A study on an existing Ray cluster: a real head on loopback with token authentication."""

import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.root import ROOT
from tests.study.conftest import write_declaration

pytestmark = pytest.mark.ray

RAY = Path(sys.executable).with_name("ray")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[int, int, dict[str, str]]]:
    """Start a head as in docs/cluster.md; yield its port, dashboard port and client environment."""
    port, dashboard = free_port(), free_port()
    environment = {
        **os.environ,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    # Sockets lie in it, whose paths must be short.
    folder = Path("/tmp") / f"ray-{port}"  # noqa: S108 - as above
    options = (
        f"--head --block --port {port} --dashboard-port {dashboard} --temp-dir {folder} --num-cpus 2 "
        # Its default is one fixed port, which the daemons of a Ray that was killed may still hold.
        f"--dashboard-agent-listen-port {free_port()}"
    )
    with subprocess.Popen(
        [RAY, "start", *options.split(), "--object-store-memory", "100000000"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ray runtime started" in line:
                break
        yield port, dashboard, environment
        os.killpg(process.pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


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
    head: tuple[int, int, dict[str, str]], pool: Path, tmp_path: Path
) -> None:
    port, dashboard, environment = head
    declaration = write_declaration(tmp_path, pool)
    with declaration.open("a") as file:
        file.write(f"storage: {tmp_path / 'shared'}\n")
    submit = [RAY, "job", "submit", "--address", f"http://127.0.0.1:{dashboard}", "--", "bash", "-c"]
    command = f"cd {shlex.quote(str(ROOT))} && {sys.executable} -m study run {declaration}"

    until = time.monotonic() + 120
    while True:
        ended = run([*submit, command], environment)
        # A head that has just started has no agent yet.
        if "No available agent" not in ended.stderr or time.monotonic() > until:
            break
        time.sleep(1)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"Ray cluster at 127.0.0.1:{port}: 2 trials at once on 1 node (2 cpus)" in ended.stdout
    results = pd.read_parquet(tmp_path / "shared" / "results" / "tiny" / "results.parquet")
    assert results["status"].tolist() == ["finished"]


def test_head_on_loopback_is_found_without_an_environment_variable(
    head: tuple[int, int, dict[str, str]], pool: Path, tmp_path: Path
) -> None:
    port, _, environment = head
    declaration = write_declaration(tmp_path, pool)
    plain = {name: value for name, value in environment.items() if not name.startswith("RAY_ENABLE_")}
    words = ["run", declaration, "--results", tmp_path, "--address", f"127.0.0.1:{port}"]
    before = time.monotonic()

    ended = run([sys.executable, "-m", "study", *words], plain)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"Ray cluster at 127.0.0.1:{port}" in ended.stdout
    assert time.monotonic() - before < 120


def test_a_wrong_cluster_token_gives_one_clear_error(
    head: tuple[int, int, dict[str, str]], pool: Path, tmp_path: Path
) -> None:
    port, _, environment = head
    declaration = write_declaration(tmp_path, pool)
    stranger = {**environment, "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ADDRESS": f"127.0.0.1:{port}"}
    before = time.monotonic()

    ended = run([sys.executable, "-m", "study", "run", declaration, "--results", tmp_path], stranger)

    assert ended.returncode == 2
    assert f"the Ray cluster at 127.0.0.1:{port} rejects this process" in ended.stderr
    assert "InvalidAuthToken" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert time.monotonic() - before < 60
