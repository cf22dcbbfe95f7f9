"""Comparison of a study's FLOP book with its plan, exact to the FLOP."""

from collections import defaultdict
from collections.abc import Sequence

from budgets.book.book import Book, Entry, Reservation
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial


def reconcile(plan: Plan, entries: Sequence[Entry]) -> list[str]:
    """Return one sentence per disagreement of a plan with the entries of a book; empty if they reconcile.

    Then the plan's training FLOPs are exactly those charged, spent, still reserved, released by trials that
    ended early, and not reserved yet. FLOPs lost to crashes, and those of trials that are not in the plan,
    come in addition.

    Raises:
        ValueError: An entry cannot follow those before it.
    """
    book = Book()
    charged: dict[str, int] = {}
    held: dict[str, list[Reservation]] = defaultdict(list)
    for entry in entries:
        book.add(entry)
        if entry.entry == "charged":
            charged[entry.what] = entry.train_flops
        elif entry.entry == "reserved":
            held[entry.what].append(book.open[entry.what])
    return [
        *(
            f"'{charge.what}' is charged {charged[charge.what]:,} FLOP, planned {charge.train_flops:,}"
            for charge in plan.charges
            if charged.get(charge.what, charge.train_flops) != charge.train_flops
        ),
        *(text for trial in plan.all_trials for text in _differences(trial, held[trial.trial_id])),
        *(
            f"trial '{what}' has an open reservation, but is not in the plan"
            for what in sorted(book.open.keys() - {trial.trial_id for trial in plan.all_trials})
        ),
    ]


def left_behind(plan: Plan, entries: Sequence[Entry]) -> int:
    """Sum the training FLOPs of trials that are not in the plan, such as those of an earlier declaration."""
    names = {trial.trial_id for trial in plan.all_trials}
    names |= {charge.what for charge in plan.charges}
    return Book.of(entry for entry in entries if entry.what not in names).spent_flops


def _differences(trial: Trial, held: Sequence[Reservation]) -> list[str]:
    name = f"trial {trial.trial_id} ({trial.cell}, seed {trial.seed})"
    # A reservation that was released in whole does not count: its trial is started again.
    paid = [each for each in held if each.has_spent or each.left]
    if len(paid) > 1:
        return [f"{name} was reserved and paid {len(paid)} times"]
    return [
        f"{name} has {each.reserved:,} FLOP reserved, planned {trial.paid_flops:,}"
        for each in paid
        if each.reserved != trial.paid_flops
    ]
