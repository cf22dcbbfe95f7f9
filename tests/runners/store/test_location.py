"""Location in a bucket: its guarantees, and trials whose nodes share only its URL."""

import os
import pickle
import signal
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from budgets.machine_cache import CACHE
from runners.host.process import FreshProcess
from runners.scheduling.local_backend import LocalBackend
from runners.scheduling.storage_check import Objects, StorageCheck
from runners.store.location import Location, cache_folder, fetch_tree, share_tree
from runners.trials import run_on_node
from runners.trials.meter import read_meter
from runners.trials.run_on_node import run_on_copies, upload_left
from runners.trials.trial import run_trial
from runners.trials.trial_files import Outcome, kept_steps
from runners.trials.trial_job import TrialJob
from tests.holding import hold, let_go
from tests.runners.host.quiet_trial import (
    ALL,
    BATCH,
    FLOPS,
    STEPS,
    pid_of,
    quiet_row,
    row_of,
    run_quietly,
)
from tests.runners.store.bucket import Bucket
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


def test_objects_are_whole_and_one_of_several_creates(bucket: Bucket, tmp_path: Path) -> None:
    storage = Location(bucket.url)
    storage.write("a/b/one", b"1")
    assert [storage.create("a/two", text) for text in (b"2", b"22")] == [True, False]
    assert storage.exclusive("a/two")
    assert storage.list("a") == {"b/one": 1, "two": 1}
    assert (storage.read("a/two"), storage.read("a/three"), storage.list("b")) == (b"2", None, {})

    with pytest.raises(OSError, match="a/two was cut short on its way"):
        storage.get({"b/one": 1, "two": 2}, "a", tmp_path)
    assert not (tmp_path / "two").exists()
    storage.delete(["a/two", "a/three"])
    assert storage.list("a") == {"b/one": 1}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://no-such-bucket/x", "can't be used: The specified bucket does not exist"),
        ("gs://bucket/x", "needs a package that is not installed: .* gcsfs"),
        ("ftp://127.0.0.1:1/x", "can't be opened: ConnectionRefusedError"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_a_storage_that_cannot_be_used_is_refused_with_the_reason(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^storage {url} {message}"):
        Location(url).require()


def test_a_node_that_does_not_see_what_the_driver_wrote_or_may_not_enter_is_named(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalBackend() as backend:
        StorageCheck(backend, Objects(url=bucket.url)).require()
        with pytest.raises(ValueError, match=r"node \S+: memory://x is another storage than the driver's"):
            StorageCheck(backend, Objects(url="memory://x")).require()
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(ValueError, match=r"node \S+: storage \S+ can't be used: .* credentials"):
            StorageCheck(backend, Objects(url=bucket.url)).require()


def test_a_folder_is_fetched_whole_once_a_node_hidden_files_left_out(bucket: Bucket, tmp_path: Path) -> None:
    storage, here = Location(bucket.url), tmp_path / "node"
    (tmp_path / "pool" / "shards").mkdir(parents=True)
    (tmp_path / "pool" / "shards" / "0.tar").write_bytes(b"tar")
    (tmp_path / "pool" / ".next").write_bytes(b"half")

    assert not fetch_tree(storage, "pools/x", here)
    assert share_tree(storage, tmp_path / "pool", "pools/x")
    assert not share_tree(storage, tmp_path / "pool", "pools/x")
    assert fetch_tree(storage, "pools/x", here)
    found = [path.relative_to(here).as_posix() for path in sorted(here.rglob("*")) if path.is_file()]
    assert found == ["pools/.x.lock", "pools/x/shards/0.tar"]


@pytest.fixture(scope="module")
def quiet(bucket: Bucket, pool: Path, tmp_path_factory: pytest.TempPathFactory) -> TrialJob:
    """Run the trial on local paths, with its pool also in the bucket."""
    share_tree(Location(bucket.url), pool, "pools/tiny")
    return run_quietly(pool, tmp_path_factory.mktemp("quiet") / "trial")


@dataclass(frozen=True, kw_only=True, slots=True)
class InBucket:
    """A trial with paths below a URL."""

    url: str
    job: TrialJob

    @property
    def folder(self) -> Path:
        """The trial's folder in the bucket."""
        return self.job.folder


@pytest.fixture
def job(quiet: TrialJob, bucket: Bucket, request: pytest.FixtureRequest) -> InBucket:
    """Return the same trial in the bucket, not started there."""
    pool = Path("pools", "tiny")
    there = replace(
        quiet,
        pools=(pool,),
        evaluation={"held-out": pool / "evaluation" / "held-out"},
        folder=Path("results", request.node.name, "trial"),
    )
    return InBucket(url=bucket.url, job=there)


def run_and_push_often(job: InBucket) -> Outcome:
    run_on_node._PUSH_S = 0.1  # noqa: SLF001 - what takes a node minutes is to take seconds here
    return run_on_copies(job.url, job.job, run_trial)


def start(job: InBucket, node: Path) -> FreshProcess:
    environment = {**os.environ, CACHE: str(node)}
    return FreshProcess(pickle.dumps(partial(run_and_push_often, job)), environment)


def folder_on(node: Path, job: InBucket) -> Path:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(CACHE, str(node))
        return cache_folder(job.url) / job.folder


def counted(job: InBucket, folder: Path) -> int:
    """Return the training FLOPs of the trial, as counted in the storage."""
    found = Location(job.url).read(f"{job.folder}/meter")
    assert found is not None
    (folder / "meter").write_bytes(found)
    count = read_meter(folder)
    assert count is not None
    return count.train_flops


def names(job: InBucket) -> set[str]:
    return set(Location(job.url).list(job.folder.as_posix()))


def test_a_killed_trial_goes_on_on_another_node_from_the_storage_and_every_step_is_counted(
    job: InBucket, quiet: TrialJob, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    folder = folder_on(first, job)
    hold(folder.parents[1], step=100)
    process = start(job, first)
    wait_for(lambda: kept_steps(folder) >= 60)
    os.kill(pid_of(folder), signal.SIGKILL)
    end = process.wait()
    begun, kept = read_meter(folder), kept_steps(folder)

    assert (end.how, end.reason) == ("crashed", "the trial's process died by SIGKILL")
    assert begun is not None
    assert counted(job, tmp_path) == begun.train_flops
    assert row_of(start(job, second).wait()) == quiet_row(quiet)
    assert counted(job, tmp_path) == begun.train_flops + (STEPS - kept) * BATCH * FLOPS
    assert names(job) == {"curve.parquet", "meter", "result.json", "weights.pt"}
    assert not folder_on(second, job).exists()


def test_what_a_killed_node_kept_is_uploaded_when_a_run_begins_there(
    job: InBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    folder = folder_on(tmp_path, job)
    hold(folder.parents[1], step=100)
    process = start(job, tmp_path)
    wait_for(lambda: any(name.startswith("checkpoint") for name in names(job)))
    uploaded = max(name for name in names(job) if name.startswith("checkpoint"))
    Location(job.url).delete([f"{job.folder}/{uploaded}"])  # as if its upload had not ended
    pid = pid_of(folder)
    process.kill()
    process.wait()
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    begun = read_meter(folder)
    assert begun is not None

    upload_left(job.url, job.folder.parent)

    assert counted(job, tmp_path) == begun.train_flops
    assert any(f"checkpoint-{kept_steps(folder):010}" in name for name in names(job))
    Location(job.url).write(f"{job.folder}/owner", b"another")
    Location(job.url).write(f"{job.folder}/meter", b"of another")
    upload_left(job.url, job.folder.parent)
    assert Location(job.url).read(f"{job.folder}/meter") == b"of another"


def test_unreachable_storage_does_not_stop_training_and_a_trial_that_left_resumes(
    job: InBucket, quiet: TrialJob, bucket: Bucket, tmp_path: Path
) -> None:
    folder = folder_on(tmp_path, job)
    hold(folder.parents[1], step=60)
    process = start(job, tmp_path)
    wait_for(lambda: kept_steps(folder) >= 20)
    process.ask_to_leave()
    end, kept = process.wait(), kept_steps(folder)
    assert (end.how, end.reason) == ("left", f"Left: SIGTERM after {kept} of {STEPS} steps")
    assert any(f"checkpoint-{kept:010}" in name for name in names(job))

    hold(folder.parents[1], step=140)
    process = start(job, tmp_path)
    wait_for(lambda: kept_steps(folder) > kept)
    bucket.go_away()
    let_go(folder.parents[1])
    wait_for((folder / "result.json").exists)
    assert not process.connection.poll(0.5), "it waits with its result"
    bucket.come_back()

    assert row_of(process.wait()) == quiet_row(quiet)
    assert counted(job, tmp_path) == ALL


def test_a_process_whose_trial_was_taken_over_stops_and_uploads_no_result(
    job: InBucket, tmp_path: Path
) -> None:
    hold(folder_on(tmp_path, job).parents[1], step=100)
    process = start(job, tmp_path)
    wait_for(lambda: any(name.startswith("checkpoint") for name in names(job)))
    Location(job.url).write(f"{job.folder}/owner", b"another")

    end = process.wait()
    assert (end.how, end.reason) == ("crashed", "another process has taken the trial over")
    assert "result.json" not in names(job)
