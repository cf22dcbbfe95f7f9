"""The rules of the FLOP book: which entry may follow which, and the sums, kept as entries come.

A trial's FLOPs are reserved before it starts. Its reservation then goes, in whole, into what it spent (once)
and what is released; it stands until nothing of it is left. Work that a crash lost is wasted: it was not
reserved, and belongs to a trial that was. A charge is paid once.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from budgets.cost.flops import CONVENTION_NAME

EntryKind = Literal["charged", "reserved", "spent", "released", "wasted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the book.

    Attributes:
        entry: ``charged`` (paid once, beside the trials), ``reserved`` (a trial was started), ``spent``
            (it finished), ``released`` (its reservation was given back), ``wasted`` (work that was lost,
            to a crash as a rule).
        what: A trial's id, or what a charge buys.
        train_flops: Training FLOPs.
        evaluation_flops: Forward FLOPs of evaluation; shown, not part of the cap.
        convention: How the FLOPs are counted, see `budgets.cost.flops.CONVENTION`.

    Raises:
        ValueError: The kind is unknown, or an amount is not a whole number of at least 0.
    """

    entry: EntryKind
    what: str
    train_flops: int
    evaluation_flops: int = 0
    convention: str = CONVENTION_NAME

    def __post_init__(self) -> None:
        """Check the line by itself."""
        if self.entry not in get_args(EntryKind):
            raise ValueError(f"unknown entry '{self.entry}'; allowed: {', '.join(get_args(EntryKind))}")
        if not isinstance(self.what, str) or not self.what:
            raise ValueError(f"'what' names a trial or a charge, found {self.what!r}")
        for name in ("train_flops", "evaluation_flops"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} is a whole number of at least 0, found {value!r}")


@dataclass(kw_only=True, slots=True)
class Held:
    """A reservation that stands.

    Attributes:
        reserved: Training FLOPs set aside.
        spent: Of them, spent.
        released: Of them, given back.
        has_spent: Whether what was spent is booked, be it nothing.
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
        open: Reservations that stand, by trial.
        finished: Trials that are booked as spent.
        charged: What was charged.
        known: Trials that were ever reserved.
        wasted: Training and evaluation FLOPs that each trial lost.
        taken: Training FLOPs that are gone or set aside for each trial.
        spent_flops: Training FLOPs that are gone: charged, spent and wasted.
        reserved_flops: Training FLOPs that are set aside.
    """

    open: dict[str, Held] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    charged: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    wasted: dict[str, tuple[int, int]] = field(default_factory=dict)
    taken: Counter[str] = field(default_factory=Counter)
    spent_flops: int = 0
    reserved_flops: int = 0

    def check(self, entries: Sequence[Entry]) -> None:
        """Check entries of one trial or charge without adding them.

        Raises:
            ValueError: One can't follow what is before it.
        """
        what = {entry.what for entry in entries}
        trial = Book(
            open={name: replace(self.open[name]) for name in what if name in self.open},
            charged=self.charged & what,
            known=self.known & what,
        )
        for entry in entries:
            trial.add(entry)

    def add(self, entry: Entry) -> None:
        """Take the next entry.

        Raises:
            ValueError: It can't follow what is before it.
        """
        what, flops = entry.what, entry.train_flops
        held = self.open.get(what)
        if entry.entry == "charged":
            if what in self.charged:
                raise ValueError(f"'{what}' is charged twice")
            self.charged.add(what)
            self.spent_flops += flops
        elif entry.entry == "reserved":
            if held is not None:
                raise ValueError(f"trial {what} is reserved twice")
            self.known.add(what)
            self.open[what] = Held(reserved=flops)
            self.reserved_flops += flops
            self.taken[what] += flops
        elif entry.entry == "wasted":
            if what not in self.known:
                raise ValueError(f"trial {what} wasted FLOPs that it never reserved any for")
            train, evaluation = self.wasted.get(what, (0, 0))
            self.wasted[what] = train + flops, evaluation + entry.evaluation_flops
            self.spent_flops += flops
            self.taken[what] += flops
        else:
            self._settle(entry, held)

    def _settle(self, entry: Entry, held: Held | None) -> None:
        what, flops = entry.what, entry.train_flops
        if held is None:
            raise ValueError(f"trial {what} has no reservation that stands, and {entry.entry} {flops:,} FLOP")
        if flops > held.left:
            raise ValueError(
                f"trial {what} {entry.entry} {flops:,} FLOP, of its reservation {held.left:,} are left"
            )
        if entry.entry == "spent":
            if held.has_spent:
                raise ValueError(f"trial {what} is spent twice")
            held.spent, held.has_spent = flops, True
            self.finished.add(what)
            self.spent_flops += flops
        else:
            held.released += flops
            self.taken[what] -= flops
        self.reserved_flops -= flops
        if held.left == 0:
            del self.open[what]
