"""Check that a study's plan fits in what its ledger leaves of the study budget."""

from budgets.book.book import Book
from budgets.book.ledger import read_entries
from budgets.book.reconcile import left_behind
from budgets.planning.plan import Plan
from budgets.quantity import format_flops
from study.state.study import Study


def require_room(study: Study, plan: Plan) -> None:
    """Refuse a plan that the ledger leaves no room for, as after a change of the declaration.

    Work of the plan's own trials that crashes lost does not count here: trials without room for it are left
    out one by one. An adaptive design stays within what is left, but not its charges.

    Raises:
        ValueError: There is no room; or the ledger can't be read.
    """
    cap = plan.study_flops
    if cap is None:
        return
    entries = read_entries(study.ledger)
    paid, others = Book.of(entries).finished, left_behind(plan, entries)
    needed = sum(charge.train_flops for charge in plan.charges)
    for trial in plan.all_trials:
        ahead = 0 if study.declaration.design.adaptive else trial.paid_flops
        needed += paid.get(trial.trial_id, ahead)
    if others + needed > cap:
        besides = f", and {format_flops(others)} in {study.ledger} are not for it" if others else ""
        raise ValueError(
            f"this declaration needs {format_flops(needed)}{besides}: more than the study budget of "
            f"{format_flops(cap)}. Give a changed study a new name (study:), or raise budget.study"
        )
