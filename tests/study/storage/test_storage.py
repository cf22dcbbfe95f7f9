"""A study in a bucket: machines that share only its URL give the same rows as a shared folder."""

import itertools
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from budgets.machine_cache import CACHE
from runners.scheduling.backend import Job
from runners.scheduling.local_backend import LocalBackend
from runners.store.copies import trial_copies
from runners.store.location import Location
from runners.trials.meter import FlopCount, write_meter
from runners.trials.trial_files import FILES, PROGRESS, drop_milestone, is_milestone, milestone
from study.declare.load import load_declaration
from study.state.study import Study, find_study
from study.storage import lock
from study.storage.bucket_storage import BucketStorage, bring
from tests.holding import hold
from tests.runners.store.bucket import Bucket
from tests.study.tiny_study import EVALUATED, TRUNK, TinyStudy
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

LEVELS = ("4 GFLOP", "6 GFLOP", "8 GFLOP")


Machine = Callable[..., TinyStudy]
"""A machine's name, and changes → the study in the bucket, declared there, with results of its own."""


@pytest.fixture
def machine(pool: Path, tmp_path: Path, bucket: Bucket) -> Machine:
    def machine(name: str = "first", *, more: str = "", **changes: str) -> TinyStudy:
        return TinyStudy(tmp_path / name, pool, more=f"storage: {bucket.url}\n{more}", **changes)

    return machine


def opened(study: TinyStudy) -> Study:
    """Return the study with the pools that its machine has."""
    return find_study(load_declaration(study.declaration), results=str(study.place), pools=None)


def test_another_machine_continues_a_dead_drivers_study_to_the_same_rows(
    tiny: TinyStudy, machine: Machine, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels, storage = "4 GFLOP, 25 GFLOP", Location(bucket.url)
    tiny.declare(levels=levels)
    tiny.run()
    monkeypatch.setenv(CACHE, str(tmp_path / "first cache"))
    hold(
        trial_copies(Location(bucket.url)) / "results" / "tiny", step=100
    )  # the longer trial alone gets there
    with machine("first", levels=levels).start("--backend", "local") as process:
        deadline = time.monotonic() + 120
        while not (
            any(name.endswith("result.json") for name in storage.list("results/tiny"))
            and (storage.read("results/tiny/events.jsonl") or b"").count(b'"trial-started"') == 2
        ):
            assert process.poll() is None
            assert time.monotonic() < deadline, "no trial ended"
            time.sleep(0.05)
        process.kill()
    monkeypatch.setattr(lock, "_DEAD_S", 4)  # a few renewals
    monkeypatch.setenv(CACHE, str(tmp_path / "second cache"))
    second, third = machine("second", levels=levels), machine("third", levels=levels)

    said = second.run()

    assert f"process {process.pid} on {socket.gethostname()}" in said
    assert "still alive" in said
    assert second.tables() == tiny.tables()
    assert not second.reserved()
    starts = [event["trial"] for event in second.events("trial-started")]
    assert len(set(starts)) == 2, "the first driver's events are there"
    assert len(starts) <= 3, "what was finished was not started again"
    assert "all     2        0" in third.says("status")
    assert "2 of 2 trials" in third.says("report")


def test_a_list_of_the_bucket_that_is_out_of_date_changes_nothing(
    tiny: TinyStudy, machine: Machine, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = {"levels": ", ".join(LEVELS[:2]), "training": TRUNK}
    tiny.declare(**trunk)
    tiny.run()
    monkeypatch.setattr(bucket, "lag_s", 3600)
    monkeypatch.setenv(CACHE, str(tmp_path / "first cache"))
    first, second = (machine(name, **trunk) for name in ("first", "second"))
    first.run()
    assert not Location(bucket.url).list("results"), "it lists nothing"

    assert first.tables() == tiny.tables()
    assert "all     2        0" in second.says("status")
    second.run()
    assert second.tables() == tiny.tables()
    assert not second.events("trial-started")[2:], "what was finished was not started again"


def test_a_storage_that_no_other_process_reads_is_refused_before_anything_is_spent(
    pool: Path, tmp_path: Path
) -> None:
    study = TinyStudy(tmp_path, pool, more="storage: memory://clip\n")
    said = study.run(code=2)
    assert "memory://clip/results/tiny is another storage than the driver's, or one that no other" in said
    assert study.table("spent").empty


def test_a_trial_starts_when_its_name_is_in_the_bucket(
    machine: Machine, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_BEAT_S", 600)  # no upload beside the run
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    named = list[bool]()

    def start(backend: LocalBackend, job: Job) -> None:
        names = json.loads(Location(bucket.url).read(f"results/tiny/{FILES}") or b"{}")
        if job.resources:  # a trial, not a look at the storage
            named.append(job.trial in names["trials"])
        start_job(backend, job)

    start_job = LocalBackend.start
    monkeypatch.setattr(LocalBackend, "start", start)

    machine().run()

    assert named == [True], "found elsewhere although its driver dies now"


def test_a_node_counts_on_from_a_meter_that_the_driver_wrote(bucket: Bucket, tmp_path: Path) -> None:
    study, folder = BucketStorage(Location(bucket.url), "results/tiny", tmp_path), tmp_path / "trials" / "one"
    folder.mkdir(parents=True)
    write_meter(folder, FlopCount(train_flops=7))
    study.publish("one")
    assert Location(bucket.url).read("results/tiny/trials/one/meter") == (folder / "meter").read_bytes()


def test_lines_that_a_killed_run_had_not_uploaded_stay_and_those_of_another_machine_come(
    bucket: Bucket, tmp_path: Path
) -> None:
    study, events = Location(bucket.url) / "results/tiny", tmp_path / "events.jsonl"
    study.write("events.jsonl", b"1\n2\n")
    study.write(FILES, b'{"files": ["events.jsonl"], "trials": []}')
    for here, kept in ((b"1\n", b"1\n2\n"), (b"1\n2\n3\n", b"1\n2\n3\n"), (b"1\n4\n5\n", b"1\n2\n")):
        events.write_bytes(here)
        bring(study, tmp_path)
        assert events.read_bytes() == kept


def test_pool_and_evaluation_set_below_a_url_give_the_rows_of_a_folder(
    pool: Path, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    storage, apart = Location(bucket.url), pool / "evaluation" / "retrieval"
    for path in pool.rglob("*"):
        if path.is_file():
            storage.put(path, f"pools/small/{path.relative_to(pool)}")
            if path.is_relative_to(apart):
                storage.put(path, f"sets/again/{path.relative_to(apart)}")

    def ran(name: str, place: str | Path, again: str | Path) -> TinyStudy:
        more = f'evaluation: {{again: "{again}"}}\n'
        study = TinyStudy(tmp_path / name, Path("POOL"), more=more)
        study.edit(("POOL", f'"{place}"'))
        assert "1 trial" in study.run(f"--pools {study.place / 'pools'}")
        return study

    of_folder = ran("folder", pool, shutil.copytree(apart, tmp_path / "again"))
    of_url = ran("url", f"{bucket.url}/pools/small", f"{bucket.url}/sets/again")

    assert of_url.tables() == of_folder.tables()
    assert not list((of_url.place / "pools").rglob("shards"))
    assert "all     1        0" in of_url.says(f"status --pools {of_url.place / 'pools'}")


def test_a_study_without_a_local_copy_is_not_shown_while_its_bucket_is_unreachable(
    machine: Machine, bucket: Bucket
) -> None:
    study = machine()
    assert "has no results" in study.says("status", code=2)
    bucket.go_away()

    said = study.says("status", code=2)

    assert said.startswith(f"study: storage {bucket.url}/results/tiny is unreachable: ")
    assert "has no results" not in said
    assert "local copy" not in said


def test_the_progress_of_a_running_trial_is_seen_from_another_machine(
    machine: Machine, bucket: Bucket
) -> None:
    study = opened(machine())
    there, here = "results/tiny/trials/0123456789ab/progress.json", "trials/0123456789ab/progress.json"
    Location(bucket.url).write(f"results/tiny/{FILES}", b'{"files": [], "trials": ["0123456789ab"]}')
    for progress in (b"{}", b'{"samples_seen": 1}'):
        Location(bucket.url).write(there, progress)
        study.storage.refresh()
        assert (study.folder / here).read_bytes() == progress

    Location(bucket.url).delete([there])
    Location(bucket.url).write("results/tiny/trials/0123456789ab/meter", b"")
    study.storage.refresh()

    assert not (study.folder / here).exists(), "the trial has ended"


@pytest.mark.parametrize("damaged", [False, True])
def test_trials_continue_on_another_machine_from_milestones_in_the_bucket(
    tiny: TinyStudy, machine: Machine, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, *, damaged: bool
) -> None:
    more = "" if damaged else EVALUATED
    storage, trunk = Location(bucket.url), {"levels": ", ".join(LEVELS), "training": TRUNK, "more": more}

    def milestones() -> list[str]:
        return [name for name in storage.list("results/tiny/trials") if is_milestone(name.split("/")[-1])]

    tiny.declare(**trunk)
    tiny.run()
    monkeypatch.setenv(CACHE, str(tiny.place / "first cache"))
    first = machine("first", **trunk | {"levels": ", ".join(LEVELS[:2])})
    first.run()
    assert first.settled()["wasted"] == 0
    (kept,) = milestones()
    if damaged:
        storage.write(f"results/tiny/trials/{kept}", b"damaged")
    monkeypatch.setenv(CACHE, str(tiny.place / "second cache"))
    second = machine("second", **trunk)
    second.run()

    assert second.tables() == tiny.tables()
    rows = second.table()
    assert len(set(rows["trunk"]) - {""}) == 1
    shared = rows["train_flops"].iloc[-1] - rows["paid_flops"].iloc[-1]
    assert second.settled() == {"spent": rows["paid_flops"].sum(), "wasted": shared if damaged else 0}
    (top,) = milestones()  # from which a further level would continue; the others are gone
    assert top.split("/")[0] == rows["trial"].iloc[-2 if more else -1]
    assert not list((tiny.place / "second cache").rglob("*milestone-*"))

    third = machine("third", **trunk)
    third.run(f"--again {rows['trial'][0]}")
    assert third.table()["attempt"].tolist() == [*rows["attempt"], 2]
    spent = third.settled()
    second.run()
    assert (second.tables(), second.settled()) == (third.tables(), spent)


def test_a_driver_whose_lease_another_run_took_ends_and_leaves_the_other_alone(
    machine: Machine, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, lease = opened(machine()), "results/tiny/run.json"
    study.folder.mkdir(parents=True)
    monkeypatch.setattr(lock, "_BEAT_S", 0.2)
    holder = {"host": "elsewhere", "pid": 1, "since": "2026-01-01 00:00:00+00:00"}
    other = json.dumps(holder | {"token": "other", "renewals": 1}).encode()
    lost = pytest.raises(ValueError, match="is active: process 1 on elsewhere")
    with lost, study.storage.claim(lambda _text: None):
        while not study.storage.stop_requested():
            Location(bucket.url).write(lease, other)  # as the other does again and again
            time.sleep(0.1)
    assert Location(bucket.url).read(lease) == other
    over = threading.Event()

    def renew() -> None:
        for number in itertools.count(2):
            Location(bucket.url).write(lease, json.dumps(holder | {"renewals": number}).encode())
            if over.wait(0.1):
                return

    with ThreadPoolExecutor(1) as threads:
        threads.submit(renew)
        assert machine("second").says("stop --within 1").startswith("asked process 1 on elsewhere")
        over.set()


def test_many_running_trials_are_followed_at_once_and_the_lease_is_renewed_meanwhile(
    machine: Machine, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, trials = opened(machine()), [f"{number:04}" for number in range(128)]
    place = Location(bucket.url) / "results" / "tiny"
    monkeypatch.setattr(lock, "_BEAT_S", 0.3)
    for trial_id in trials:
        (study.folder / "trials" / trial_id).mkdir(parents=True)
        (place / "trials" / trial_id).write(PROGRESS, b"1")
    bucket.slow = {PROGRESS: 0.4}  # 51 s one after the other
    leases, changes = set[bytes | None](), list[float]()

    def followed() -> bool:
        if (lease := place.read("run.json")) not in leases:
            leases.add(lease)
            changes.append(time.monotonic())
        return all((study.folder / "trials" / trial_id / PROGRESS).exists() for trial_id in trials)

    with study.storage.claim(lambda _text: None):
        began = time.monotonic()
        study.storage.watch(trials)
        wait_for(followed, seconds=45)
        assert time.monotonic() - began > 3, "it was not that slow"
        assert max(after - before for before, after in itertools.pairwise(changes)) < 10


def test_the_milestone_of_a_trial_that_runs_is_seen_and_can_be_deleted(
    machine: Machine, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(machine())
    folder, name = study.folder / "trials" / "0123", "milestone-0000000012-0123456789abcdef.pt"
    folder.mkdir(parents=True)
    monkeypatch.setattr(lock, "_BEAT_S", 0.2)
    rounds, follow = list[None](), BucketStorage._follow  # noqa: SLF001 - it runs in a thread
    monkeypatch.setattr(BucketStorage, "_follow", lambda storage: rounds.append(follow(storage)))
    with study.storage.claim(lambda _text: None):
        study.storage.watch(["0123"], ["0123"])
        Location(bucket.url).write(f"results/tiny/trials/0123/{name}", b"state")
        Location(bucket.url).write(f"results/tiny/trials/0123/{FILES}", json.dumps({name: 5}).encode())
        wait_for(lambda: milestone(folder), seconds=60)
        study.storage.watch(["0123"])
        before = len(rounds)
        wait_for(lambda: len(rounds) > before, seconds=60)  # one may have begun
        study.storage.publish("0123")
        assert name in Location(bucket.url).list("results/tiny/trials/0123")
        drop_milestone(folder)
        study.storage.publish("0123")
        assert name not in Location(bucket.url).list("results/tiny/trials/0123")
