"""The same rules for both storages, folder and bucket, with two machines: `here` and `elsewhere`."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from budgets.machine_cache import CACHE
from runners.scheduling.local_backend import LocalBackend
from runners.scheduling.storage_check import StorageCheck
from runners.store.location import Location
from runners.trials.meter import METER, FlopCount, Meter, read_meter, write_meter
from runners.trials.trial import run_trial
from runners.trials.trial_files import forget_failure, read_failure, read_outcome, write_failure
from runners.trials.trial_job import TrialJob
from study.declare.load import load_declaration
from study.state.plan_study import plan_study
from study.state.study import Study, find_study, trial_job
from study.storage import lock
from study.storage.bucket_storage import BucketStorage
from study.storage.lock import active_run
from tests.runners.store.bucket import Bucket
from tests.study.tiny_study import TinyStudy, write_declaration
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

Machine = Callable[[str], Study]
"""A machine's name → the study as it finds it."""


def say(_text: str) -> None: ...


def begin(job: TrialJob) -> None:
    """Count a step like a trial that fails in it."""
    job.folder.mkdir(exist_ok=True)
    with Meter(job.folder) as meter:
        meter.add(train_flops=7)


@pytest.fixture(params=["folder", "bucket"])
def machine(request: pytest.FixtureRequest, pool: Path, tmp_path: Path) -> Iterator[Machine]:
    """Yield machines that share a folder, or only the URL of a bucket."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setattr(lock, "_BEAT_S", 0.2)
        bucket = Bucket(environment) if request.param == "bucket" else None
        place = tmp_path / "shared" if bucket is None else bucket.url
        declaration = load_declaration(write_declaration(tmp_path, pool, more=f"storage: {place}\n"))

        def see(name: str) -> Study:
            environment.setenv(CACHE, str(tmp_path / name / "cache"))
            results = None if bucket is None else str(tmp_path / name)
            study = find_study(declaration, results=results, pools=None)
            (study.folder / "trials").mkdir(parents=True, exist_ok=True)
            return study

        yield see
        if bucket is not None:
            bucket.go_away()


@pytest.fixture(scope="module")
def quiet(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the row of the study's only trial on a shared folder."""
    tiny = TinyStudy(tmp_path_factory.mktemp("quiet"), pool)
    (tiny.folder / "trials").mkdir(parents=True)
    (trial,) = tiny.plan.trials
    return json.dumps(run_trial(trial_job(tiny.study, trial)).row, sort_keys=True)


def test_an_active_run_is_seen_from_anywhere(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = machine("here"), machine("elsewhere")
    with here.storage.claim(say):
        elsewhere.storage.refresh()
        holder = active_run(elsewhere.folder)
        assert holder is not None
        assert holder == active_run(here.folder)
        active = rf"another run of \S+ is active: {re.escape(str(holder))}"
        with pytest.raises(ValueError, match=active), elsewhere.storage.claim(say):
            pass
        if elsewhere.folder != here.folder:
            monkeypatch.setattr(lock, "_DEAD_S", 0.0)
            assert active_run(elsewhere.folder) is None, "a run that no longer renews its lease has died"
            with pytest.raises(ValueError, match=r"no run of .* is active"):
                list(elsewhere.storage.stop(wait_s=0))
    elsewhere.storage.refresh()
    assert active_run(elsewhere.folder) is None


def test_a_meter_that_was_deleted_is_not_brought_back(machine: Machine) -> None:
    here = machine("here")
    with here.storage.claim(say):
        folder = here.trial_folder("0123456789ab")
        folder.mkdir(parents=True)
        write_meter(folder, FlopCount(train_flops=7))
        if isinstance(here.storage, BucketStorage):  # as a node does
            bucket = Location(str(here.declaration.storage))
            bucket.put(folder / METER, f"results/{here.declaration.name}/trials/{folder.name}/{METER}")
        (folder / METER).unlink()
        here.storage.publish(folder.name)
        here.storage.fetch(folder.name)
        assert read_meter(folder) is None


def test_a_stop_from_anywhere_reaches_only_the_active_run(machine: Machine) -> None:
    here, elsewhere = machine("here"), machine("elsewhere")
    with pytest.raises(ValueError, match=r"no run of .* is active"):
        list(elsewhere.storage.stop(wait_s=0))
    with here.storage.claim(say):
        assert not here.storage.stop_requested()
        output, waited = elsewhere.storage.stop(wait_s=0)
        assert output.startswith(f"asked {active_run(here.folder)} to stop")
        assert waited == "the run has not ended after 0 s; the request to stop remains"
        wait_for(here.storage.stop_requested, seconds=60)
    with elsewhere.storage.claim(say):
        time.sleep(0.5)  # a few looks
        assert not elsewhere.storage.stop_requested()


def test_a_runs_files_are_seen_elsewhere_after_it_ended_even_by_an_error(machine: Machine) -> None:
    here, elsewhere = machine("here"), machine("elsewhere")
    for error in (None, RuntimeError("a bug")):
        with suppress(RuntimeError), here.storage.claim(say):
            (here.folder / "events.jsonl").write_text(f"{error}")
            if error is not None:
                raise error
        elsewhere.storage.refresh()
        assert (elsewhere.folder / "events.jsonl").read_text() == f"{error}"
    assert active_run(here.folder) is None


def test_a_trial_gives_the_same_row_as_on_paths_and_its_weights_are_found_elsewhere(
    machine: Machine, quiet: str
) -> None:
    here = machine("here")
    (trial,) = plan_study(here).trials
    job = trial_job(here, trial)
    with here.storage.claim(say):
        here.storage.share(job, say)
        with LocalBackend() as backend:
            read = (*job.pools, *job.evaluation.values())
            StorageCheck(backend, here.storage.seen_by_nodes(read)).require()
        here.storage.call(run_trial, job)()
        here.storage.fetch(trial.trial_id)
    elsewhere = machine("elsewhere")
    elsewhere.storage.refresh()
    elsewhere.storage.bring_weights(trial.trial_id)

    for study in (here, elsewhere):
        outcome = read_outcome(study.trial_folder(trial.trial_id))
        assert outcome is not None
        assert json.dumps(outcome.row, sort_keys=True) == quiet
    assert (elsewhere.trial_folder(trial.trial_id) / "weights.pt").stat().st_size > 100_000
    assert not elsewhere.storage.bring_pool("pools/no-such-pool")


def test_failures_and_restarts_of_trials_are_seen_elsewhere(machine: Machine) -> None:
    here, elsewhere = machine("here"), machine("elsewhere")
    (trial,) = plan_study(here).trials
    job = trial_job(here, trial)
    ours, theirs = (study.trial_folder(trial.trial_id) for study in (here, elsewhere))
    with here.storage.claim(say):
        here.storage.share(job, say)
        here.storage.call(begin, job)()
        here.storage.fetch(trial.trial_id)
        assert read_meter(ours) == FlopCount(train_flops=7)
        write_failure(ours, "TypeError: no")
        here.storage.publish(trial.trial_id)
    elsewhere.storage.refresh()
    assert read_failure(theirs) == "TypeError: no"
    assert read_meter(theirs) == FlopCount(train_flops=7)

    with here.storage.claim(say):
        assert forget_failure(ours)
        here.storage.publish(trial.trial_id)
    elsewhere.storage.refresh()
    assert read_failure(theirs) is None
