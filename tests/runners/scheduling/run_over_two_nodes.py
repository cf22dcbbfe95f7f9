"""Runs a pickled trial on a simulated cluster of two nodes, which share its folder.

Then it runs on nodes that share only a URL, each with its own cache, and resumes after a request to leave.

Ray reads its token when it is imported, so this is a process of its own.
"""

import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all on loopback

from budgets.hardware.machine_cache import CACHE
from runners.host.storage import Storage
from runners.scheduling.backend import Ended, Job
from runners.scheduling.ray_backend.core import RayBackend
from runners.scheduling.ray_backend.tune import TuneBackend
from runners.trials.records.meter import read_meter
from runners.trials.records.trial_files import kept_steps
from runners.trials.trial import take_part
from runners.trials.trial_job import TrialJob
from study.storage.bucket_storage import BucketStorage
from tests.runners.scheduling import jobs
from tests.runners.scheduling.simulated import SMALL, simulated_cluster


def main(file: Path) -> None:
    job: TrialJob = pickle.loads(file.read_bytes())  # noqa: S301 - the test's own
    with simulated_cluster() as cluster:
        for number in range(2):
            cache = {CACHE: str(job.folder.with_name(f"cache{number}"))}
            cluster.add_node(num_cpus=1, env_vars=cache, **SMALL)
        cluster.wait_for_nodes()
        with RayBackend(cluster.address) as backend:
            finished = _run(backend, partial(take_part, job), job)
            assert finished.how == "finished", finished
            assert finished.value is not None

            storage = Storage(f"file://{job.folder.with_name('bucket')}")
            study = BucketStorage(storage.url, "study", job.folder.with_name("driver"))
            study.share(job, lambda _line: None)
            uploaded = job.folder.with_name("bucket") / "study" / "trials" / job.folder.name
            copies = f"cache*/*/study/trials/{job.folder.name}"
            call = study.call(take_part, job, nodes=2)
            left = _run(backend, call, job, copies)
            assert left.how == "left", left
            _check_count(job, uploaded)
            finished = _run(backend, call, job)
            assert finished.how == "finished", finished
            assert not [path for path in uploaded.iterdir() if path.name.startswith("checkpoint-")]
            shutil.copytree(uploaded, job.folder.with_name("by-url"))

            lost = _run(backend, jobs.lose_peers_as_last_rank, job)
            assert lost.how == "crashed", lost
            assert lost.reason == "rank 1 of 2: RuntimeError: Connection closed by peer"
            with TuneBackend(backend) as tune:
                assert _run(tune, jobs.place_among_ranks, job).value == (0, 2)


def _check_count(job: TrialJob, folder: Path) -> None:
    steps, count = kept_steps(folder), read_meter(folder)
    assert 0 < steps < job.trial.steps, steps
    assert count is not None
    assert count.train_flops == job.trial.train_flops_after(steps * job.trial.batch_size), "it lost work"


def _has_begun(folder: Path) -> bool:
    count = read_meter(folder)
    return count is not None and count.train_flops > 0


def _run(
    backend: RayBackend | TuneBackend, run: Callable[[], object], job: TrialJob, leaves: str = ""
) -> Ended:
    """Run a job, or only until a folder beside the trial's, given as a pattern, holds its first step."""
    nodes = tuple(backend.nodes())
    assert len(nodes) == 2, "the head has no core to offer"
    backend.start(Job(trial="wide", run=run, nodes=nodes, resources={"cpus": 1}))
    if leaves:
        while not any(map(_has_begun, job.folder.parent.glob(leaves))):
            time.sleep(0.05)
        backend.ask_to_leave("wide")
    while not (ended := backend.wait(1)):
        pass
    return ended[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
