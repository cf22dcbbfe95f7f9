"""Values of a file with their lines, and the errors that are found in them, all reported at once."""

from bisect import insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from budgets.names import nearest_name, shortened, unknown

_MOST_SHOWN = 20

Content: TypeAlias = "str | list[Node] | dict[str, Node]"


class DeclarationError(ValueError):
    """One or more errors of a declaration, one per line."""


class DeclaredKeyError(ValueError):
    """A declared value that does not fit the pool, the evaluation sets or the budget.

    Args:
        key: The key, such as ``budget.study`` or ``grid[2].quality``.
        message: The error, without the place.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@contextmanager
def at_key(key: str) -> Iterator[None]:
    """Context manager that turns a `ValueError` into a `DeclaredKeyError` at a key."""
    try:
        yield
    except ValueError as error:
        raise DeclaredKeyError(key, str(error)) from error


class MarkedFile:
    """A file that is read, and the errors that were found in it.

    Attributes:
        path: The file.
        folder: Folder that relative paths are relative to.
        names: Kind of name → the allowed names, for kinds that only the loader knows; None for any.
        top: The whole mapping.
    """

    top: "Node"

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        self.path, self.folder = path, path.parent if folder is None else folder
        self.names: Mapping[str, tuple[str, ...] | None] = {}
        self._first: list[tuple[int, str]] = []  # sorted, the first of the file
        self._count = 0

    def add(self, line: int, message: str | Callable[[], str]) -> None:
        """Record an error; a message that takes time is given as a function."""
        if len(self._first) < _MOST_SHOWN or line < self._first[-1][0]:
            error = line, message if isinstance(message, str) else message()
            if error in self._first:
                return
            insort(self._first, error)
            del self._first[_MOST_SHOWN:]
        self._count += 1

    def raise_any(self) -> None:
        """Raise the first errors of the file, and the number of the others.

        Raises:
            DeclarationError: At least one error was recorded.
        """
        if self._first:
            shown = [f"{self.path}:{line}: {text}" for line, text in self._first]
            more = self._count - len(shown)
            raise DeclarationError("\n".join([*shown, *([f"and {more:,} more errors"] if more else [])]))


@dataclass(kw_only=True, slots=True, eq=False)
class Node:
    """A value of a file.

    Attributes:
        value: A text, a list, or a mapping in the file's order.
        file: The file.
        around: The mapping or list that it is in; None at the top.
        name: Its key there; ``[2]`` in a list of mappings, empty in a list of values.
        line: Its line.
        key_line: Line of its key, or its own without one.
        wrong: True if it could not be read.
        meant: For each unknown key of a mapping the known key that it resembles, or None.
    """

    value: Content
    file: MarkedFile
    around: "Node | None" = None
    name: str = ""
    line: int = 1
    key_line: int = 1
    wrong: bool = False
    meant: Collection[str | None] = ()

    def error(self, message: str) -> None:
        """Record that the value can't be read; a long value in the message is cut."""
        self.wrong = True
        if isinstance(self.value, str) and self.value:
            message = message.replace(self.value, shortened(self.value))
        self.file.add(self.line, message)

    def must_be(self, expected: str) -> None:
        """Record that the value is missing or of another kind."""
        empty = "is empty; it " if self.value in ("", []) else ""
        self.error(f"{self.at} {empty}must be {expected}")

    @property
    def at(self) -> str:
        """Its full key, such as ``grid[2].levels``; empty at the top."""
        return self.around.key(self.name) if self.around else ""

    def key(self, name: str) -> str:
        """Return the full name of a key inside."""
        dot = "." if self.at and name and not name.startswith("[") else ""
        return f"{self.at}{dot}{shortened(name)}"

    @property
    def inside(self) -> Mapping[str, "Node"]:
        """The keys of a mapping; none of any other value."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def sound(self) -> bool:
        """True if the value and all inside could be read."""
        return not self.wrong and all(part.sound for part in self._parts())

    @property
    def misspelt(self) -> bool:
        """True if the value, or one inside, has an unknown key."""
        return bool(self.meant) or any(part.misspelt for part in self._parts())

    def find(self, key: str) -> tuple["Node", str]:
        """Return the value of a key such as ``grid[2].quality``, or the innermost around it, and the rest."""
        names = self.inside or {f"[{number}]": node for number, node in enumerate(self._parts(), start=1)}
        for name, node in names.items():
            rest = key.removeprefix(name)
            if rest != key and rest[:1] in {"", ".", "["}:
                return node.find(rest.removeprefix("."))
        return self, key

    def given(self, key: str) -> bool:
        """Return whether a key was given, also one of an inner mapping (``budget.levels``)."""
        return not self.find(key)[1]

    def text(self, key: str) -> str:
        """Return the text of a key; empty if there is none."""
        node, absent = self.find(key)
        return node.value if isinstance(node.value, str) and not absent else ""

    def clash(self, key: str, message: str) -> None:
        """Record that a key contradicts others, with the error from the key on.

        An absent key's error is that of its section, unless a key there resembles it. Nothing is said of a
        value that could not be read.
        """
        node, absent = self.find(key)
        wrong = node.wrong or (isinstance(node.value, list) and any(item.wrong for item in node.value))
        if not wrong and absent.partition(".")[0] not in node.meant:
            around = f"{self.at}{'.' if key else ' '}" if self.at else ""
            node.file.add(node.line if absent or not key else node.key_line, around + message)

    def check_keys(self, allowed: Collection[str]) -> None:
        """Record an error for each unknown key of a mapping."""
        names = [self.key(name) for name in allowed]
        strange = [name for name in self.inside if name not in allowed]
        self.meant = {nearest_name(name, allowed) for name in strange[:_MOST_SHOWN]}
        for name in strange:
            self.file.add(self.inside[name].key_line, partial(unknown, "key", self.key(name), names))

    def _parts(self) -> Iterable["Node"]:
        return self.value if isinstance(self.value, list) else self.inside.values()
