"""A study's files after edits and damage: the right table, or a refusal that names the file."""

import json
import re
import shutil

import pytest

from budgets.quantity import format_flops
from runners.store.files import write_json
from runners.trials.meter import read_meter
from study.state.book import Account
from study.state.events import add_event
from tests.progress import progress
from tests.study.tiny_study import TinyStudy

pytestmark = pytest.mark.slow


@pytest.fixture
def tiny(done: TinyStudy) -> TinyStudy:
    return done


def test_finished_trials_without_results_are_paid_again_only_on_request(tiny: TinyStudy) -> None:
    before, (trial, other) = tiny.tables(), sorted(tiny.trials())
    spent, metered = tiny.booked("spent"), read_meter(trial)
    shutil.rmtree(trial)
    (other / "result.json").unlink()

    assert re.search(r"\b2 trials .*finished before.* 5\.8", tiny.run(code=2))
    assert "--pay-again" in tiny.run("--dry-run")
    tiny.run("--dry-run --pay-again", code=2)
    assert tiny.settled() == {"spent": spent, "wasted": 0}

    tiny.run("--pay-again")
    assert tiny.tables() == before
    assert tiny.settled() == {"spent": spent, "wasted": spent}
    counted = read_meter(trial)
    assert metered is not None
    assert counted is not None
    assert counted.train_flops == 2 * metered.train_flops, "it counts on from what the book has"


@pytest.mark.parametrize("damage", ["half", "gone", "empty"])
def test_a_damaged_book_is_derived_anew_from_results_and_meters(tiny: TinyStudy, damage: str) -> None:
    path, book = tiny.folder / "spent.parquet", tiny.book()
    content, before = path.read_bytes(), tiny.tables()
    path.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
    if damage == "gone":
        path.unlink()

    assert " 0 to run" in tiny.run("--dry-run")
    assert tiny.status()["spent_flops"] == book.spent_flops
    assert "spent.parquet is" in tiny.run()
    assert tiny.tables() == before
    assert path.read_bytes() == content
    assert "spent.parquet" not in tiny.run()


@pytest.mark.parametrize("damage", ["gone", "ones"])
@pytest.mark.parametrize("also", [(), ("results.parquet",)])
@pytest.mark.parametrize("count", [1, 2])
def test_what_trials_without_folders_paid_is_read_from_results_or_events_and_plan(
    tiny: TinyStudy, damage: str, also: tuple[str, ...], count: int
) -> None:
    path, spent = tiny.folder / "spent.parquet", tiny.status()["spent_flops"]
    content = path.read_bytes()
    for trial in sorted(tiny.trials())[:count]:
        shutil.rmtree(trial)
    for name in also:
        (tiny.folder / name).unlink()
    path.write_bytes(b"\xff" * len(content))
    if damage == "gone":
        path.unlink()

    assert tiny.status()["spent_flops"] == spent
    for command in ("status", "run --dry-run"):
        assert "spent.parquet is" in tiny.says(command)
    assert re.search(rf"\b{count} trials? .*finished before", tiny.run(code=2))
    tiny.run("--pay-again")
    assert tiny.settled() == {"spent": spent, "wasted": spent * count // 2}


def test_a_started_trial_whose_cost_is_in_no_file_is_asked_about(tiny: TinyStudy) -> None:
    (trial, _), spent = sorted(tiny.trials()), tiny.status()["spent_flops"]
    lines = (tiny.folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    shutil.rmtree(trial)
    for name in ("spent.parquet", "results.parquet", "events.jsonl"):
        (tiny.folder / name).unlink()
    for event in (json.loads(line) for line in lines):  # as if the driver was killed during the first trial
        if not (event.get("trial") == trial.name and event["event"] == "trial-finished"):
            add_event(tiny.study, **{key: event[key] for key in event if key not in {"at", "digest", "time"}})

    cost = f"what 1 trial cost is in no file ({trial.name})"
    assert f"{cost}; `run` asks first" in tiny.run("--dry-run")
    assert cost in tiny.says("status")
    assert f"{cost}. Restore" in tiny.run(code=2)
    assert not (tiny.folder / "spent.parquet").exists()
    assert cost in tiny.run("--pay-again")
    assert tiny.settled() == {"spent": spent, "wasted": spent // 2}
    assert cost not in tiny.says("status")


def test_trials_and_charges_that_are_no_longer_declared_stay_in_the_book(tiny: TinyStudy) -> None:
    book, (first, second) = tiny.book(), sorted(tiny.trials())
    tiny.declare(seeds="7")
    shutil.rmtree(first)
    book.charged["scores of a pool that is no longer declared"] = 11
    book.write(tiny.study)

    assert f"{format_flops(book.spent_flops)} were spent on trials that are not in this" in tiny.run()

    after = tiny.book()
    assert after.charged == book.charged
    assert {name: after.of(name) for name in (first.name, second.name)} == book.trials
    assert len(after.trials) == 3


@pytest.mark.parametrize("damage", ["gone", "digit"])
def test_without_its_meter_a_trial_is_charged_the_most_that_it_can_have_lost(
    tiny: TinyStudy, damage: str
) -> None:
    trial, before = tiny.plan.trials[0], tiny.tables()
    folder = tiny.study.trial_folder(trial.trial_id)
    (folder / "result.json").unlink()
    write_json(folder / "progress.json", progress(16))
    book = tiny.book()
    book.trials[trial.trial_id] = Account(wasted_flops=77)  # of an earlier start
    book.write(tiny.study)
    path = folder / "meter"
    if damage == "gone":
        path.unlink()
    else:
        path.write_text(path.read_text().replace("4", "5", 1))
    assert read_meter(folder) is None

    said = tiny.run()

    assert f"the meter of trial {trial.trial_id} is missing or damaged; 2.904 GFLOP are booked as" in said
    assert tiny.tables() == before
    assert tiny.book().of(trial.trial_id).wasted_flops == 77 + trial.train_flops
    counted = read_meter(folder)
    assert counted is not None
    assert counted.train_flops == 77 + 2 * trial.train_flops


def test_an_empty_meter_of_a_trial_that_did_nothing_books_nothing(tiny: TinyStudy) -> None:
    shutil.rmtree(tiny.folder)
    folder = tiny.study.trial_folder(tiny.plan.trials[0].trial_id)
    folder.mkdir(parents=True)
    (folder / "meter").touch()
    assert "the meter of" not in tiny.run()
    assert tiny.settled()["wasted"] == 0


def test_a_shipped_study_without_its_book_is_refused(tiny: TinyStudy) -> None:
    shutil.rmtree(tiny.folder / "trials")
    spent = tiny.status()["spent_flops"]
    assert spent == tiny.planned_flops()
    (tiny.folder / "spent.parquet").unlink()
    for command in ("status", "report"):
        assert "spent.parquet is missing" in tiny.says(command, code=2)
