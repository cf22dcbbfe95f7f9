"""Comparison of a study's FLOP book with its plan, exact to the FLOP."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from budgets.book.book import Book, Entry, Reservation
from budgets.planning.plan import Plan, Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconciliation:
    """The plan's training FLOPs, split by their state in the book.

    Attributes:
        planned: Training FLOPs of all trials and charges of the plan.
        charged: Planned FLOPs that were charged.
        spent: Planned FLOPs that trials spent.
        reserved: Planned FLOPs still reserved for started trials.
        released: Planned FLOPs released by trials that ended early, for example by diverging.
        waiting: Planned FLOPs neither spent nor reserved.
        wasted: FLOPs in addition to the plan, lost to crashes and computed again.
        left_behind: FLOPs spent on trials that are not in the plan, for example those of an earlier
            declaration.
        differences: One sentence per disagreement; empty when plan and book reconcile.
    """

    planned: int
    charged: int
    spent: int
    reserved: int
    released: int
    waiting: int
    wasted: int
    left_behind: int
    differences: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """True if they reconcile: planned = charged + spent + reserved + released + waiting."""
        return not self.differences


def reconcile(plan: Plan, entries: Sequence[Entry]) -> Reconciliation:
    """Compare a plan with the entries of a book, in their order.

    Raises:
        ValueError: An entry cannot follow those before it.
    """
    book = Book()
    charged: dict[str, int] = {}
    held: dict[str, list[Reservation]] = defaultdict(list)
    wasted = 0
    names = {trial.trial_id for trial in plan.all_trials} | {charge.what for charge in plan.charges}
    for entry in entries:
        book.add(entry)
        if entry.what not in names:
            continue
        if entry.entry == "charged":
            charged[entry.what] = entry.train_flops
        elif entry.entry == "reserved":
            held[entry.what].append(book.open[entry.what])
        elif entry.entry == "wasted":
            wasted += entry.train_flops
    # A reservation that was released in whole does not count: its trial is started again.
    paid = {
        what: [one for one in reservations if one.has_spent or one.left]
        for what, reservations in held.items()
    }
    counted = [one for reservations in paid.values() for one in reservations]
    found = Reconciliation(
        planned=plan.train_flops,
        charged=sum(charged.values()),
        spent=sum(each.spent for each in counted),
        reserved=sum(each.left for each in counted),
        released=sum(each.released for each in counted),
        waiting=sum(trial.paid_flops for trial in plan.all_trials if not paid.get(trial.trial_id))
        + sum(charge.train_flops for charge in plan.charges if charge.what not in charged),
        wasted=wasted,
        # Everything spent minus what belongs to the plan.
        left_behind=book.spent_flops - sum(charged.values()) - sum(each.spent for each in counted) - wasted,
        differences=(
            *(
                f"'{charge.what}' is charged {charged[charge.what]:,} FLOP, planned {charge.train_flops:,}"
                for charge in plan.charges
                if charged.get(charge.what, charge.train_flops) != charge.train_flops
            ),
            *(
                text
                for trial in plan.all_trials
                for text in _differences(trial, paid.get(trial.trial_id, []))
            ),
            *(
                f"trial '{what}' has an open reservation, but is not in the plan"
                for what in sorted(book.open.keys() - names)
            ),
        ),
    )
    if found.holds:
        parts = found.charged, found.spent, found.reserved, found.released, found.waiting
        assert sum(parts) == found.planned, "each trial and each charge agrees"
    return found


def _differences(trial: Trial, held: Sequence[Reservation]) -> list[str]:
    name = f"trial {trial.trial_id} ({trial.cell}, seed {trial.seed})"
    if len(held) > 1:
        return [f"{name} was reserved and paid {len(held)} times"]
    return [
        f"{name} has {each.reserved:,} FLOP reserved, planned {trial.paid_flops:,}"
        for each in held
        if each.reserved != trial.paid_flops
    ]
