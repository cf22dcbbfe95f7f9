"""Check that a study's plan fits in what its ledger leaves of the study budget."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from budgets.book.book import Book
from budgets.book.ledger import read_entries, unpaid
from budgets.book.reconcile import left_behind
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_flops
from runners.results import cell_row
from runners.trials.records.trial_files import read_outcome
from study.state.bookkeeping import unbooked_flops
from study.state.study import Study


def require_room(study: Study, plan: Plan) -> None:
    """Refuse a plan that the ledger leaves no room for, as after a change of the declaration.

    Work that crashes of the plan's own trials lost is no reason to refuse it, unless its charges no longer
    fit: a run leaves out the trials without room one by one. Of an adaptive study only the charges and the
    paid trials are counted, because its design chooses further trials within what is left.

    Raises:
        ValueError: There is no room; or the ledger can't be read.
    """
    cap = plan.study_flops
    if cap is None:
        return
    entries = read_entries(study.ledger)
    book = Book.of(entries)
    known, grid = plan, tuple[Trial, ...]()
    if plan.tuning is not None and plan.tuning.waiting:
        # Check and grid get their ids when the tuning has ended. Trials that ended may be among them.
        grid = (*plan.trials, *plan.tuning.neighbours)
        known = replace(plan, trials=(), tuning=replace(plan.tuning, neighbours=()))
    adaptive = study.declaration.design.adaptive
    ids = {trial.trial_id: 0 if adaptive else trial.paid_flops for trial in known.all_trials}
    needed = sum(charge.train_flops for charge in plan.charges)
    needed += sum(book.finished.get(what, ahead) for what, ahead in ids.items())
    rows = [cell_row(trial.cell) | {"seed": trial.seed} for trial in grid]
    if grid and not adaptive:
        ended = sum(
            flops
            for what, flops in book.finished.items()
            if what not in ids and _may_be_of(rows, study.trial_folder(what))
        )
        needed += max(0, sum(trial.paid_flops for trial in grid) - ended)
    others = left_behind(known, entries)
    for what in book.open.keys() - ids.keys():  # interrupted: its work is lost, unless the grid needs it
        if not (grid and _may_be_of(rows, study.trial_folder(what))):
            others += unbooked_flops(study.trial_folder(what), book)
    charges = sum(charge.train_flops for charge in unpaid(book, plan))
    if others + needed > cap or (charges and book.spent_flops + charges > cap):
        besides = f", and {study.ledger} has {format_flops(others)} of other trials" if others else ""
        lost = "" if others + needed > cap else f"; crashes lost {format_flops(book.wasted_flops)}"
        raise ValueError(
            f"this declaration needs {format_flops(needed)}{besides}{lost}: more than the study budget of "
            f"{format_flops(cap)}. Give a changed study a new name (study:), or raise budget.study"
        )


def _may_be_of(rows: Sequence[Mapping[str, object]], folder: Path) -> bool:
    """Return whether the trial in a folder has one of some cells and seeds; True without a result."""
    outcome = read_outcome(folder)
    return outcome is None or any(
        # A missing level is NaN, which equals nothing.
        all(outcome.row.get(name) == own for name, own in row.items() if own == own)  # noqa: PLR0124
        for row in rows
    )
