"""The FLOP book of a study: an append-only file that reserves, then spends or releases every FLOP.

One JSON object per line. FLOPs are whole numbers, so sums are exact at any size. `budgets.book` holds
the rules for the order of entries. Each line ends with a digest of itself and all lines before it, so that a
line that was changed, lost or moved is found.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict
from operator import index
from pathlib import Path

from budgets.book import Book, Entry
from budgets.planning.plan import Charge, Plan
from budgets.quantity import format_flops

_DIGITS = 16  # of the SHA-256 of a line and all before it


class Ledger:
    """A study's book, opened for appending. Every operation takes the same time at any length of the book.

    The file is created if absent, and a torn last line is dropped. ``study_flops`` is the study's cap in
    training FLOPs, or None. Only the methods of the ledger add to ``book``.

    Raises:
        ValueError: A line cannot be read or cannot follow the lines before it; the message names the line.
    """

    def __init__(self, path: Path, study_flops: int | None) -> None:
        self.path = path
        self.study_flops = study_flops
        entries, self._chain = _read(path)
        self.book = Book.of(entries)
        drop_torn_line(path)

    def charge(self, plan: Plan) -> None:
        """Book the plan's charges that are not booked yet.

        Raises:
            ValueError: The study budget has no room for a charge.
        """
        for charge in unpaid_charges(self.book, plan):
            # Reservations of an earlier declaration, which are still open, give way.
            self._check_room(f"'{charge.what}'", charge.flops, besides=self.book.reserved_flops)
            self._append(Entry(entry="charged", what=charge.what, train_flops=charge.flops))

    def reserve(self, what: str, train_flops: int) -> None:
        """Reserve a trial's FLOPs before it starts; an open reservation is kept as it is.

        Raises:
            ValueError: The reservation would exceed the study budget.
        """
        if what in self.book.open:
            return
        self._check_room(f"trial {what}", train_flops)
        self._append(Entry(entry="reserved", what=what, train_flops=train_flops))

    def renew(self, what: str, train_flops: int) -> None:
        """Replace a started trial's open reservation if it differs from the trial's cost.

        They differ after a part was released, or if the trial now shares other steps of a trunk. If the study
        budget has no room for the cost, nothing is reserved, and the trial waits like one that was never
        started.
        """
        held = self.book.open.get(what)
        if held is None or (held.reserved == train_flops and not held.released):
            return
        self.settle(what, train_flops=0, evaluation_flops=0)
        if self.room_flops is None or train_flops <= self.room_flops:
            self.reserve(what, train_flops)

    def release(self, what: str, *, keep: int) -> None:
        """Return what an open reservation holds beyond ``keep`` FLOPs, so that other trials may use it."""
        held = self.book.open.get(what)
        if held is not None and held.left > keep:
            self._append(Entry(entry="released", what=what, train_flops=held.left - keep))

    @property
    def room_flops(self) -> int | None:
        """Training FLOPs of the study budget that are neither spent nor reserved; None without a budget.

        Negative if crashes wasted more than was left.
        """
        if self.study_flops is None:
            return None
        return self.study_flops - self.book.spent_flops - self.book.reserved_flops

    def waste(self, what: str, train_flops: int, evaluation_flops: int = 0) -> None:
        """Book a trial's lost work: the difference between the totals so far and what is booked already.

        Booked even when it exceeds the study budget, because the compute is already used.
        """
        booked = self.book.wasted.get(what, (0, 0))
        train = max(0, index(train_flops) - booked[0])
        evaluation = max(0, index(evaluation_flops) - booked[1])
        if train or evaluation:
            self._append(Entry(entry="wasted", what=what, train_flops=train, evaluation_flops=evaluation))

    def settle(self, what: str, *, train_flops: int, evaluation_flops: int) -> None:
        """Close a trial's reservation: book the FLOPs spent and release the rest.

        Idempotent: a second call adds only the entries that a crash kept from being written.

        Raises:
            ValueError: More is spent than was reserved.
        """
        held = self.book.open.get(what)
        if held is None:  # everything is settled already
            return
        # `index` accepts numpy integers and rejects floats, which would not be exact.
        train_flops, evaluation_flops = index(train_flops), index(evaluation_flops)
        entries = []
        # If a crash came between the two entries, the first one is in the book already.
        left = held.left
        if not held.has_spent and (train_flops or evaluation_flops):
            entries.append(
                Entry(entry="spent", what=what, train_flops=train_flops, evaluation_flops=evaluation_flops)
            )
            left -= train_flops
        if left > 0 or not entries:  # a reservation of 0 FLOPs is closed by a release of 0
            entries.append(Entry(entry="released", what=what, train_flops=left))
        self._append(*entries)

    def _check_room(self, what: str, train_flops: int, *, besides: int = 0) -> None:
        room = self.room_flops
        if room is not None and train_flops > room + besides:
            raise ValueError(
                f"{what} needs {format_flops(train_flops)}, but only "
                f"{format_flops(max(0, room + besides))} of the study budget are left"
            )

    def _append(self, *entries: Entry) -> None:
        """Check the entries, write them in one piece, and only then add them to the book in memory."""
        self.book.check(entries)
        chain = self._chain.copy()
        lines = [json.dumps(asdict(entry) | {"digest": _linked(chain, entry)}) + "\n" for entry in entries]
        append_whole(self.path, "".join(lines))
        self._chain = chain
        for entry in entries:
            self.book.add(entry)


def unpaid_charges(book: Book, plan: Plan) -> list[Charge]:
    """Return the plan's charges that are not booked yet."""
    return [charge for charge in plan.charges if charge.what not in book.charged]


def read_entries(path: Path) -> list[Entry]:
    """Read a book; a last line torn by a crash is left out.

    Raises:
        ValueError: Another line cannot be read or cannot follow the lines before it; the message names the
            file and the line.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[list[Entry], "hashlib._Hash"]:
    """Read a book and the hash that the digest of its next line continues."""
    chain = hashlib.sha256()
    if not path.exists():
        return [], chain
    # The part after the last newline is empty, or an entry cut by a crash.
    *lines, _torn = path.read_bytes().split(b"\n")
    book = Book()
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entry, digest = _entry(line)
            if digest != _linked(chain, entry):
                raise ValueError("the digest does not fit: this line was changed, or one before it is lost")  # noqa: TRY301 (the line's number is added below)
            book.add(entry)
        except ValueError as error:
            raise ValueError(
                f"{path}:{number}: {error}; `run --repair` rebuilds the ledger from results and meters"
            ) from None
        entries.append(entry)
    return entries, chain


def readable_entries(path: Path) -> list[Entry]:
    """Return the lines of a damaged book that are entries, whatever their digests say."""
    entries = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with suppress(ValueError):
            entries.append(_entry(line)[0])
    return entries


def _linked(chain: "hashlib._Hash", entry: Entry) -> str:
    """Add an entry to the hash of all before it, and return the digest of its line."""
    chain.update(json.dumps(asdict(entry)).encode() + b"\n")
    return chain.hexdigest()[:_DIGITS]


def _entry(line: bytes) -> tuple[Entry, str | None]:
    """Return the entry of a line, and the line's digest if it has one."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not a ledger entry: the line is not valid JSON") from None
    if not isinstance(content, dict):
        raise ValueError("not a ledger entry: the line is not a JSON object")  # noqa: TRY004 - a file's content
    digest = content.pop("digest", None)
    try:
        return Entry(**content), digest
    except TypeError as error:
        raise ValueError(f"not a ledger entry: {error}") from None


def append_whole(path: Path, text: str) -> None:
    """Append to a file, completely or not at all.

    Raises:
        OSError: Writing failed, for example on a full disk; the file keeps its former content.
    """
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        content = memoryview(text.encode())
        try:
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def drop_torn_line(path: Path) -> None:
    """Remove a last line torn by a crash, so that the next entry starts on a line of its own."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
