"""Reads YAML by its nodes: each error names file and line, and all errors of a file come at once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import yaml

from budgets.names import unknown

T = TypeVar("T")
# libyaml's loader is ten times as fast; its nodes and marks are the same.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DeclarationError(ValueError):
    """One or more errors of a declaration, one a line."""


class Problems:
    """Collects the errors of a file.

    Args:
        path: The file, as errors shall name it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[tuple[int, str], None] = {}

    def add(self, node: yaml.Node, message: str) -> None:
        """Notes an error at a node."""
        self._lines[node.start_mark.line + 1, message] = None

    @property
    def found(self) -> bool:
        """Whether an error was noted so far."""
        return bool(self._lines)

    def raise_any(self) -> None:
        """Raises all errors noted so far.

        Raises:
            DeclarationError: There is at least one.
        """
        if self._lines:
            raise DeclarationError(
                "\n".join(f"{self.path}:{line}: {text}" for line, text in sorted(self._lines))
            )


class Section:
    """A mapping of the file whose keys are taken one by one; what is left at the end is an error.

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
        if not isinstance(node, yaml.MappingNode):
            problems.add(node, f"{name or 'the file'} must be a mapping (key: value)")
            return
        for key, value in node.value:
            text = key.value if isinstance(key, yaml.ScalarNode) else "?"
            if text in self._values:
                problems.add(key, f"{self._field(text)} stands twice")
            self._values[text], self._keys[text] = value, key

    def take(self, key: str, read: Callable[[str], T], default: T | None = None) -> T:
        """Takes a single value; without a default it is required."""
        node = self._node(key, required=default is None)
        if node is None:
            return default  # type: ignore[return-value] # an error is noted where it is required
        value = self._scalar(node, key, read)
        return default if value is None else value  # type: ignore[return-value] # as above

    def take_list(
        self, key: str, read: Callable[[str], T], default: tuple[T, ...] | None = None
    ) -> tuple[T, ...]:
        """Takes a list of values; a single value stands for a list of one."""
        node = self._node(key, required=default is None)
        if node is None:
            return default or ()
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not items:
            self.problems.add(node, f"{self._field(key)} is empty; give at least one value")
        values = [self._scalar(item, key, read) for item in items]
        return tuple(dict.fromkeys(value for value in values if value is not None))

    def take_names(
        self, key: str, kind: str, allowed: tuple[str, ...], default: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        """Takes a list of names, each one of the allowed."""
        return self.take_list(key, OneOf(kind, allowed), default)

    def take_mapping(
        self, key: str, read: Callable[[str], T], check_key: Callable[[str], str] = str
    ) -> dict[str, T]:
        """Takes a mapping of names to values; empty when it is absent."""
        node = self._node(key, required=False)
        if node is None:
            return {}
        inner = Section(node, self._field(key), self.problems)
        found: dict[str, T] = {}
        for name, value_node in inner._values.items():
            value = inner._scalar(value_node, name, read)
            if inner._scalar(inner._keys[name], name, check_key) is not None and value is not None:
                found[name] = value
        return found

    def section(self, key: str, *, required: bool = False) -> Self | None:
        """Takes an inner mapping, or None when it is absent."""
        node = self._node(key, required=required)
        return None if node is None else type(self)(node, self._field(key), self.problems)

    def sections(self, key: str, *, required: bool = True) -> Iterator[Self]:
        """Takes a list of inner mappings."""
        node = self._node(key, required=required)
        if node is None:
            return
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.problems.add(node, f"{self._field(key)} must be a list with at least one entry (- …)")
            return
        for number, item in enumerate(node.value, start=1):
            yield type(self)(item, f"{self._field(key)}[{number}]", self.problems)

    def has(self, key: str) -> bool:
        """Tells whether a key stands in the section."""
        return key in self._values

    def names(self) -> tuple[str, ...]:
        """Gives the section's keys, where they are names that the user chose."""
        return tuple(self._values)

    def is_section(self, key: str) -> bool:
        """Tells whether a key holds an inner mapping."""
        return isinstance(self._values.get(key), yaml.MappingNode)

    def where(self, key: str) -> str:
        """Return file and line of a key, or of the section where the key is absent."""
        return f"{self.problems.path}:{self._keys.get(key, self.node).start_mark.line + 1}"

    def error(self, message: str, key: str | None = None) -> None:
        """Notes an error at a key, or at the section itself."""
        self.problems.add(self.node if key is None or key not in self._keys else self._keys[key], message)

    def done(self) -> None:
        """Notes every key that nobody asked for."""
        for key, node in self._keys.items():
            if key not in self._asked:
                self.problems.add(
                    node, unknown("key", self._field(key), [self._field(name) for name in self._asked])
                )

    def _node(self, key: str, *, required: bool) -> yaml.Node | None:
        self._asked.add(key)
        node = self._values.get(key)
        if node is None and required:
            self.error(f"{self._field(key)} is missing")
        return node

    def _scalar(self, node: yaml.Node, key: str, read: Callable[[str], T]) -> T | None:
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            self.problems.add(node, f"{self._field(key)} must be a single value")
            return None
        try:
            return read(node.value)
        except ValueError as error:
            self.problems.add(node, f"{self._field(key)}: {error}")
            return None

    def _field(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key


@dataclass(frozen=True, slots=True)
class OneOf:
    """A reader of names that takes the allowed ones only.

    Attributes:
        kind: What they name, such as ``strategy``.
        allowed: All of them.
    """

    kind: str
    allowed: tuple[str, ...]

    def __call__(self, text: str) -> str:
        """Gives the name back.

        Raises:
            ValueError: It is none of the allowed ones.
        """
        if text not in self.allowed:
            raise ValueError(unknown(self.kind, text, self.allowed))
        return text


def read_root(path: Path) -> tuple[Section, Problems]:
    """Parses a YAML file whose top is a mapping.

    Raises:
        DeclarationError: The file can't be read or is no YAML.
    """
    problems = Problems(path)
    try:
        content = path.read_bytes()
        node = yaml.compose(content.decode("utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        found_at = error.problem_mark.line + 1 if error.problem_mark else 1
        line = min(found_at, len(content.splitlines()) or 1)  # what is missing at the end is on the last line
        tab = (
            "; indent with spaces, not tabs"
            if b"\t" in b"".join(content.split(b"\n")[line - 1 : line])
            else ""
        )
        raise DeclarationError(
            f"{path}:{line}: not valid YAML: {error.problem or error.context}{tab}"
        ) from None
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
    return Section(node, "", problems), problems
