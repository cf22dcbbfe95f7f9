"""A study in a bucket: machines that share only its URL give the same rows as a shared folder."""

import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from budgets.book import Book
from budgets.hardware.machine_cache import CACHE
from budgets.ledger import read_entries
from runners.host.storage import Storage, cache_folder
from runners.results import read_json_lines, read_table
from runners.scheduling.backend import Job
from runners.scheduling.local_backend import LocalBackend
from runners.trials.trial_files import drop_milestone, is_milestone, milestone
from study.declare.load import load_declaration
from study.state.study import find_study
from study.storage import lease
from study.storage.bucket_storage import BucketStorage, bring
from study.storage.lease import Lease
from study.storage.lock import Holder, active_run
from tests.holding import hold
from tests.runners.host.bucket import Bucket
from tests.study.conftest import Run, start_study, write_declaration
from tests.study.run.test_run_trunks import booked
from tests.study.run.test_run_trunks import declare as declare_trunks
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

OTHER = Holder(host="elsewhere", pid=1, since="2026-01-01 00:00:00+00:00")
TABLES = ("results.parquet", "curves.parquet")
LEVELS = ("4 GFLOP", "6 GFLOP", "8 GFLOP")


def declare(folder: Path, pool: Path, bucket: Bucket, **changes: str) -> Path:
    declaration = write_declaration(folder, pool, **changes)
    with declaration.open("a") as file:
        file.write(f"storage: {bucket.url}\n")
    return declaration


def test_another_machine_continues_a_dead_drivers_study_to_the_same_rows(
    pool: Path, tmp_path: Path, bucket: Bucket, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"levels": "4 GFLOP, 25 GFLOP"}
    paths = write_declaration(tmp_path, pool, **changes)
    run(f"run {paths} --results {tmp_path / 'paths'} --backend local")
    declaration, storage = declare(tmp_path, pool, bucket, **changes), Storage(bucket.url)
    monkeypatch.setenv(CACHE, str(tmp_path / "first cache"))
    hold(cache_folder(bucket.url) / "results" / "tiny", step=100)  # the longer trial alone gets there
    words = ("run", declaration, "--results", tmp_path / "first", "--backend", "local")
    with start_study(*words) as process:
        deadline = time.monotonic() + 120
        while not (
            any(name.endswith("result.json") for name in storage.list("results/tiny"))
            and (storage.read("results/tiny/events.jsonl") or b"").count(b'"trial-started"') == 2
        ):
            assert process.poll() is None
            assert time.monotonic() < deadline, "no trial ended"
            time.sleep(0.05)
        process.kill()
    monkeypatch.setattr(lease, "_DEAD_S", 4)  # a few renewals
    monkeypatch.setenv(CACHE, str(tmp_path / "second cache"))
    second = tmp_path / "second" / "tiny"

    said = run(f"run {declaration} --results {second.parent} --backend local")

    assert f"process {process.pid} on {socket.gethostname()}" in said
    assert "checking whether it is still alive" in said
    for table in TABLES:
        assert (second / table).read_bytes() == (tmp_path / "paths" / "tiny" / table).read_bytes()
    assert not Book.of(read_entries(second / "ledger.jsonl")).open
    starts = read_json_lines(second / "events.jsonl").query("event == 'trial-started'")["trial"]
    assert len(starts.unique()) == 2, "the first driver's events are there"
    assert len(starts) <= 3, "what was finished was not started again"
    elsewhere = f"{declaration} --results {tmp_path / 'third'}"
    assert "all     2        0" in run(f"status {elsewhere}")
    assert "2 of 2 trials finished" in run(f"report {elsewhere}")


def test_the_first_trial_starts_when_its_reservation_is_in_the_bucket(
    pool: Path, tmp_path: Path, bucket: Bucket, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_BEAT_S", 600)  # no upload beside the run
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    declaration, reserved = declare(tmp_path, pool, bucket), []

    def start(backend: LocalBackend, job: Job) -> None:
        ledger = Storage(bucket.url).read("results/tiny/ledger.jsonl") or b""
        reserved.append(job.trial in ledger.decode())
        start_job(backend, job)

    start_job = LocalBackend.start
    monkeypatch.setattr(LocalBackend, "start", start)

    run(f"run {declaration} --results {tmp_path / 'results'} --backend local")

    assert reserved == [True]


def test_the_first_reservation_is_uploaded_though_the_ledger_was_before_with_charges_alone(
    bucket: Bucket, tmp_path: Path
) -> None:
    study = BucketStorage(bucket.url, "results/charged", tmp_path)
    (tmp_path / "ledger.jsonl").write_text("charged\n")
    study._push()  # noqa: SLF001 - as beside the run, every few seconds
    (tmp_path / "ledger.jsonl").write_text("charged\nreserved\n")

    study.announce()

    assert Storage(bucket.url).read("results/charged/ledger.jsonl") == b"charged\nreserved\n"


def test_lines_that_a_killed_run_had_not_uploaded_stay_and_those_of_another_machine_come(
    bucket: Bucket, tmp_path: Path
) -> None:
    storage, ledger = Storage(bucket.url), tmp_path / "ledger.jsonl"
    storage.write("results/tiny/ledger.jsonl", b"1\n2\n")
    for here, kept in ((b"1\n", b"1\n2\n"), (b"1\n2\n3\n", b"1\n2\n3\n"), (b"1\n4\n5\n", b"1\n2\n")):
        ledger.write_bytes(here)
        bring(storage, "results/tiny", tmp_path)
        assert ledger.read_bytes() == kept


def test_pool_and_evaluation_set_below_a_url_give_the_rows_of_a_folder(
    pool: Path, tmp_path: Path, bucket: Bucket, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    storage, apart = Storage(bucket.url), pool / "evaluation" / "retrieval"
    for path in pool.rglob("*"):
        if path.is_file():
            storage.put(path, f"pools/small/{path.relative_to(pool)}")
            if path.is_relative_to(apart):
                storage.put(path, f"sets/again/{path.relative_to(apart)}")
    places = {
        "folder": (str(pool), str(shutil.copytree(apart, tmp_path / "again"))),
        "url": (f"{bucket.url}/pools/small", f"{bucket.url}/sets/again"),
    }
    for name, (place, again) in places.items():
        (tmp_path / name).mkdir()
        declaration = write_declaration(tmp_path / name, Path("POOL"))
        text = declaration.read_text().replace("POOL", f'"{place}"')
        declaration.write_text(f'{text}evaluation: {{again: "{again}"}}\n')
        words = f"{declaration} --results {tmp_path / name} --pools {tmp_path / name / 'pools'}"
        assert "1 trial" in run(f"run {words} --backend local")
    for table in TABLES:
        expected = (tmp_path / "folder" / "tiny" / table).read_bytes()
        assert (tmp_path / "url" / "tiny" / table).read_bytes() == expected
    assert not list((tmp_path / "url" / "pools").rglob("shards"))
    assert "all     1        0" in run(f"status {words}")


def test_a_study_without_a_local_copy_is_not_shown_while_its_bucket_is_unreachable(
    pool: Path, tmp_path: Path, bucket: Bucket, run: Run
) -> None:
    words = f"status {declare(tmp_path, pool, bucket)} --results {tmp_path}"
    assert "has no results; run `python -m study run" in run(words, code=2)
    bucket.go_away()

    said = run(words, code=2)

    assert said.startswith(f"study: storage {bucket.url} is unreachable: ")
    assert "has no results" not in said
    assert "local copy" not in said


def test_the_progress_of_a_running_trial_is_seen_from_another_machine(
    pool: Path, tmp_path: Path, bucket: Bucket
) -> None:
    study = find_study(load_declaration(declare(tmp_path, pool, bucket)), results=str(tmp_path), pools=None)
    there, here = "results/tiny/trials/0123456789ab/progress.json", "trials/0123456789ab/progress.json"
    for progress in (b"{}", b'{"samples_seen": 1}'):
        Storage(bucket.url).write(there, progress)
        study.storage.refresh()
        assert (study.folder / here).read_bytes() == progress

    Storage(bucket.url).delete([there])
    Storage(bucket.url).write("results/tiny/trials/0123456789ab/meter", b"")
    study.storage.refresh()

    assert not (study.folder / here).exists(), "the trial has ended"


def test_the_second_driver_is_refused_and_can_stop_the_first_from_anywhere(
    pool: Path, tmp_path: Path, bucket: Bucket, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration = declare(tmp_path, pool, bucket)
    study = find_study(load_declaration(declaration), results=str(tmp_path / "first"), pools=None)
    study.folder.mkdir(parents=True)
    monkeypatch.setattr(lease, "_BEAT_S", 0.2)
    turn, renew = threading.Lock(), Lease._renew  # noqa: SLF001 - it runs in a thread

    def renew_in_turn(kept: Lease) -> None:
        with turn:
            renew(kept)

    monkeypatch.setattr(Lease, "_renew", renew_in_turn)
    with study.storage.claim(lambda _text: None):
        holder = active_run(study.folder)
        refused = run(f"run {declaration} --results {tmp_path / 'second'}", code=2)
        assert f"another run of {bucket.url}/results/tiny is active: {holder}" in refused
        assert f"asked {holder} to stop" in run(f"stop {declaration} --results {tmp_path / 'third'} --wait 0")
        wait_for(study.storage.stop_requested, seconds=60)

        name = "results/tiny/run.json"
        with turn:  # between two renewals
            Storage(bucket.url).delete([name])  # as who takes it for dead does
            Lease(Storage(bucket.url), name, OTHER, ValueError).claim(None, lambda _text: None)
        with pytest.raises(ValueError, match="is active: process 1 on elsewhere"):
            wait_for(lambda: not study.storage.stop_requested(), seconds=60)
    monkeypatch.setattr(Storage, "age_s", lambda *_: None)  # FTP can't tell it
    output = run(f"stop {declaration} --results {tmp_path / 'third'} --wait 0")
    assert output.startswith(f"asked {OTHER} to stop"), "what is another's is left alone"


@pytest.mark.parametrize("damaged", [False, True])
def test_trials_continue_on_another_machine_from_milestones_in_the_bucket(
    pool: Path,
    tmp_path: Path,
    bucket: Bucket,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    damaged: bool,  # noqa: FBT001 - a parameter
) -> None:
    storage, first, second = Storage(bucket.url), tmp_path / "first", tmp_path / "second" / "tiny"

    def milestones() -> list[str]:
        return [name for name in storage.list("results/tiny/trials") if is_milestone(name.split("/")[-1])]

    for results, levels in (("paths", LEVELS), ("first", LEVELS[:2]), ("second", LEVELS)):
        monkeypatch.setenv(CACHE, str(tmp_path / f"{results} cache"))
        declaration = declare_trunks(tmp_path, pool, "tiny", ", ".join(levels))
        if results != "paths":
            with declaration.open("a") as file:
                file.write(f"storage: {bucket.url}\n")
        if results == "second":
            assert booked(first / "tiny")["wasted"] == 0
            (kept,) = milestones()
            if damaged:
                storage.write(f"results/tiny/trials/{kept}", b"damaged")
        run(f"run {declaration} --results {tmp_path / results} --backend local")

    for table in TABLES:
        assert (second / table).read_bytes() == (tmp_path / "paths" / "tiny" / table).read_bytes()
    rows = read_table(second / "results.parquet")
    assert len(set(rows["trunk"]) - {""}) == 1
    shared = rows["train_flops"].iloc[-1] - rows["paid_flops"].iloc[-1]
    assert booked(second) == {"spent": rows["paid_flops"].sum(), "wasted": shared if damaged else 0}
    (top,) = milestones()  # from which a further level would continue; the others are gone
    assert top.split("/")[0] == rows["trial"].iloc[-1]
    assert not list((tmp_path / "second cache").rglob("*milestone-*"))


def test_the_milestone_of_a_trial_that_runs_is_seen_and_can_be_deleted(
    pool: Path, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration = load_declaration(declare(tmp_path, pool, bucket))
    study = find_study(declaration, results=str(tmp_path / "first"), pools=None)
    folder, name = study.folder / "trials" / "0123", "milestone-0000000012-0123456789abcdef.pt"
    folder.mkdir(parents=True)
    monkeypatch.setattr(lease, "_BEAT_S", 0.2)
    rounds, follow = list[None](), BucketStorage._follow  # noqa: SLF001 - it runs in a thread
    monkeypatch.setattr(BucketStorage, "_follow", lambda storage: rounds.append(follow(storage)))
    with study.storage.claim(lambda _text: None):
        study.storage.watch(["0123"], ["0123"])
        Storage(bucket.url).write(f"results/tiny/trials/0123/{name}", b"state")
        wait_for(lambda: milestone(folder), seconds=60)
        study.storage.watch(["0123"])
        before = len(rounds)
        wait_for(lambda: len(rounds) > before, seconds=60)  # one may have begun
        study.storage.publish("0123")
        assert name in Storage(bucket.url).list("results/tiny/trials/0123")
        drop_milestone(folder)
        study.storage.publish("0123")
        assert name not in Storage(bucket.url).list("results/tiny/trials/0123")
