"""The FLOP book of a study: an append-only file in which every FLOP is reserved, then spent or released.

One JSON object a line. FLOPs are whole numbers, so the sums are exact at any size.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from budgets.plan import Plan
from budgets.quantity import format_flops

EntryKind = Literal["charged", "reserved", "spent", "released", "wasted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the book.

    Attributes:
        entry: ``charged`` (paid once, beside the trials), ``reserved`` (a trial was started), ``spent``
            (it finished), ``released`` (its reservation was given back), ``wasted`` (work that a crash
            lost and that was done again).
        what: A trial's id, or what a charge buys.
        train_flops: Training FLOPs.
        evaluation_flops: Forward FLOPs of evaluation; shown, not part of the cap.
    """

    entry: EntryKind
    what: str
    train_flops: int
    evaluation_flops: int = 0


class Ledger:
    """A study's book, opened for appending.

    Args:
        path: The file; made when absent.
        study_flops: The study's cap in training FLOPs, or None.

    Raises:
        ValueError: A line other than a torn last one can't be read; the message names it.
    """

    def __init__(self, path: Path, study_flops: int | None) -> None:
        self.path = path
        self.study_flops = study_flops
        self.entries = read_entries(path)
        _drop_torn_line(path)

    def charge(self, plan: Plan) -> None:
        """Books the plan's charges, once."""
        booked = {entry.what for entry in self.entries if entry.entry == "charged"}
        for charge in plan.charges:
            if charge.what not in booked:
                self._append(
                    Entry(
                        entry="charged",
                        what=charge.what,
                        train_flops=charge.train_flops,
                        evaluation_flops=charge.evaluation_flops,
                    )
                )

    def reserve(self, what: str, train_flops: int) -> None:
        """Sets a trial's FLOPs aside before it starts; a reservation that stands already is kept.

        Raises:
            ValueError: The reservation would exceed the study budget.
        """
        if what in reserved(self.entries):
            return
        committed = spent_flops(self.entries) + sum(reserved(self.entries).values())
        if self.study_flops is not None and committed + train_flops > self.study_flops:
            raise ValueError(
                f"trial {what} needs {format_flops(train_flops)}, "
                f"{format_flops(self.study_flops - committed)} of the study budget are left"
            )
        self._append(Entry(entry="reserved", what=what, train_flops=train_flops))

    def settle(self, what: str, *, train_flops: int, evaluation_flops: int, wasted_flops: int = 0) -> None:
        """Closes a trial's reservation: books what it spent, what was done twice, and gives back the rest."""
        if what not in reserved(self.entries):
            return
        held = reserved(self.entries)[what]
        if wasted_flops:
            self._append(Entry(entry="wasted", what=what, train_flops=wasted_flops))
        if train_flops or evaluation_flops:
            self._append(
                Entry(entry="spent", what=what, train_flops=train_flops, evaluation_flops=evaluation_flops)
            )
        if train_flops < held:
            self._append(Entry(entry="released", what=what, train_flops=held - train_flops))

    def _append(self, entry: Entry) -> None:
        line = json.dumps(asdict(entry)) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.entries.append(entry)


def read_entries(path: Path) -> list[Entry]:
    """Reads a book; a last line that a crash tore off is left out.

    Raises:
        ValueError: Any other line can't be read; the message names file and line.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    entries = []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("\n"):
            break
        try:
            entry = Entry(**json.loads(line))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}:{number}: not an entry of a ledger ({error})") from None
        if entry.entry not in get_args(EntryKind):
            raise ValueError(
                f"{path}:{number}: unknown entry '{entry.entry}'; allowed: {', '.join(get_args(EntryKind))}"
            )
        entries.append(entry)
    return entries


def spent_flops(entries: list[Entry]) -> int:
    """Sums the training FLOPs that are gone: charged, spent and wasted."""
    return sum(entry.train_flops for entry in entries if entry.entry in {"charged", "spent", "wasted"})


def reserved(entries: list[Entry]) -> dict[str, int]:
    """Gives the reservations that stand: trial id → training FLOPs."""
    standing: dict[str, int] = {}
    for entry in entries:
        if entry.entry == "reserved":
            standing[entry.what] = entry.train_flops
        elif entry.entry in {"spent", "released"}:
            standing.pop(entry.what, None)
    return standing


def _drop_torn_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
