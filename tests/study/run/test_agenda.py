"""The cost of a changed declaration: a plan without room is refused before it is paid for."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from budgets.planning.plan import Charge, Plan
from budgets.planning.planned_trial import Trial
from budgets.planning.tuning_plan import TuningPlan
from budgets.quantity import format_flops
from runners.results import plan_row
from runners.store.files import write_json
from runners.trials.meter import Meter
from runners.trials.trial_files import Outcome, write_outcome
from study.run.agenda import agenda, agenda_lines, lost_checkpoints, require_room
from study.state.book import Account, Book, read_book
from study.state.plan_study import plan_study
from study.state.study import Study
from tests.study.tiny_study import TinyStudy

TERA = 10**12
NO_ROOM = pytest.raises(ValueError, match="of other trials: more than the study budget of 10 TFLOP")


@pytest.fixture
def study(tiny: TinyStudy) -> Study:
    """Return a study of four trials and 10 TFLOP, that were not begun."""
    tiny.declare(levels="5 GFLOP, 20 GFLOP", seeds="0, 1")
    tiny.folder.mkdir()
    return tiny.study


@pytest.fixture
def plan(study: Study) -> Plan:
    return plan_study(study)


def waiting_tuning(*trials: Trial) -> TuningPlan:
    """Return a tuning of the tiny study's architecture that has no winner yet."""
    return TuningPlan(
        trials=trials, values={}, reserve_flops=0, metric="held-out/top1", winners=(),
        waiting=(("mini-ViT-XXS-8", "clip"),),
    )  # fmt: skip


def charge(name: str, flops: int) -> Charge:
    return Charge(what=name, flops=flops)


def book_of(study: Study, plan: Plan) -> Book:
    return read_book(study, {trial.trial_id: trial for trial in plan.all_trials})


def begin(study: Study, trial_id: str, flops: int, *, steps: int = 0) -> Path:
    """Let a trial compute some FLOPs more, and write a checkpoint of some steps; return its folder."""
    folder = study.trial_folder(trial_id)
    folder.mkdir(parents=True, exist_ok=True)
    Meter(folder).add(train_flops=flops)
    if steps:
        (folder / f"checkpoint-{steps:010d}-abc.pt").touch()
    return folder


def test_charges_and_losses_of_an_earlier_declaration_count(study: Study, plan: Plan) -> None:
    require_room(study, plan)
    old = {"an earlier trial": Account(wasted_flops=3 * TERA)}
    Book(charged={"scorer, for old": 6 * TERA}, trials=old).write(study)
    require_room(study, plan)

    scored = replace(plan, charges=(charge("scorer, for new", TERA),))
    needed = format_flops(TERA + plan.train_flops)
    with pytest.raises(ValueError, match=f"needs {needed}, .*spent.parquet has 9 TFLOP"):
        require_room(study, scored)
    adaptive = replace(study.declaration, design=replace(study.declaration.design, adaptive=True))
    require_room(replace(study, declaration=adaptive), scored)
    with NO_ROOM:
        require_room(replace(study, declaration=adaptive), replace(plan, charges=(charge("new", TERA + 1),)))
    with pytest.raises(ValueError, match=r"'scorer, for new' .*1 TFLOP, .*999\.9 GFLOP"):
        book_of(study, plan).charge(replace(scored, study_flops=10 * TERA - 10**8))


def test_a_grid_that_waits_for_its_tuning_may_contain_what_was_begun(study: Study, plan: Plan) -> None:
    first, *grid = plan.trials
    tuning = waiting_tuning(first)
    # Under the ids that they will have.
    Book(trials={f"tuned {one.trial_id}": Account(spent_flops=one.paid_flops) for one in grid}).write(study)
    begin(study, "tuned and interrupted", 5, steps=40)
    tuned = replace(plan, tuning=tuning, trials=tuple(grid), study_flops=plan.train_flops)
    require_room(study, tuned)
    assert not list(lost_checkpoints(study, tuned, book_of(study, tuned)))
    with pytest.raises(ValueError, match="more than the study budget"):
        require_room(study, replace(tuned, study_flops=plan.train_flops - 1))
    with pytest.raises(ValueError, match="of other trials"):
        require_room(study, replace(tuned, tuning=replace(tuning, waiting=())))
    assert len(list(lost_checkpoints(study, plan, book_of(study, plan)))) == 1

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


def test_losses_of_the_plans_own_trials_refuse_a_charge_and_not_the_plan(study: Study, plan: Plan) -> None:
    book = Book(trials={plan.trials[0].trial_id: Account(wasted_flops=9 * TERA)})
    book.charge(replace(plan, charges=(charge("scorer", TERA),)))  # beside what is still to come
    book.write(study)
    require_room(study, plan)
    dearer = replace(plan, charges=(charge("scorer", TERA), charge("ranker", 10**9)))
    with pytest.raises(ValueError, match="crashes lost 9 TFLOP"):
        require_room(study, dearer)


def test_work_of_an_interrupted_trial_that_is_no_longer_declared_counts(study: Study, plan: Plan) -> None:
    begin(study, "interrupted", 10 * TERA - plan.train_flops)
    require_room(study, plan)
    folder = begin(study, "interrupted", TERA, steps=40)
    with NO_ROOM:
        require_room(study, plan)
    waits = replace(plan, tuning=waiting_tuning(), study_flops=plan.train_flops)
    require_room(study, waits)  # it may be the grid's
    next(folder.glob("checkpoint-*")).unlink()
    with pytest.raises(ValueError, match="of other trials"):
        require_room(study, waits)


def test_run_and_dry_run_are_refused_before_anything_is_written(tiny: TinyStudy) -> None:
    tiny.folder.mkdir()
    Book(charged={"an older scorer": 10 * TERA}).write(tiny.study)
    before = sorted(tiny.folder.iterdir())
    for options in ("", "--dry-run"):
        assert "has 10 TFLOP of" in tiny.run(options, code=2)
    assert sorted(tiny.folder.iterdir()) == before


def test_a_dry_run_lists_charges_and_the_work_that_a_run_gives_up(study: Study, plan: Plan) -> None:
    scored = replace(plan, charges=(charge("quality scorer", 3 * TERA),))
    lines = list(agenda_lines(study, scored, agenda(study, scored.trials)))
    assert "3 TFLOP to be charged: quality scorer" in lines
    assert lines[-1] == "7 TFLOP of the study budget of 10 TFLOP are left after 1 charge"

    gone, fewer = plan.trials[-1], replace(plan, trials=plan.trials[:-1])
    folder = begin(study, gone.trial_id, gone.paid_flops)
    assert not list(lost_checkpoints(study, fewer, book_of(study, fewer)))
    begin(study, gone.trial_id, 0, steps=40)
    ((where, line),) = lost_checkpoints(study, fewer, book_of(study, fewer))
    assert where == folder
    assert gone.trial_id in line
    assert format_flops(gone.paid_flops) in line
    assert line in list(agenda_lines(study, fewer, agenda(study, fewer.trials)))
    assert not list(lost_checkpoints(study, plan, book_of(study, plan)))
    write_json(folder / "result.json", {})
    assert not list(lost_checkpoints(study, fewer, Book()))


def test_a_dry_run_says_that_some_of_its_trials_will_find_no_room(study: Study, plan: Plan) -> None:
    need = sum(trial.paid_flops for trial in plan.trials)
    begun, *_ = plan.trials

    def has_room(budget: int) -> bool:
        capped = replace(plan, study_flops=budget)
        *_, last = agenda_lines(study, capped, agenda(study, capped.trials))
        return "will be left out" not in last

    assert has_room(need)
    assert not has_room(need - 1)
    kept = begun.paid_flops_after(40 * begun.batch_size)
    begin(study, begun.trial_id, kept, steps=40)
    assert has_room(need), "what it needs is set aside already"
    begin(study, begun.trial_id, 1)
    assert not has_room(need)
    assert has_room(need + 1)
