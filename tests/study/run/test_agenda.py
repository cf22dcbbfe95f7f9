"""The cost of a changed declaration: a plan without room in the ledger is refused before it is paid for."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from budgets.ledger import Ledger
from budgets.planning.plan import Charge, Plan
from budgets.quantity import format_flops
from runners.results import plan_row
from runners.store.files import write_json
from runners.trials.meter import Meter
from runners.trials.trial_files import Outcome, write_outcome
from study.run.agenda import agenda, agenda_lines, lost_checkpoints, require_room
from study.state.bookkeeping import Bookkeeper
from study.state.plan_study import plan_study
from study.state.study import Study
from tests.study.conftest import waiting_tuning
from tests.study.tiny_study import TRUNK, TinyStudy

TERA = 10**12
NO_ROOM = pytest.raises(ValueError, match="of other trials: more than the study budget of 10 TFLOP")


@pytest.fixture
def study(tiny: TinyStudy) -> Study:
    """Return a study of four trials and 10 TFLOP, whose ledger is empty."""
    tiny.declare(levels="5 GFLOP, 20 GFLOP", seeds="0, 1")
    tiny.folder.mkdir()
    return tiny.study


@pytest.fixture
def plan(study: Study) -> Plan:
    return plan_study(study)


def charge(name: str, flops: int) -> Charge:
    return Charge(what=name, flops=flops)


def test_charges_and_losses_of_an_earlier_declaration_count(study: Study, plan: Plan) -> None:
    require_room(study, plan)
    ledger = Ledger(study.ledger, 10 * TERA)
    ledger.charge(replace(plan, charges=(charge("scorer, for old", 6 * TERA),)))
    ledger.reserve("an earlier trial", TERA)
    ledger.waste("an earlier trial", 3 * TERA)
    ledger.settle("an earlier trial", train_flops=0, evaluation_flops=0)
    require_room(study, plan)

    scored = replace(plan, charges=(charge("scorer, for new", TERA),))
    needed = format_flops(TERA + plan.train_flops)
    with pytest.raises(ValueError, match=f"needs {needed}, .*ledger.jsonl has 9 TFLOP"):
        require_room(study, scored)
    adaptive = replace(study.declaration, design=replace(study.declaration.design, adaptive=True))
    require_room(replace(study, declaration=adaptive), scored)
    with NO_ROOM:
        require_room(replace(study, declaration=adaptive), replace(plan, charges=(charge("new", TERA + 1),)))
    with pytest.raises(ValueError, match=r"'scorer, for new' .*1 TFLOP, .*999\.9 GFLOP"):
        Ledger(study.ledger, 10 * TERA - 10**8).charge(scored)


def test_a_grid_that_waits_for_its_tuning_may_contain_what_has_ended(study: Study, plan: Plan) -> None:
    first, *grid = plan.trials
    ledger = Ledger(study.ledger, None)
    for trial in grid:  # under the ids that they will have
        ledger.reserve(f"tuned {trial.trial_id}", trial.paid_flops)
        ledger.settle(f"tuned {trial.trial_id}", train_flops=trial.paid_flops, evaluation_flops=0)
    interrupted = study.trial_folder("tuned and interrupted")
    interrupted.mkdir(parents=True)
    (interrupted / "checkpoint-0000000040-abc.pt").touch()
    ledger.reserve("tuned and interrupted", 5)
    tuning = waiting_tuning(first)
    tuned = replace(plan, tuning=tuning, trials=tuple(grid), study_flops=plan.train_flops)
    require_room(study, tuned)
    assert not list(lost_checkpoints(study, tuned, study.book()))
    with pytest.raises(ValueError, match="more than the study budget"):
        require_room(study, replace(tuned, study_flops=plan.train_flops - 1))
    with pytest.raises(ValueError, match="of other trials"):
        require_room(study, replace(tuned, tuning=replace(tuning, waiting=())))
    assert len(list(lost_checkpoints(study, plan, study.book()))) == 1

    ended = study.trial_folder(f"tuned {grid[0].trial_id}")
    ended.mkdir(parents=True)
    (ended / "curve.parquet").touch()
    refused = pytest.raises(ValueError, match="of other trials")
    for strategy, expected in ((grid[0].cell.strategy, nullcontext()), ("flip-50", refused)):
        row = plan_row(replace(grid[0], cell=replace(grid[0].cell, strategy=strategy)))
        row |= {"trial": ended.name, "status": "finished", "reason": ""}
        write_outcome(ended, Outcome(row=row, timing={}))
        with expected:
            require_room(study, tuned)


def test_a_charge_needs_room_beside_what_crashes_lost(study: Study, plan: Plan) -> None:
    first, ledger = plan.trials[0], Ledger(study.ledger, 10 * TERA)
    ledger.reserve(first.trial_id, first.paid_flops)
    ledger.waste(first.trial_id, 9 * TERA)
    ledger.charge(replace(plan, charges=(charge("scorer", TERA),)))  # beside the reservation
    dearer = replace(plan, charges=(charge("scorer", TERA), charge("ranker", 10**9)))
    with pytest.raises(ValueError, match="crashes lost 9 TFLOP"):
        require_room(study, dearer)


def test_losses_of_the_plans_own_trials_do_not_refuse_it(study: Study, plan: Plan) -> None:
    first, ledger = plan.trials[0], Ledger(study.ledger, 10 * TERA)
    ledger.reserve(first.trial_id, first.paid_flops)
    ledger.waste(first.trial_id, 10 * TERA)
    require_room(study, plan)


def test_work_of_an_interrupted_trial_that_is_no_longer_declared_counts(
    study: Study,
    plan: Plan,
) -> None:
    ledger = Ledger(study.ledger, 10 * TERA)
    ledger.reserve("interrupted", 10 * TERA)
    require_room(study, plan)  # it had not begun: its reservation gives way
    folder = study.trial_folder("interrupted")
    folder.mkdir(parents=True)
    Meter(folder).add(train_flops=10 * TERA - plan.train_flops)
    require_room(study, plan)
    Meter(folder).add(train_flops=TERA)
    with NO_ROOM:
        require_room(study, plan)
    ledger.waste("interrupted", TERA)
    with NO_ROOM:
        require_room(study, plan)
    with pytest.raises(ValueError, match=r"has 1 TFLOP of"):  # the rest may be the grid's
        require_room(study, replace(plan, tuning=waiting_tuning(), study_flops=plan.train_flops))


def test_a_meter_older_than_what_is_booked_as_wasted_keeps_the_whole_reservation(
    study: Study,
) -> None:
    ledger = Ledger(study.ledger, None)
    ledger.reserve("interrupted", 200)
    ledger.waste("interrupted", 90)
    folder = study.trial_folder("interrupted")
    folder.mkdir(parents=True)
    Meter(folder).add(train_flops=10)  # the count of the last sync before a power cut
    Bookkeeper(ledger, study, lambda _: None).set_aside("interrupted")
    assert ledger.book.open["interrupted"].left == 200


def test_run_and_dry_run_are_refused_before_anything_is_written(tiny: TinyStudy) -> None:
    tiny.folder.mkdir()
    older = charge("an older scorer", 10 * TERA)
    Ledger(tiny.study.ledger, None).charge(replace(tiny.plan, charges=(older,)))
    before = sorted(tiny.folder.iterdir())
    for options in ("", "--dry-run"):
        assert "has 10 TFLOP of" in tiny.run(options, code=2)
    assert sorted(tiny.folder.iterdir()) == before


def test_a_dry_run_lists_charges_and_the_work_that_a_run_gives_up(study: Study, plan: Plan) -> None:
    scored = replace(plan, charges=(charge("quality scorer", 3 * TERA),))
    lines = list(agenda_lines(study, scored, agenda(study, scored.trials)))
    assert "3 TFLOP to be charged: quality scorer" in lines
    assert lines[-1] == "7 TFLOP of the study budget of 10 TFLOP are left after 1 charge"

    gone, ledger = plan.trials[-1], Ledger(study.ledger, 10 * TERA)
    fewer = replace(plan, trials=plan.trials[:-1])
    ledger.reserve(gone.trial_id, gone.paid_flops)
    assert not list(lost_checkpoints(study, fewer, study.book()))
    folder = study.trial_folder(gone.trial_id)
    folder.mkdir(parents=True)
    (folder / "checkpoint-0000000040-abc.pt").touch()
    (line,) = lost_checkpoints(study, fewer, study.book())
    assert gone.trial_id in line
    assert format_flops(gone.paid_flops) in line
    assert line in list(agenda_lines(study, fewer, agenda(study, fewer.trials)))
    assert not list(lost_checkpoints(study, plan, study.book()))
    write_json(folder / "result.json", {})
    assert not list(lost_checkpoints(study, fewer, study.book()))


def test_a_dry_run_says_that_some_of_its_trials_will_find_no_room(study: Study, plan: Plan) -> None:
    need = sum(trial.paid_flops for trial in plan.trials)
    begun, *_ = plan.trials

    def has_room(budget: int) -> bool:
        capped = replace(plan, study_flops=budget)
        *_, last = agenda_lines(study, capped, agenda(study, capped.trials))
        return "will be left out" not in last

    assert has_room(need)
    assert not has_room(need - 1)
    ledger = Ledger(study.ledger, 10 * TERA)
    ledger.reserve(begun.trial_id, begun.paid_flops)
    assert has_room(need), "what it needs is set aside already"
    ledger.waste(begun.trial_id, 1)
    assert not has_room(need)
    assert has_room(need + 1)


@pytest.mark.slow
def test_a_study_with_trunks_and_a_damaged_ledger_can_be_planned_and_repaired(tiny: TinyStudy) -> None:
    tiny.declare(levels="5 GFLOP, 20 GFLOP", training=TRUNK)
    tiny.folder.mkdir()
    tiny.study.ledger.write_text("damage\n", encoding="utf-8")

    assert "2 trials" in tiny.says("plan")
    assert "`run --repair`" in tiny.run(code=2)
    tiny.run("--repair")
    assert tiny.study.book().finished.keys() == {path.parent.name for path in tiny.trials("result.json")}
