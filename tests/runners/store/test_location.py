"""Location in a bucket: its guarantees, and trials whose nodes share only its URL."""

import os
import pickle
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from budgets.machine_cache import CACHE
from runners.data.evaluation.evaluation_suite import found_sets
from runners.host.faults import format_error
from runners.host.process import FreshProcess
from runners.scheduling.local_backend import LocalBackend
from runners.scheduling.storage_check import Seen, StorageCheck
from runners.store.copies import fetch_tree, pool_at, set_at, share_tree, trial_copies
from runners.store.location import Location
from runners.trials import run_on_node
from runners.trials.meter import read_meter
from runners.trials.run_on_node import Copies, run_on_copies, upload_left
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


@pytest.fixture(params=["folder", "bucket"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "folder":
        return Location(tmp_path / "there")
    return Location(f"{request.getfixturevalue('bucket').url}/{tmp_path.name}")


def test_files_are_whole_and_one_of_several_creates(location: Location, tmp_path: Path) -> None:
    location.write("a/b/one", b"123")
    assert [location.create("a/two", text) for text in (b"2", b"22")] == [True, False]
    location.write("a/.hidden", b"")
    assert location.list("a") == {"b/one": 3, "two": 1}
    assert (location / "a").list() == pickle.loads(pickle.dumps(location / "a")).list() == location.list("a")  # noqa: S301
    assert (location.read("a/two"), location.read("a/three"), location.list("b")) == (b"2", None, {})
    assert (location.await_range("a/b/one", 1, 2, 0), location.await_range("a/b/one", 2, 9, 0)) == (
        b"2",
        b"3",
    )
    assert location.await_range("a/b/one", 5, 9, 0) == b""

    with pytest.raises(OSError, match="a/two was cut short on its way"):
        location.get({"a/b/one": 3, "a/two": 2}, tmp_path)
    assert not (tmp_path / "a" / "two").exists()
    with location.file("a/b/one", 3) as file:
        location.put(file, "again")
    facts = location.contents("pool")
    location.write("again", b"321")
    assert facts["again"] != location.contents("pool")["again"], "a change without a change of size is seen"
    location.delete(["a/two", "a/three"])
    assert location.list("a") == {"b/one": 3}
    with pytest.raises(FileNotFoundError):
        location.size("a/two")
    location.require()


def test_no_message_shows_a_password_or_a_secret_of_the_query(tmp_path: Path) -> None:
    pool = "http://me:SECRET@127.0.0.1:1/pool?token=SECRET&X-Amz-Signature=SECRET"
    place = Location(pool)
    assert str(place / "a.tar") == "http://me@127.0.0.1:1/pool/a.tar?token=…&X-Amz-Signature=…"
    assert (place / "a.tar").address.count("SECRET") == 3
    for refused in (partial(pool_at, pool), partial(set_at, pool, tmp_path), partial(found_sets, pool)):
        with pytest.raises(ValueError, match=r"/pool\?token=…") as error:
            refused()
        assert "SECRET" not in str(error.value)
    with pytest.raises(OSError, match=r"a\.tar") as failed:
        place.await_range("a.tar", 0, 1, 0)
    assert "SECRET" not in format_error(failed.value)


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
        StorageCheck(backend, Seen(written=Location(bucket.url))).require()
        with pytest.raises(ValueError, match=r"node \S+: memory://x is another storage than the driver's"):
            StorageCheck(backend, Seen(written=Location("memory://x"))).require()
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(ValueError, match=r"node \S+: storage \S+ can't be used: .* credentials"):
            StorageCheck(backend, Seen(written=Location(bucket.url))).require()


def test_a_folder_is_fetched_whole_hidden_files_left_out(bucket: Bucket, tmp_path: Path) -> None:
    storage, here = Location(bucket.url), tmp_path / "node"
    (tmp_path / "pool" / "shards").mkdir(parents=True)
    (tmp_path / "pool" / "shards" / "0.tar").write_bytes(b"tar")
    (tmp_path / "pool" / ".next").write_bytes(b"half")

    assert not fetch_tree(storage, "pools/x", here)
    assert share_tree(storage, "pools/x", tmp_path / "pool")
    assert not share_tree(storage, "pools/x", tmp_path / "pool")
    assert fetch_tree(storage, "pools/x", here)
    assert [path.relative_to(here).as_posix() for path in here.rglob("*.*")] == ["shards/0.tar"]


@pytest.fixture(scope="module")
def quiet(bucket: Bucket, pool: Path, tmp_path_factory: pytest.TempPathFactory) -> TrialJob:
    """Run the trial on local paths, with its pool also in the bucket."""
    share_tree(Location(bucket.url), "pools/tiny", pool)
    return run_quietly(pool, tmp_path_factory.mktemp("quiet") / "trial")


@dataclass(frozen=True, kw_only=True, slots=True)
class InBucket:
    """A trial whose study is below a URL."""

    url: str
    study: str
    job: TrialJob

    @property
    def folder(self) -> Path:
        """The trial's folder in the bucket."""
        return Path(self.study, "trials", self.job.folder.name)


@pytest.fixture
def job(quiet: TrialJob, bucket: Bucket, request: pytest.FixtureRequest) -> InBucket:
    """Return the same trial in the bucket, not started there."""
    return InBucket(url=bucket.url, study=f"results/{request.node.name}", job=quiet)


def run_and_push_often(job: InBucket) -> Outcome:
    run_on_node._PUSH_S = 0.1  # noqa: SLF001 - what takes a node minutes is to take seconds here
    (pool,) = job.job.pools
    copies = Copies(storage=Location(job.url), study=job.study, trees={pool: "pools/tiny"})
    return run_on_copies(copies, job.job, run_trial)


def start(job: InBucket, node: Path) -> FreshProcess:
    environment = {**os.environ, CACHE: str(node)}
    return FreshProcess(pickle.dumps(partial(run_and_push_often, job)), environment)


def folder_on(node: Path, job: InBucket) -> Path:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(CACHE, str(node))
        return trial_copies(Location(job.url)) / job.folder


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
    assert names(job) == {"curve.parquet", "files.json", "meter", "result.json", "weights.pt"}
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
    Location(job.url).delete([f"{job.folder}/{each}" for each in (uploaded, "files.json")])  # not ended
    pid = pid_of(folder)
    process.kill()
    process.wait()
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    begun = read_meter(folder)
    assert begun is not None

    upload_left(Location(job.url), job.study)

    assert counted(job, tmp_path) == begun.train_flops
    assert any(f"checkpoint-{kept_steps(folder):010}" in name for name in names(job))
    Location(job.url).write(f"{job.folder}/owner", b"another")
    Location(job.url).write(f"{job.folder}/meter", b"of another")
    upload_left(Location(job.url), job.study)
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
