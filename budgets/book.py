"""The FLOP book: the order in which its entries may follow each other, running sums, agreement with a plan.

A trial's FLOPs are reserved before it starts. The whole reservation is later split into FLOPs spent (booked
once) and FLOPs released; the reservation is open until nothing of it is left. Work lost to a crash is booked
as wasted: it was not reserved itself, but belongs to a trial that has been reserved. A charge is paid once.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from budgets.cost.flops import CONVENTION_NAME
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial

EntryKind = Literal["charged", "reserved", "spent", "released", "wasted"]
SPENDING: tuple[EntryKind, ...] = ("charged", "spent", "wasted")
"""Kinds of entries whose FLOPs are spent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the book.

    Attributes:
        entry: ``charged`` (paid once, in addition to the trials), ``reserved`` (a trial was started),
            ``spent`` (the trial finished), ``released`` (the rest of its reservation was returned),
            ``wasted`` (work that was lost, usually to a crash).
        what: Trial id, or the name of a charge.
        train_flops: Training FLOPs; of a charge also forward FLOPs, which then are part of the cap.
        evaluation_flops: Forward FLOPs of evaluation; reported, but not part of the cap.
        convention: Counting convention of the FLOPs, see `budgets.cost.flops.CONVENTION`.

    Raises:
        ValueError: The kind is unknown, or an amount is not a whole number of at least 0.
    """

    entry: EntryKind
    what: str
    train_flops: int
    evaluation_flops: int = 0
    convention: str = CONVENTION_NAME

    def __post_init__(self) -> None:
        """Check the fields of the entry; its order in the book is checked by `Book`."""
        if self.entry not in get_args(EntryKind):
            raise ValueError(f"unknown entry '{self.entry}'; allowed: {', '.join(get_args(EntryKind))}")
        if not isinstance(self.what, str) or not self.what:
            raise ValueError(f"'what' must be a non-empty trial id or charge name, found {self.what!r}")
        for name in ("train_flops", "evaluation_flops"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} must be a whole number of at least 0, found {value!r}")


@dataclass(kw_only=True, slots=True)
class Reservation:
    """A trial's reservation: the training FLOPs set aside, and the parts that were spent and returned.

    ``has_spent`` is true once a ``spent`` entry was booked, even one of 0 FLOPs.
    """

    reserved: int
    spent: int = 0
    released: int = 0
    has_spent: bool = False

    @property
    def left(self) -> int:
        """Training FLOPs that are still set aside."""
        return self.reserved - self.spent - self.released


@dataclass(kw_only=True, slots=True)
class Book:
    """The state of the book after some entries.

    Attributes:
        open: Trial id → open reservation.
        finished: Trial id → FLOPs of its ``spent`` entry, unless it was reserved again since.
        charged: Paid charge → its FLOPs.
        wasted: Trial id → (training FLOPs, evaluation FLOPs) lost; a trial that is paid again starts at 0.
        taken: Trial id → training FLOPs spent, wasted or still reserved.
        spent_flops: FLOPs charged, spent and wasted.
    """

    open: dict[str, Reservation] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)
    charged: dict[str, int] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    wasted: dict[str, tuple[int, int]] = field(default_factory=dict)
    taken: Counter[str] = field(default_factory=Counter)
    wasted_flops: int = 0
    charged_flops: int = 0
    spent_flops: int = 0
    reserved_flops: int = 0

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Book":
        """Return the book after some entries.

        Raises:
            ValueError: An entry cannot follow those before it.
        """
        book = cls()
        for entry in entries:
            book.add(entry)
        return book

    def check(self, entries: Sequence[Entry]) -> None:
        """Check entries of one trial or charge without adding them.

        Raises:
            ValueError: An entry cannot follow those before it.
        """
        # A book of this trial alone: checking takes the same time at any length of the whole book.
        what = {entry.what for entry in entries}
        trial = Book(
            open={name: replace(self.open[name]) for name in what if name in self.open},
            charged={name: flops for name, flops in self.charged.items() if name in what},
            known=self.known & what,
        )
        for entry in entries:
            trial.add(entry)

    def add(self, entry: Entry) -> None:
        """Add the next entry.

        Raises:
            ValueError: The entry cannot follow those before it.
        """
        what, flops = entry.what, entry.train_flops
        held = self.open.get(what)
        if entry.entry == "charged":
            if what in self.charged:
                raise ValueError(f"'{what}' is charged twice")
            self.charged[what] = flops
            self.charged_flops += flops
            self.spent_flops += flops
        elif entry.entry == "reserved":
            if held is not None:
                raise ValueError(f"trial {what} is reserved twice")
            self.known.add(what)
            if self.finished.pop(what, None) is not None:  # it is paid again, and its meter starts at 0
                self.wasted.pop(what, None)
            self.open[what] = Reservation(reserved=flops)
            self.reserved_flops += flops
            self.taken[what] += flops
        elif entry.entry == "wasted":
            if what not in self.known:
                raise ValueError(f"trial {what} wasted FLOPs, but was never reserved")
            train, evaluation = self.wasted.get(what, (0, 0))
            self.wasted[what] = train + flops, evaluation + entry.evaluation_flops
            self.wasted_flops += flops
            self.spent_flops += flops
            self.taken[what] += flops
        else:
            self._settle(entry, held)

    def _settle(self, entry: Entry, held: Reservation | None) -> None:
        what, flops = entry.what, entry.train_flops
        if held is None:
            raise ValueError(f"trial {what} {entry.entry} {flops:,} FLOP without an open reservation")
        if flops > held.left:
            raise ValueError(
                f"trial {what} {entry.entry} {flops:,} FLOP, but {held.left:,} of its reservation are left"
            )
        if entry.entry == "spent":
            if held.has_spent:
                raise ValueError(f"trial {what} is spent twice")
            held.spent, held.has_spent = flops, True
            self.finished[what] = flops
            self.spent_flops += flops
        else:
            held.released += flops
            self.taken[what] -= flops
        self.reserved_flops -= flops
        if held.left == 0:
            del self.open[what]


def reconcile(plan: Plan, entries: Sequence[Entry]) -> list[str]:
    """Return one sentence per disagreement of a plan with the entries of a book; empty if they reconcile.

    Then the plan's training FLOPs are exactly those charged, spent, still reserved, released by trials that
    ended early, and not reserved yet. FLOPs lost to crashes, and those of trials that are not in the plan,
    come in addition.

    Raises:
        ValueError: An entry cannot follow those before it.
    """
    book = Book()
    held: dict[str, list[Reservation]] = defaultdict(list)
    for entry in entries:
        book.add(entry)
        if entry.entry == "reserved":
            held[entry.what].append(book.open[entry.what])
    return [
        *(
            f"'{charge.what}' is charged {book.charged[charge.what]:,} FLOP, planned {charge.flops:,}"
            for charge in plan.charges
            if book.charged.get(charge.what, charge.flops) != charge.flops
        ),
        *(text for trial in plan.all_trials for text in _differences(trial, held[trial.trial_id])),
        *(
            f"trial '{what}' has an open reservation, but is not in the plan"
            for what in sorted(book.open.keys() - {trial.trial_id for trial in plan.all_trials})
        ),
    ]


def left_behind_flops(plan: Plan, entries: Sequence[Entry]) -> int:
    """Sum the training FLOPs of trials that are not in the plan, such as those of an earlier declaration."""
    names = {trial.trial_id for trial in plan.all_trials}
    names |= {charge.what for charge in plan.charges}
    return Book.of(entry for entry in entries if entry.what not in names).spent_flops


def _differences(trial: Trial, held: Sequence[Reservation]) -> list[str]:
    name = f"trial {trial.trial_id} ({trial.cell}, seed {trial.seed})"
    # A reservation that was released in whole does not count: its trial is started again.
    paid = [reservation for reservation in held if reservation.has_spent or reservation.left]
    if len(paid) > 1:
        return [f"{name} was reserved and paid {len(paid)} times"]
    return [
        f"{name} has {reservation.reserved:,} FLOP reserved, planned {trial.paid_flops:,}"
        for reservation in paid
        if reservation.reserved != trial.paid_flops
    ]
