"""Reader of YAML nodes: each error names file and line, and all errors of a file are reported at once."""

import re
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from budgets.declaration.keys import DeclaredKeyError
from budgets.names import nearest_name, unknown

T = TypeVar("T")
REQUIRED: Any = MISSING
"""Instead of a key's default: the key must be given."""

# libyaml's loader is ten times faster, with the same nodes and marks.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_MOST_SHOWN = 20
_LARGEST_BYTES = 4_000_000
"""Largest file that is parsed; a hundred thousand values take less."""


class DeclarationError(ValueError):
    """One or more errors of a declaration, one per line."""


@contextmanager
def errors_with_line(path: Path | None) -> Iterator[None]:
    """Context manager that puts file and line of the declared key before a `DeclaredKeyError`.

    Args:
        path: The declaration's file; None to leave errors as they are.

    Raises:
        DeclarationError: Instead of the `DeclaredKeyError`.
    """
    try:
        yield
    except DeclaredKeyError as error:
        if path is None:
            raise
        raise DeclarationError(f"{path}:{_line(path, error.key)}: {error}") from None


def _line(path: Path, key: str) -> int:
    """Return the line of a key such as ``grid[2].quality``, or of the last part of it that the file has."""
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
    line = 1
    for name, number in re.findall(r"(\w[\w-]*)(?:\[(\d+)\])?", key):
        inside = node.value if isinstance(node, yaml.MappingNode) else ()
        found = next((pair for pair in inside if pair[0].value == name), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
        if number and isinstance(node, yaml.SequenceNode):
            node = node.value[int(number) - 1]
            line = node.start_mark.line + 1
    return line


class Problems:
    """Collects the errors of a file, whose path they name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._first: list[tuple[int, str]] = []  # sorted, the first of the file
        self._lines: Counter[int] = Counter()

    def add(self, node: yaml.Node, message: str | Callable[[], str]) -> None:
        """Record an error at a node; a message that takes time is given as a function."""
        line = node.start_mark.line + 1
        if len(self._first) < _MOST_SHOWN or line < self._first[-1][0]:
            error = line, message if isinstance(message, str) else message()
            if error in self._first:
                return
            insort(self._first, error)
            del self._first[_MOST_SHOWN:]
        self._lines[line] += 1

    def wrong_kind(self, node: yaml.Node, field: str, expected: str) -> None:
        """Record that a field is empty, or not of the expected kind."""
        empty = "is empty; it " if node.value in ("", []) else ""
        self.add(node, f"{field} {empty}must be {expected}")

    def within(self, node: yaml.Node) -> bool:
        """Return whether an error was recorded in the lines of a node."""
        # A block ends where the next key begins.
        first, last = node.start_mark.line + 1, node.end_mark.line + (node.end_mark.column > 0)
        return any(first <= line <= last for line in self._lines)

    def raise_any(self) -> None:
        """Raise the first errors of the file, and the number of the others.

        Raises:
            DeclarationError: At least one error was recorded.
        """
        if self._first:
            shown = [f"{self.path}:{line}: {text}" for line, text in self._first]
            more = self._lines.total() - len(shown)
            raise DeclarationError("\n".join([*shown, *([f"and {more:,} more errors"] if more else [])]))


class Section:
    """A mapping of the file whose keys are taken one by one; keys not taken by `done` are errors.

    Args:
        node: The mapping's node.
        name: Its name in errors, such as ``training``.
        problems: Where errors go.
    """

    def __init__(self, node: yaml.Node, name: str, problems: Problems) -> None:
        self.node, self.name, self.problems = node, name, problems
        self._values: dict[str, yaml.Node] = {}
        self._keys: dict[str, yaml.Node] = {}
        self._asked: set[str] = set()
        self._inner: dict[str, Section] = {}
        self._absent: list[tuple[str, str]] = []
        if not isinstance(node, yaml.MappingNode):
            problems.wrong_kind(node, name, "a mapping (key: value)")
            return
        for key, value in node.value:
            text = key.value if isinstance(key, yaml.ScalarNode) else "?"
            if text == "<<":
                problems.add(key, f"{self._field(text)}: merge keys are not read; write the settings out")
                continue
            if text in self._values:
                problems.add(key, f"{self._field(text)} is given twice")
            self._values[text], self._keys[text] = value, key

    def take(self, key: str, read: Callable[[str], T], default: T = REQUIRED) -> T:
        """Take a single value; without a default it is required."""
        node = self._node(key, required=default is REQUIRED)
        found = () if node is None else self._scalar(node, key, read)
        if found:
            return found[0]
        return default if default is not REQUIRED else None  # type: ignore[return-value] # an error is recorded

    def take_list(
        self, key: str, read: Callable[[str], T], default: tuple[T, ...] = REQUIRED
    ) -> tuple[T, ...]:
        """Take a list of values; a single value is a list of one."""
        node = self._node(key, required=default is REQUIRED)
        if node is None:
            return () if default is REQUIRED else default
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not items:
            self.problems.add(node, f"{self._field(key)} is empty; give at least one value")
        return tuple(dict.fromkeys(value for item in items for value in self._scalar(item, key, read)))

    def take_mapping(
        self, key: str, read: Callable[[str], T], check_key: Callable[[str], str] = str
    ) -> dict[str, T]:
        """Take a mapping of names to values; empty if absent."""
        inner = self.section(key)
        return {} if inner is None else inner.take_all(read, check_key)

    def take_all(self, read: Callable[[str], T], check_key: Callable[[str], str]) -> dict[str, T]:
        """Take every value of a section whose keys are names chosen by the user."""
        found: dict[str, T] = {}
        for name, node in self._values.items():
            self._asked.add(name)
            value = self._scalar(node, name, read)
            if self._scalar(self._keys[name], name, check_key) and value:
                found[name] = value[0]
        return found

    def section(self, key: str, *, required: bool = False) -> "Section | None":
        """Take an inner mapping; None if absent."""
        node = self._node(key, required=required)
        return None if node is None else self._inside(key, node)

    def spell_out(self, key: str, *, a_list: str, words: Mapping[str, tuple[str, bool]]) -> None:
        """Spell out a short form: a list becomes the key ``a_list``, a word turns a key on or off."""
        node = self._values.get(key)
        name = a_list if isinstance(node, yaml.SequenceNode) else getattr(node, "value", None)
        if name == a_list or (isinstance(name, str) and name in words):
            assert node is not None
            around = node.start_mark, node.end_mark
            value = node
            if name != a_list:
                name, on = words[name]
                value = yaml.ScalarNode("", str(on).lower(), *around)
            self._values[key] = yaml.MappingNode("", [(yaml.ScalarNode("", name, *around), value)], *around)

    def sections(self, key: str, *, required: bool = True) -> Iterator["Section"]:
        """Take a list of inner mappings."""
        node = self._node(key, required=required)
        if node is None:
            return
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.problems.wrong_kind(node, self._field(key), "a list with at least one entry (- …)")
            return
        for number, item in enumerate(node.value, start=1):
            yield self._inside(f"{key}[{number}]", item)

    def has(self, key: str) -> bool:
        """Return whether the section has a key, or an inner section has it (``budget.levels``)."""
        around, _, rest = key.partition(".")
        return key in self._values or (around in self._inner and self._inner[around].has(rest))

    def names(self) -> tuple[str, ...]:
        """Return the section's keys, for sections whose keys are names chosen by the user."""
        return tuple(self._values)

    def is_section(self, key: str) -> bool:
        """Return whether a key holds an inner mapping."""
        return isinstance(self._values.get(key), yaml.MappingNode)

    def is_value(self, key: str) -> bool:
        """Return whether a key holds a single value."""
        return isinstance(self._values.get(key), yaml.ScalarNode)

    def where(self, key: str) -> str:
        """Return file and line of a key, or of the section if the key is absent."""
        return f"{self.problems.path}:{self._keys.get(key, self.node).start_mark.line + 1}"

    def sound(self, key: str) -> bool:
        """Return whether a key is given and its value has no recorded error."""
        return key in self._values and not self.problems.within(self._values[key])

    def error(self, message: str, key: str | None = None) -> None:
        """Record an error at a key (``levels``, ``grid[2].levels``); of an absent key see `done`."""
        around, _, rest = (key or "").partition(".")
        if key is None or key in self._keys:
            self.problems.add(self.node if key is None else self._keys[key], message)
        elif around in self._inner:
            self._inner[around].error(message, rest or None)
        else:
            self._absent.append((key, message))

    def know(self, keys: Iterable[str]) -> None:
        """Mark keys as known, so that `done` accepts them even if they are never taken."""
        self._asked.update(keys)

    def misspelt(self) -> bool:
        """Return whether a key here or in an inner section was not taken so far."""
        return bool(self._keys.keys() - self._asked) or any(map(Section.misspelt, self._inner.values()))

    def done(self) -> None:
        """Record an error for every key that was never taken, also in inner sections.

        Errors at absent keys go to the section, unless such a key resembles the absent one.
        """
        never_taken = self._keys.keys() - self._asked
        for key in never_taken:
            self.problems.add(self._keys[key], partial(self._unknown, key))
        meant = {nearest_name(key, self._asked) for key in never_taken} if self._absent else set()
        for key, message in self._absent:
            if key.partition(".")[0] not in meant:
                self.problems.add(self.node, message)
        self._absent.clear()
        for section in self._inner.values():
            section.done()

    def _unknown(self, key: str) -> str:
        return unknown("key", self._field(key), [self._field(name) for name in self._asked])

    def _inside(self, key: str, node: yaml.Node) -> "Section":
        """Return an inner section, the same object each time."""
        if key not in self._inner:
            self._inner[key] = Section(node, self._field(key), self.problems)
        return self._inner[key]

    def _node(self, key: str, *, required: bool = False) -> yaml.Node | None:
        self._asked.add(key)
        node = self._values.get(key)
        if node is None and required:
            self.error(f"{self._field(key)} is missing", key)
        return node

    def _scalar(self, node: yaml.Node, key: str, read: Callable[[str], T]) -> tuple[()] | tuple[T]:
        """Return a value in a tuple; an empty tuple if an error was recorded."""
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            self.problems.wrong_kind(node, self._field(key), "a single value")
            return ()
        try:
            return (read(node.value),)
        except ValueError as error:
            self.problems.add(node, f"{self._field(key)}: {error}")
            return ()

    def _field(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key


def read_root(path: Path) -> tuple[Section, Problems]:
    """Parse a YAML file whose top is a mapping.

    Raises:
        DeclarationError: The file can't be read or is not YAML, or its top is not a mapping.
    """
    problems = Problems(path)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise DeclarationError(
                f"{path}: larger than {_LARGEST_BYTES // 10**6} MB, the limit for a declaration"
            )
        node = yaml.compose(content.decode("utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        # An error at the file's end is reported on its last line.
        found_at = error.problem_mark.line + 1 if error.problem_mark else 1
        line = min(found_at, len(content.splitlines()) or 1)
        tabbed = b"\t" in b"".join(content.split(b"\n")[line - 1 : line])
        said = error.problem or error.context or ""
        if said.startswith("but "):  # the rest of a sentence
            said = f"{error.context}, {said}"
        tab = "; indent with spaces, not tabs" if tabbed else ""
        raise DeclarationError(f"{path}:{line}: not valid YAML: {said}{tab}") from None
    except yaml.reader.ReaderError as error:
        line = content[: error.position].count(b"\n") + 1
        raise DeclarationError(
            f"{path}:{line}: not valid YAML: the character #x{error.character:04x} is not allowed"
        ) from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DeclarationError(f"{path}:{line}: not UTF-8: byte 0x{content[error.start]:02x}") from None
    except RecursionError:
        raise DeclarationError(f"{path}: nested too deeply") from None
    except OSError as error:
        raise DeclarationError(f"{path}: can't be read: {error.strerror}") from None
    if node is None:
        raise DeclarationError(
            f"{path}:1: the file is empty; `python -m study new NAME` writes a commented one"
        )
    if not isinstance(node, yaml.MappingNode):
        raise DeclarationError(f"{path}:{node.start_mark.line + 1}: the file must be a mapping (key: value)")
    return Section(node, "", problems), problems
