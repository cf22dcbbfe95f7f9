"""Whether a study's book and its plan say the same, to the FLOP."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from budgets.book import Book, Entry
from budgets.plan import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconciliation:
    """The plan's training FLOPs by where the book says that they are.

    Attributes:
        planned: Training FLOPs of all trials and charges of the plan.
        charged: Of them, charged.
        spent: Of them, spent by trials.
        reserved: Of them, set aside for trials that were started.
        waiting: Of them, not booked yet.
        wasted: Beside them, lost to crashes and done again.
        differences: What does not agree, one sentence each; none where plan and book reconcile.
    """

    planned: int
    charged: int
    spent: int
    reserved: int
    waiting: int
    wasted: int
    differences: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether plan and book reconcile: planned = charged + spent + reserved + waiting."""
        return not self.differences


def reconcile(plan: Plan, entries: Sequence[Entry]) -> Reconciliation:
    """Compares a plan with a book.

    Args:
        plan: The plan.
        entries: The book's entries, in order.

    Raises:
        ValueError: An entry can't follow those before it.
    """
    book = Book()
    for entry in entries:
        book.add(entry)
    booked = {
        kind: _sums(entry for entry in entries if entry.entry == kind)
        for kind in ("charged", "spent", "wasted")
    }
    differences, waiting = [], 0
    for charge in plan.charges:
        if charge.what not in book.charged:
            waiting += charge.train_flops
        elif booked["charged"][charge.what] != charge.train_flops:
            paid = booked["charged"][charge.what]
            differences.append(f"'{charge.what}' is charged {paid:,} FLOP, planned {charge.train_flops:,}")
    for trial in plan.trials:
        what = trial.trial_id
        if what not in book.finished and what not in book.open:
            waiting += trial.train_flops
            continue
        held = booked["spent"][what] + (book.open[what].left if what in book.open else 0)
        if held != trial.train_flops:
            differences.append(
                f"trial {what} ({trial.cell}, seed {trial.seed}) has {held:,} FLOP spent or set aside, "
                f"planned {trial.train_flops:,}"
            )
    names = {trial.trial_id for trial in plan.trials} | {charge.what for charge in plan.charges}
    differences += [
        f"'{what}' is in the book, not in the plan" for what in sorted((book.known | book.charged) - names)
    ]
    found = Reconciliation(
        planned=plan.train_flops,
        charged=booked["charged"].total(),
        spent=booked["spent"].total(),
        reserved=book.reserved_flops,
        waiting=waiting,
        wasted=booked["wasted"].total(),
        differences=tuple(differences),
    )
    if found.holds:
        assert found.planned == found.charged + found.spent + found.reserved + waiting, "each part agrees"
    return found


def _sums(entries: Iterable[Entry]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for entry in entries:
        sums[entry.what] += entry.train_flops
    return sums
