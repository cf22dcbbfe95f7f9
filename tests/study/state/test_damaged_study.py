"""A study's files after edits and damage: the right table, or a refusal that names the file."""

import io
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets.book import Book, Entry
from budgets.ledger import Ledger, read_entries
from budgets.planning.plan import Charge
from runners.store.files import write_json
from runners.trials.meter import FlopCount, read_meter
from study.cli import main
from study.state.bookkeeping import Bookkeeper, repair_ledger
from tests.progress import progress
from tests.study.conftest import waiting_tuning
from tests.study.tiny_study import TinyStudy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyStudy:
    """Return a study that has been run: two trials."""
    done = TinyStudy(tmp_path_factory.mktemp("damaged"), pool, seeds="0, 1")
    done.run("--quiet")
    return done


def copied(done: TinyStudy, place: Path) -> TinyStudy:
    shutil.copytree(done.place, place, copy_function=shutil.copyfile)
    return TinyStudy(place, done.pool, seeds="0, 1")


@pytest.fixture
def tiny(done: TinyStudy, tmp_path: Path) -> TinyStudy:
    """Return a copy of that study."""
    return copied(done, tmp_path / "copy")


def spent_on(tiny: TinyStudy, trial: str) -> int:
    """Return how often a trial's cost stands in the ledger."""
    return [entry.what for entry in tiny.entries() if entry.entry == "spent"].count(trial)


def test_finished_trials_without_results_are_paid_again_only_on_request(tiny: TinyStudy) -> None:
    before, (trial, other) = tiny.tables(), sorted(tiny.trials())
    spent = tiny.booked("spent")
    shutil.rmtree(trial)
    (other / "result.json").unlink()

    assert re.search(r"\b2 trials .*finished before.* 5\.8", tiny.run(code=2))
    assert "--pay-again" in tiny.run("--dry-run")
    for option in ("--pay-again", "--repair"):
        tiny.run(f"--dry-run {option}", code=2)

    tiny.run("--pay-again")
    assert tiny.tables() == before
    assert spent_on(tiny, trial.name) == 2
    assert tiny.booked("spent") == 2 * spent


@pytest.mark.parametrize("damage", ["half", "digit", "gone"])
def test_a_damaged_ledger_is_rebuilt_from_results_and_meters(tiny: TinyStudy, damage: str) -> None:
    path = tiny.study.ledger
    sound, lines = tiny.settled(), path.read_text().splitlines(keepends=True)
    text = {
        "half": "".join(lines[len(lines) // 2 :]),
        "digit": "".join(lines).replace('"spent", "what"', '"spent",  "what"').replace(": 29", ": 28"),
        "gone": "",
    }[damage]
    path.write_text(text)
    said = tiny.run(code=2)
    assert "ledger.jsonl" in said
    assert "`run --repair`" in said
    assert tiny.run("--dry-run", code=2) == said
    assert "`run --repair`" in tiny.says("status", code=0 if damage == "gone" else 2)
    if damage == "gone":
        said = tiny.says("report")
        assert f"{path} was deleted or cut: it lacks 2 of" in said

    before = tiny.tables()
    said = tiny.run("--repair")

    assert "rebuilt" in said
    assert tiny.tables() == before
    assert tiny.settled() == sound
    assert path.with_name("ledger.jsonl.damaged-1").read_text() == text
    assert "the ledger is sound" in tiny.run("--repair")


def test_a_deleted_ledger_is_rebuilt_with_trials_that_are_no_longer_declared(tiny: TinyStudy) -> None:
    sound = tiny.settled()
    tiny.declare(seeds="0")
    tiny.study.ledger.unlink()

    assert "it lacks 2 of" in tiny.run(code=2)
    tiny.run("--repair")
    assert tiny.settled() == sound


def test_a_repair_keeps_a_checkpoint_that_the_grid_of_a_waiting_tuning_may_need(tiny: TinyStudy) -> None:
    (interrupted, _), study, plan = sorted(tiny.trials()), tiny.study, tiny.plan
    (interrupted / "result.json").unlink()
    checkpoint = interrupted / "checkpoint-0000000040-abc.pt"
    checkpoint.touch()
    study.ledger.write_text("damage\n", encoding="utf-8")

    repair_ledger(study, replace(plan, trials=(), tuning=waiting_tuning()), lambda _: None)

    meter, book = read_meter(interrupted), study.book()
    assert checkpoint.exists()
    assert meter is not None
    assert {what: held.left for what, held in book.open.items()} == {interrupted.name: meter.train_flops}
    study.ledger.write_text("damage\n", encoding="utf-8")
    repair_ledger(study, replace(plan, trials=()), lambda _: None)
    assert not checkpoint.exists(), "no cell of the plan needs it"
    assert study.book().wasted[interrupted.name][0] == meter.train_flops


def test_a_rebuilt_ledger_keeps_facts_that_only_its_old_lines_hold(tiny: TinyStudy) -> None:
    path, (again, gone) = tiny.study.ledger, sorted(tiny.trials())
    shutil.rmtree(again)
    tiny.run("--pay-again")
    charge = Charge(what="scores of a pool that is no longer declared", flops=11)
    Ledger(path, None).charge(replace(tiny.plan, charges=(charge,)))
    sound = read_entries(path)
    shutil.rmtree(gone)
    path.write_text(path.read_text() + "damage\n")

    tiny.run(f"--repair --only {again.name}")

    entries = read_entries(path)
    assert sums(entries) == sums(sound)
    assert spent_on(tiny, again.name) == 2
    assert not Book.of(entries).open


def sums(entries: Sequence[Entry]) -> Counter[tuple[str, str]]:
    """Return the FLOPs of each kind of entry that a repair must keep."""
    flops: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        if entry.entry in {"charged", "spent", "wasted"}:
            flops[entry.entry, "training"] += entry.train_flops
            flops[entry.entry, "evaluation"] += entry.evaluation_flops
    return flops


def test_a_ledger_that_contradicts_a_result_is_refused(tiny: TinyStudy) -> None:
    path = tiny.study.ledger
    entries = read_entries(path)
    path.unlink()
    forged = Ledger(path, None)  # with digests that fit
    for entry in entries:
        change = {"spent": -1000, "released": 1000}.get(entry.entry, 0)
        forged._append(replace(entry, train_flops=entry.train_flops + change))  # noqa: SLF001

    assert "FLOP spent by trial" in tiny.run(code=2)
    assert "rebuilt" in tiny.run("--repair")
    tiny.run()


@pytest.mark.parametrize("meter", [None, b"", b"\0" * 62, b"garbage", "digit"], ids=str)
def test_without_its_meter_a_trial_is_charged_the_most_that_it_can_have_lost(
    tiny: TinyStudy, meter: bytes | str | None
) -> None:
    trial, study = tiny.plan.trials[0], tiny.study
    folder, said = study.trial_folder(trial.trial_id), list[str]()
    (folder / "result.json").unlink()
    write_json(folder / "progress.json", progress(16))
    ledger = Ledger(tiny.place / "new.jsonl", None)
    ledger.reserve(trial.trial_id, trial.train_flops)
    ledger.waste(trial.trial_id, 77)  # of an earlier start
    path = folder / "meter"
    if meter is None:
        path.unlink()
    elif isinstance(meter, bytes):
        path.write_bytes(meter)
    else:
        path.write_text(path.read_text().replace("4", "5", 1))
    assert read_meter(folder) is None

    for _ in range(2):
        Bookkeeper(ledger, study, said.append).lost(trial)

    assert ledger.book.wasted[trial.trial_id][0] == 77 + trial.train_flops
    assert read_meter(folder) == FlopCount(train_flops=77 + trial.train_flops)
    (line,) = said
    assert trial.trial_id in line
    assert "2.904 GFLOP" in line


def test_an_empty_meter_of_a_trial_that_did_nothing_books_nothing(tiny: TinyStudy) -> None:
    trial, study = tiny.plan.trials[0], replace(tiny.study, folder=tiny.place / "new")
    folder = study.trial_folder(trial.trial_id)
    folder.mkdir(parents=True)
    (folder / "meter").touch()
    ledger = Ledger(tiny.place / "new.jsonl", None)
    ledger.reserve(trial.trial_id, trial.train_flops)
    Bookkeeper(ledger, study, pytest.fail).lost(trial)
    assert ledger.book.spent_flops == 0


def _flip(content: bytes, at: int, bit: int) -> bytes:
    place = at % max(1, len(content))
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :] if content else b"?"


def _digit(content: bytes, at: int, bit: int) -> bytes:
    places = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    if not places:
        return content
    place = places[at % len(places)]
    new = b"%d" % ((content[place] - ord("0") + 1 + bit) % 10)
    return content[:place] + new + content[place + 1 :]


EDITS: dict[str, Callable[[bytes, int, int], bytes]] = {
    "flip": _flip,
    "digit": _digit,
    "cut": lambda content, at, _: content[: at % max(1, len(content))],
    "behead": lambda content, at, _: content[at % max(1, len(content)) :],
    "zeros": lambda content, at, bit: content[: at % max(1, len(content))] + bytes(64 * bit),
    "empty": lambda _content, _at, _bit: b"",
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_edit_of_any_file_leaves_the_right_tables_or_a_refusal_that_names_a_file(
    done: TinyStudy, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    tiny = copied(done, tmp_path_factory.mktemp("edited") / "copy")
    files = sorted(
        path.relative_to(tiny.folder)
        for path in tiny.folder.rglob("*")
        if path.is_file() and path.name not in {"weights.pt", ".lock"}
    )
    for _ in range(data.draw(st.integers(1, 2), label="edits")):
        path = tiny.folder / data.draw(st.sampled_from(files), label="file")
        how = data.draw(st.sampled_from([*EDITS, "remove", "swap"]), label="how")
        if how == "remove":
            path.unlink(missing_ok=True)
        elif how == "swap":
            other = tiny.folder / data.draw(st.sampled_from(files), label="other")
            if other.exists() and path.exists():
                path.write_bytes(other.read_bytes())
        elif path.exists():
            at, bit = data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 7))
            path.write_bytes(EDITS[how](path.read_bytes(), at, bit))

    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        code = main(["run", str(tiny.declaration), "--results", str(tiny.place), "--backend", "local"])

    if code == 0:
        assert tiny.tables() == done.tables()
        assert Book.of(tiny.entries()).spent_flops >= Book.of(done.entries()).spent_flops
    else:
        said = errors.getvalue()
        assert code == 2
        assert any(path.name in said for path in files) or "--pay-again" in said
