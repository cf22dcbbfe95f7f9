"""Speed of building and scoring a pool on two simulated nodes, compared with one process; then a node dies.

Run ``python benchmarks/pool_build.py [--pairs N]`` from the root of the checkout, on a quiet machine with at
least two cores (default: 12,000 JPEGs). The nodes have a core each, on loopback. Speeds are parts per second
from the first finished part to the last, so that they leave out the connection to the cluster and the start
of its processes, whose seconds are printed. The node is killed when half of the parts were read. The last
lines are name, value, lower limit, and pass or fail; the exit code is 1 if one fails.
"""

import argparse
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ |= {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # all on loopback
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "OMP_NUM_THREADS": "1",
}

from ray.cluster_utils import Cluster

from benchmarks.loader import make_shards
from benchmarks.measured import at_least, verdict
from budgets.machine_cache import CACHE
from runners.evaluate import clip_score
from runners.host.workers import Report
from study.show.view import WorkProgress
from tests.study.commands.pools.pools_on_two_nodes import content, killing, run, work_in, write_model

FASTER = 1.4
LEAST = 4_000
MEMORY: dict[str, Any] = {"object_store_memory": 80_000_000, "include_dashboard": False}


class TimedCommands:
    """Runs commands and measures them.

    Attributes:
        speeds: Parts per second of each command's first task.
    """

    def __init__(self) -> None:
        self.speeds: list[float] = []
        self._begin = WorkProgress.__enter__

    def run(self, *words: object) -> None:
        """Run a command."""
        began, found = time.monotonic(), list[tuple[float, int]]()

        def begins(progress: WorkProgress) -> Report:
            report = self._begin(progress)

            def reports(what: str, done: int, of: int, pairs: int) -> None:
                report(what, done, of, pairs)
                if what in {"reading", "scoring"}:
                    found.append((time.monotonic(), done))

            return reports

        with patch.object(WorkProgress, "__enter__", begins):
            run(*words)
        (first_s, first), (last_s, last) = found[0], found[-1]
        self.speeds.append((last - first) / (last_s - first_s))
        where = "on two nodes" if "--address" in words else "here"
        took = f"{time.monotonic() - began:.1f} s, of which {first_s - began:.1f} to the first part"
        print(f"{words[0]} {where}: {took}; {self.speeds[-1]:.2f} parts/s", flush=True)


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12_000)
    pairs = parser.parse_args().pairs
    if pairs < LEAST:
        parser.error(f"--pairs must be at least {LEAST:,}: fewer are too few shards to measure a speed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ[CACHE] = str(folder / "cache")
        make_shards(folder / "tars", pairs)
        model = write_model(folder)
        patch.object(clip_score, "_ROWS_PER_PART", max(1, pairs // 24)).start()  # parts for both nodes
        build = ("build", "p", "--from", folder / "tars")
        score = ("score", "p", "--with", model, "--name", "mine", "--device", "cpu")

        here = work_in(folder / "here")
        timed = TimedCommands()
        timed.run(*build, "--workers", 1)
        built = content(here)
        timed.run(*score, "--workers", 1)
        scored = content(here)

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **MEMORY})
        first, _ = (cluster.add_node(num_cpus=1, **MEMORY) for _ in range(2))
        cluster.wait_for_nodes()
        there = ("--address", cluster.address)
        path = work_in(folder / "there")
        timed.run(*build, *there)
        same = [content(path) == built]
        timed.run(*score, *there)
        same.append(content(path) == scored)
        path = work_in(folder / "kill")
        with patch.object(WorkProgress, "__enter__", killing(cluster, first, "reading")):
            began = time.monotonic()
            run(*build, *there)
            killed_s = time.monotonic() - began
        same.append(content(path) == built and len(cluster.worker_nodes) == 1)
        cluster.shutdown()
    print(f"{pairs:,} pairs; with a node killed half-way the build took {killed_s:.1f} s")
    build_gain, score_gain = timed.speeds[2] / timed.speeds[0], timed.speeds[3] / timed.speeds[1]
    return verdict([
        at_least("build_speedup_on_two_nodes", build_gain, FASTER),
        at_least("score_speedup_on_two_nodes", score_gain, FASTER),
        at_least("built_bytes_equal", same[0], 1),
        at_least("scored_bytes_equal", same[1], 1),
        at_least("killed_half_way_bytes_equal", same[2], 1),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
