"""The ledger sums exactly, never exceeds the budget, and refuses damaged files."""

import hashlib
import json
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.book import Book, left_behind_flops, reconcile
from budgets.cost.flops import CONVENTION_NAME
from budgets.ledger import Ledger, read_entries, readable_entries
from budgets.planning.plan import Charge
from tests.budgets.plans import declare, plan_of

CHARGE = Charge(what="quality scorer", flops=1_000)


def write(path: Path, *lines: str | dict[str, object]) -> Path:
    """Write lines: texts as they are, entries with their digests."""
    chain, texts = hashlib.sha256(), list[str]()
    for each in lines:
        if not isinstance(each, str):
            chain.update(json.dumps(each).encode() + b"\n")
            each = json.dumps(each | {"digest": chain.hexdigest()[:16]})  # noqa: PLW2901 - a line
        texts.append(each)
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def line(entry: str, what: str, flops: object) -> dict[str, object]:
    amounts = {"train_flops": flops, "evaluation_flops": 0}
    return {"entry": entry, "what": what, **amounts, "convention": CONVENTION_NAME}


def test_reservation_is_spent_or_released(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", 1_000)
    for _ in range(2):  # an open reservation is not booked again
        ledger.reserve("a", 600)
    ledger.waste("a", 30)
    assert ledger.book.taken.total() == 630
    ledger.settle("a", train_flops=450, evaluation_flops=7)
    assert ledger.book.taken.total() == 480

    assert [(e.entry, e.train_flops) for e in read_entries(ledger.path)] == [
        ("reserved", 600),
        ("wasted", 30),
        ("spent", 450),
        ("released", 150),
    ]
    assert (ledger.book.spent_flops, ledger.book.reserved_flops) == (480, 0)
    lines = map(json.loads, ledger.path.read_text().splitlines())
    assert {each["convention"] for each in lines} == {CONVENTION_NAME}


def test_a_reservation_of_nothing_is_closed_and_the_trial_can_be_paid_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", 1_000)
    ledger.reserve("a", 0)
    ledger.waste("a", 30)
    ledger.settle("a", train_flops=0, evaluation_flops=0)
    assert not ledger.book.open

    again = Ledger(ledger.path, 1_000)
    again.reserve("a", 100)
    again.settle("a", train_flops=100, evaluation_flops=0)
    assert (again.book.spent_flops, again.book.reserved_flops) == (130, 0)


def test_losses_of_a_trial_that_is_paid_again_are_added_to_those_of_its_first_run(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", None)
    for _ in range(2):
        ledger.reserve("a", 100)
        ledger.waste("a", 30)
        ledger.waste("a", 40)  # the total of this run so far
        ledger.settle("a", train_flops=100, evaluation_flops=0)

    for book in (ledger.book, Book.of(read_entries(ledger.path))):
        assert (book.spent_flops, book.wasted_flops) == (2 * 140, 2 * 40)


def test_reservation_over_the_study_budget_raises_and_is_not_booked(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", 1_000)
    ledger.reserve("a", 600)

    with pytest.raises(ValueError, match="trial b needs 401 FLOP, but only 400 FLOP"):
        ledger.reserve("b", 401)

    ledger.reserve("b", 400)
    assert {name: held.left for name, held in ledger.book.open.items()} == {"a": 600, "b": 400}


def test_wasted_work_counts_against_the_study_budget(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", 1_000)
    ledger.reserve("a", 600)
    ledger.waste("a", 500)
    assert ledger.room_flops == -100
    ledger.settle("a", train_flops=0, evaluation_flops=0)
    assert ledger.room_flops == 500

    with pytest.raises(ValueError, match="500 FLOP"):
        ledger.reserve("a", 600)


def test_charges_are_booked_once_over_any_number_of_runs(tmp_path: Path) -> None:
    other = replace(CHARGE, what="quality scorer, for another pool")
    for charges in ((CHARGE,), (CHARGE, other), (other,)):
        Ledger(tmp_path / "ledger.jsonl", None).charge(plan_of(declare(), charges=charges))

    assert Book.of(read_entries(tmp_path / "ledger.jsonl")).charged == {CHARGE.what: 1_000, other.what: 1_000}


@pytest.mark.parametrize("kept_bytes", range(1, 90, 7))
def test_a_torn_last_line_is_recovered(tmp_path: Path, kept_bytes: int) -> None:
    path = write(tmp_path / "ledger.jsonl", line("reserved", "a", 5))
    whole = path.read_bytes()
    torn = json.dumps(line("spent", "a", 5)).encode()[:kept_bytes]
    path.write_bytes(whole + torn)

    assert len(read_entries(path)) == 1
    ledger = Ledger(path, None)
    ledger.settle("a", train_flops=5, evaluation_flops=0)

    assert [entry.entry for entry in read_entries(path)] == ["reserved", "spent"]


def test_settlement_interrupted_by_a_crash_is_completed_once(tmp_path: Path) -> None:
    whole = Ledger(tmp_path / "whole.jsonl", None)
    whole.reserve("a", 100)
    whole.settle("a", train_flops=60, evaluation_flops=3)
    lines = whole.path.read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines) + 1):
        path = tmp_path / f"{kept}.jsonl"
        path.write_bytes(b"".join(lines[:kept]) + b'{"entry": "sp')
        again = Ledger(path, None)
        again.settle("a", train_flops=60, evaluation_flops=3)

        assert sorted(map(repr, read_entries(again.path))) == sorted(map(repr, read_entries(whole.path)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("{", "not a ledger entry"),
        ("[1]", "not a ledger entry"),
        ("", "not a ledger entry"),
        ('{"entry": "spent"}', "not a ledger entry: .*what"),
        (line("lent", "a", 1), "unknown entry 'lent'; allowed: charged, reserved, spent, released, wasted"),
        (line("spent", "b", 1), "trial b spent 1 FLOP without an open reservation"),
        (line("spent", "a", 6), "trial a spent 6 FLOP, but 5 of its reservation are left"),
        (line("released", "a", 6), "trial a released 6 FLOP, but 5 of its reservation are left"),
        (line("spent", "a", -1), "train_flops must be a whole number of at least 0, found -1"),
        (line("spent", "a", 1.5), "train_flops .* found 1.5"),
        (line("spent", "a", flops=True), "train_flops .* found True"),
        (line("spent", "a", float("nan")), "train_flops .* found nan"),
        (line("spent", "", 1), "'what' must be a non-empty trial id or charge name"),
        (line("reserved", "a", 5), "trial a is reserved twice"),
        (line("wasted", "b", 5), "trial b wasted FLOPs, but was never reserved"),
        (line("charged", "scorer", 5), "'scorer' is charged twice"),
    ],
)
def test_damaged_line_raises_and_names_the_line(
    tmp_path: Path, damage: str | dict[str, object], message: str
) -> None:
    path = write(
        tmp_path / "ledger.jsonl",
        line("charged", "scorer", 5),
        line("reserved", "a", 5),
        damage,
        line("reserved", "c", 5),
    )

    with pytest.raises(ValueError, match=rf"ledger\.jsonl:3: {message}"):
        Ledger(path, None)


def test_line_that_is_not_utf_8_raises_and_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"entry": "charged", "what": "\xff", "train_flops": 1}\n')

    with pytest.raises(ValueError, match=r"ledger\.jsonl:1: not a ledger entry"):
        read_entries(path)


def test_plan_and_book_reconcile_to_the_flop_at_every_step(tmp_path: Path) -> None:
    plan = plan_of(declare(), charges=(CHARGE,))
    ledger = Ledger(tmp_path / "ledger.jsonl", plan.train_flops)
    ledger.charge(plan)
    for number, trial in enumerate(plan.trials):
        ledger.reserve(trial.trial_id, trial.train_flops)
        assert not reconcile(plan, read_entries(ledger.path))
        assert ledger.book.reserved_flops == trial.train_flops

        ledger.settle(trial.trial_id, train_flops=trial.train_flops, evaluation_flops=1)
        waiting = sum(each.train_flops for each in plan.trials[number + 1 :])
        assert not reconcile(plan, read_entries(ledger.path))
        assert (ledger.book.spent_flops, ledger.book.reserved_flops) == (plan.train_flops - waiting, 0)


def test_differences_between_plan_and_book_are_listed(tmp_path: Path) -> None:
    plan = plan_of(declare(), charges=(CHARGE,))
    first, second = plan.trials[:2]
    path = write(
        tmp_path / "ledger.jsonl",
        line("charged", CHARGE.what, 999),
        line("reserved", first.trial_id, first.train_flops - 1),
        line("spent", first.trial_id, first.train_flops - 1),
        line("reserved", "stranger", 1),
    )
    differences = reconcile(plan, read_entries(path))

    assert differences[0] == "'quality scorer' is charged 999 FLOP, planned 1,000"
    assert differences[1].startswith(f"trial {first.trial_id} (mini-ViT-XXS-8 clip on ")
    assert differences[1].endswith(f"planned {first.train_flops:,}")
    assert differences[2] == "trial 'stranger' has an open reservation, but is not in the plan"
    assert second.trial_id not in str(differences)


def test_a_trial_that_ended_early_or_failed_reconciles_too(tmp_path: Path) -> None:
    plan = plan_of(declare())
    first, second, third = plan.trials[:3]
    ledger = Ledger(tmp_path / "ledger.jsonl", None)
    for trial, spent, wasted in ((first, 1_000, 0), (second, 0, 77), (second, second.train_flops, 154)):
        ledger.reserve(trial.trial_id, trial.train_flops)
        ledger.waste(trial.trial_id, wasted)
        ledger.settle(trial.trial_id, train_flops=spent, evaluation_flops=0)
    ledger.reserve(third.trial_id, third.train_flops)

    assert not reconcile(plan, read_entries(ledger.path))
    assert ledger.book.spent_flops == 1_000 + second.train_flops + 154
    assert ledger.book.reserved_flops == third.train_flops


def test_trial_paid_twice_is_listed_as_difference(tmp_path: Path) -> None:
    plan = plan_of(declare())
    ledger = Ledger(tmp_path / "ledger.jsonl", None)
    for _ in range(2):
        ledger.reserve(plan.trials[0].trial_id, plan.trials[0].train_flops)
        ledger.settle(plan.trials[0].trial_id, train_flops=plan.trials[0].train_flops, evaluation_flops=0)

    assert "seed 0) was reserved and paid 2 times" in reconcile(plan, read_entries(ledger.path))[0]


operations = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "release", "renew", "reopen"]),
        st.sampled_from("abc"),
        st.integers(0, 10**30),
        st.integers(0, 100),
    ),
    max_size=30,
)


@pytest.mark.slow
@given(operations)
def test_random_entries_keep_the_sums_and_the_cap(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int, int]]
) -> None:
    path, cap = tmp_path_factory.mktemp("book") / "ledger.jsonl", 10**30
    ledger = Ledger(path, cap)
    for step, what, flops, share in steps:
        if step == "reserve":
            before = ledger.book.spent_flops + ledger.book.reserved_flops
            try:
                ledger.reserve(what, flops)
            except ValueError:
                assert before + flops > cap
        elif step == "settle":
            held = ledger.book.open[what].left if what in ledger.book.open else 0
            ledger.settle(what, train_flops=held * share // 100, evaluation_flops=0)
        elif step == "release":
            ledger.release(what, keep=flops)
            assert what not in ledger.book.open or ledger.book.open[what].left <= flops
        elif step == "renew":
            ledger.renew(what, flops)
            assert what not in ledger.book.open or ledger.book.open[what].left == flops
        else:
            ledger = Ledger(path, cap)

    entries = read_entries(path)
    sums = {
        kind: sum(e.train_flops for e in entries if e.entry == kind)
        for kind in ("reserved", "spent", "released")
    }
    assert ledger.book.spent_flops == sums["spent"]
    assert ledger.book == Book.of(entries)
    assert sums["reserved"] == sums["spent"] + sums["released"] + ledger.book.reserved_flops
    assert ledger.book.spent_flops + ledger.book.reserved_flops <= cap


def test_wasted_work_is_booked_up_to_its_total_and_never_twice(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path, None).reserve("a", 100)
    for lost, evaluated in ((30, 0), (30, 0), (20, 0), (50, 7), (50, 7)):
        Ledger(path, None).waste("a", lost, evaluated)

    booked = [(each.train_flops, each.evaluation_flops) for each in read_entries(path)[1:]]
    assert booked == [(30, 0), (20, 7)]
    assert Ledger(path, None).book.spent_flops == 50


def test_entry_cut_by_a_full_disk_leaves_the_file_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, None)
    ledger.reserve("a", 100)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            ledger.settle("a", train_flops=60, evaluation_flops=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert path.read_bytes() == before
    ledger.settle("a", train_flops=60, evaluation_flops=0)
    assert [entry.entry for entry in read_entries(path)] == ["reserved", "spent", "released"]


def test_flops_of_an_earlier_declaration_are_reported_separately(tmp_path: Path) -> None:
    plan = plan_of(declare())
    ledger = Ledger(tmp_path / "ledger.jsonl", None)
    for what, spent, wasted in (("gone", 70, 3), (plan.trials[0].trial_id, plan.trials[0].train_flops, 5)):
        ledger.reserve(what, spent)
        ledger.waste(what, wasted)
        ledger.settle(what, train_flops=spent, evaluation_flops=0)
    entries = read_entries(ledger.path)

    assert not reconcile(plan, entries)
    assert left_behind_flops(plan, entries) == 73


def booked(path: Path) -> list[str]:
    """Book three trials, and return the lines of the ledger."""
    ledger = Ledger(path, 10_000)
    for what in ("a", "b", "c"):
        ledger.reserve(what, 600)
        ledger.settle(what, train_flops=500, evaluation_flops=7)
    return path.read_text().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("edit", "at"),
    [
        (lambda lines: [each.replace("500", "501", 1) for each in lines], 2),
        (lambda lines: [*lines[:4], lines[4].replace("500", "400"), *lines[5:]], 5),
        (lambda lines: lines[4:], 1),
        (lambda lines: [*lines[:3], *lines[6:]], 4),
        (lambda lines: [lines[3], *lines[:3], *lines[4:]], 1),
        (lambda lines: [*lines, line("reserved", "d", 1)], 10),
    ],
    ids=["digit", "later digit", "first lines lost", "a trial lost", "moved", "appended by hand"],
)
def test_an_edited_ledger_is_refused_at_the_first_wrong_line(
    tmp_path: Path, edit: Callable[[list[str]], list[object]], at: int
) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(
        "".join(each if isinstance(each, str) else f"{json.dumps(each)}\n" for each in edit(booked(path)))
    )

    with pytest.raises(ValueError, match=rf"ledger.jsonl:{at}: the digest does not fit.*`run --repair`"):
        Ledger(path, None)
    assert len(readable_entries(path)) in {5, 6, 9, 10}
