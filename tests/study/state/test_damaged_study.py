"""A study's files after edits and damage: the right table, or a refusal that names the file."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets.book import Book
from budgets.ledger import Ledger, read_entries
from budgets.planning.plan import Charge
from runners.host.files import write_json
from runners.trials.meter import FlopCount, read_meter
from study.cli import main
from study.declare.load import load_declaration
from study.state.bookkeeping import Bookkeeper, repair_ledger
from study.state.plan_study import plan_study
from study.state.study import find_study
from tests.progress import progress
from tests.study.conftest import Run, waiting_tuning, write_declaration

pytestmark = pytest.mark.slow

TABLES = ("results.parquet", "curves.parquet")


@pytest.fixture(scope="module")
def done(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a declaration and of its study, which has been run: two trials."""
    folder = tmp_path_factory.mktemp("damaged")
    declaration = write_declaration(folder, pool, seeds="0, 1")
    assert main(["run", str(declaration), "--results", str(folder), "--backend", "local", "--quiet"]) == 0
    return folder


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    shutil.copytree(done, tmp_path / "copy")
    return tmp_path / "copy"


def words(copy: Path, *options: str) -> str:
    return " ".join([f"run {copy}/tiny.yaml --results {copy} --backend local", *options])


def tables(copy: Path) -> dict[str, bytes]:
    return {name: (copy / "tiny" / name).read_bytes() for name in TABLES}


def trials(copy: Path) -> list[Path]:
    return sorted((copy / "tiny" / "trials").glob("*"))


def test_finished_trials_without_results_are_paid_again_only_on_request(copy: Path, run: Run) -> None:
    before, (trial, other) = tables(copy), trials(copy)
    sound = Book.of(read_entries(copy / "tiny" / "ledger.jsonl"))
    shutil.rmtree(trial)
    (other / "result.json").unlink()

    assert "2 trials to run had finished before, and would cost 5.8" in run(words(copy), code=2)
    assert "--pay-again" in run(words(copy, "--dry-run"))
    for option in ("--pay-again", "--repair"):
        assert "--dry-run changes nothing" in run(words(copy, "--dry-run", option), code=2)

    run(words(copy, "--pay-again"))
    assert tables(copy) == before
    entries = read_entries(copy / "tiny" / "ledger.jsonl")
    assert [entry.what for entry in entries if entry.entry == "spent"].count(trial.name) == 2
    assert Book.of(entries).spent_flops == 2 * sound.spent_flops


@pytest.mark.parametrize("damage", ["half", "digit", "gone"])
def test_a_damaged_ledger_is_rebuilt_from_results_and_meters(copy: Path, run: Run, damage: str) -> None:
    path = copy / "tiny" / "ledger.jsonl"
    sound, lines = read_entries(path), path.read_text().splitlines(keepends=True)
    text = {
        "half": "".join(lines[len(lines) // 2 :]),
        "digit": "".join(lines).replace('"spent", "what"', '"spent",  "what"').replace(": 29", ": 28"),
        "gone": "",
    }[damage]
    path.write_text(text)
    said = run(words(copy), code=2)
    assert "`run --repair`" in said
    assert run(words(copy, "--dry-run"), code=2) == said
    shown = run(f"status {copy}/tiny.yaml --results {copy}", code=0 if damage == "gone" else 2)
    assert "`run --repair`" in shown
    assert ("no run is active, and the next one is refused: " in shown) == (damage == "gone")
    if damage == "gone":
        said = run(f"report {copy}/tiny.yaml --results {copy}")
        assert f"note: the report lacks costs, since {path} was deleted or cut: it lacks 2 of " in said

    before = tables(copy)
    said = run(words(copy, "--repair"))

    assert "rebuilt" in said
    assert tables(copy) == before
    entries = read_entries(path)
    assert Book.of(entries).spent_flops == Book.of(sound).spent_flops
    assert not Book.of(entries).open
    assert path.with_name("ledger.jsonl.damaged-1").read_text() == text
    assert "the ledger is sound" in run(words(copy, "--repair"))


def test_a_deleted_ledger_is_rebuilt_with_trials_that_are_no_longer_declared(copy: Path, run: Run) -> None:
    path, declaration = copy / "tiny" / "ledger.jsonl", copy / "tiny.yaml"
    sound = Book.of(read_entries(path))
    declaration.write_text(declaration.read_text().replace("seeds: [0, 1]", "seeds: [0]"))
    path.unlink()

    assert "it lacks 2 of the trials" in run(words(copy), code=2)
    run(words(copy, "--repair"))
    assert Book.of(read_entries(path)).spent_flops == sound.spent_flops


def test_a_repair_keeps_a_checkpoint_that_the_grid_of_a_waiting_tuning_may_need(copy: Path) -> None:
    study = find_study(load_declaration(copy / "tiny.yaml"), results=str(copy), pools=None)
    (interrupted, _), plan = trials(copy), plan_study(study)
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


def test_a_rebuilt_ledger_keeps_facts_that_only_its_old_lines_hold(copy: Path, run: Run) -> None:
    path, (again, gone) = copy / "tiny" / "ledger.jsonl", trials(copy)
    shutil.rmtree(again)
    run(words(copy, "--pay-again"))
    plan = plan_study(find_study(load_declaration(copy / "tiny.yaml"), results=str(copy), pools=None))
    charge = Charge(what="scores of a pool that is no longer declared", train_flops=11, evaluation_flops=7)
    Ledger(path, None).charge(replace(plan, charges=(charge,)))
    sound = read_entries(path)
    shutil.rmtree(gone)
    path.write_text(path.read_text() + "damage\n")

    run(words(copy, "--repair", "--only", again.name))

    entries = read_entries(path)
    for kind in ("charged", "spent", "wasted"):
        of_kind, expected = ([each for each in book if each.entry == kind] for book in (entries, sound))
        assert sum(each.train_flops for each in of_kind) == sum(each.train_flops for each in expected)
        assert sum(each.evaluation_flops for each in of_kind) == sum(
            each.evaluation_flops for each in expected
        )
    assert [entry.what for entry in entries if entry.entry == "spent"].count(again.name) == 2
    assert not Book.of(entries).open


def test_a_ledger_that_contradicts_a_result_is_refused(copy: Path, run: Run) -> None:
    path = copy / "tiny" / "ledger.jsonl"
    entries = read_entries(path)
    path.unlink()
    forged = Ledger(path, None)  # with digests that fit
    for entry in entries:
        change = {"spent": -1000, "released": 1000}.get(entry.entry, 0)
        forged._append(replace(entry, train_flops=entry.train_flops + change))  # noqa: SLF001

    assert "FLOP spent by trial" in run(words(copy), code=2)
    assert "rebuilt" in run(words(copy, "--repair"))
    run(words(copy))


@pytest.mark.parametrize("meter", [None, b"", b"\0" * 62, b"garbage", "digit"], ids=str)
def test_without_its_meter_a_trial_is_charged_the_most_that_it_can_have_lost(
    copy: Path, meter: bytes | str | None
) -> None:
    study = find_study(load_declaration(copy / "tiny.yaml"), results=str(copy), pools=None)
    trial = plan_study(study).trials[0]
    folder, said = study.trial_folder(trial.trial_id), list[str]()
    (folder / "result.json").unlink()
    write_json(folder / "progress.json", progress(16))
    ledger = Ledger(copy / "new.jsonl", None)
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


def test_an_empty_meter_of_a_trial_that_did_nothing_books_nothing(copy: Path) -> None:
    study = find_study(load_declaration(copy / "tiny.yaml"), results=str(copy), pools=None)
    trial, study = plan_study(study).trials[0], replace(study, folder=copy / "new")
    folder = study.trial_folder(trial.trial_id)
    folder.mkdir(parents=True)
    (folder / "meter").touch()
    ledger = Ledger(copy / "new.jsonl", None)
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
    done: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    data: st.DataObject,
) -> None:
    copy = tmp_path_factory.mktemp("edited") / "copy"
    shutil.copytree(done, copy, copy_function=shutil.copyfile)
    files = sorted(
        path.relative_to(copy)
        for path in (copy / "tiny").rglob("*")
        if path.is_file() and path.name not in {"weights.pt", ".lock"}
    )
    for _ in range(data.draw(st.integers(1, 2), label="edits")):
        path = copy / data.draw(st.sampled_from(files), label="file")
        how = data.draw(st.sampled_from([*EDITS, "remove", "swap"]), label="how")
        if how == "remove":
            path.unlink(missing_ok=True)
        elif how == "swap":
            other = copy / data.draw(st.sampled_from(files), label="other")
            if other.exists() and path.exists():
                path.write_bytes(other.read_bytes())
        elif path.exists():
            at, bit = data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 7))
            path.write_bytes(EDITS[how](path.read_bytes(), at, bit))
    spent = Book.of(read_entries(done / "tiny" / "ledger.jsonl")).spent_flops

    code = main(words(copy).split())
    said = capsys.readouterr()

    if code == 0:
        assert tables(copy) == tables(done)
        assert Book.of(read_entries(copy / "tiny" / "ledger.jsonl")).spent_flops >= spent
    else:
        assert code == 2
        assert any(path.name in said.err for path in files) or "--pay-again" in said.err
