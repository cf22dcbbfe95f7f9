"""Forms of declared values: each reads a value of the file, writes it back, and says what it takes."""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from budgets.declaration.marked_file import MarkedFile, Node
from budgets.names import unknown

RISING = object()
"""Mark of a list whose values are sorted."""

LISTED = object()
"""Mark of a list for which a single number above 1 might be meant as a count."""

_WRONG: Any = object()

_BOUNDS = (
    ("above", operator.gt, "more than {:,}", "exclusiveMinimum"),
    ("at_least", operator.ge, "{:,} or more", "minimum"),
    ("below", operator.lt, "below {:,}", "exclusiveMaximum"),
    ("at_most", operator.le, "at most {:,}", "maximum"),
)
"""Fields of `Reader` that bound its value, with the condition, the words, and the key of a JSON schema."""

Schema = dict[str, Any]
"""JSON schema of a value. Beside the schema's own words, ``takes`` has the allowed values as Markdown."""


class Form(ABC):
    """The form of a key's value."""

    __slots__ = ()
    empty: ClassVar[Any] = None
    """Value in place of a required one that is missing."""
    is_section: ClassVar[bool] = False

    @abstractmethod
    def read(self, node: Node, instead: Any) -> Any:  # noqa: ANN401 - of the field's type
        """Return the value of a node; ``instead`` if it can't be read, which is recorded."""

    @abstractmethod
    def schema(self) -> Schema:
        """Return the JSON schema of the values that it takes."""

    def write(self, value: Any) -> Any:  # noqa: ANN401 - of the field's type
        """Return a value as YAML has it."""
        return value


class Scalar(Form):
    """A single value, which is read from its text."""

    __slots__ = ()

    @abstractmethod
    def parsed(self, text: str, file: MarkedFile) -> Any:  # noqa: ANN401 - of the field's type
        """Return the value of a text in a file.

        Raises:
            ValueError: The text is not allowed.
        """

    def read(self, node: Node, instead: Any) -> Any:  # noqa: ANN401 - of the field's type
        """Return the value of a node."""
        if not isinstance(node.value, str) or not node.value:
            node.must_be("a single value")
            return instead
        try:
            return self.parsed(node.value, node.file)
        except ValueError as error:
            node.error(f"{node.at}: {error}")
            return instead


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader(Scalar):
    """The reader of one value: its text → the value, or a `ValueError` that says what is allowed.

    Attributes:
        parse: Reads the text.
        noun: The value in words, such as ``a share``.
        examples: Texts that it takes.
        above: Exclusive lower bound.
        at_least: Lower bound.
        below: Exclusive upper bound.
        at_most: Upper bound.
        word: A further word that is allowed, and its value, such as ``off`` and None.
        why: The reason for the bounds, in words.
        usual: Lowest and highest value that needs no warning.
        json: Type of the value in JSON; a number may also be a text, such as ``10%``.
        relative: True if it is a path that is relative to the declaration's folder.
    """

    parse: Callable[[str], Any]
    noun: str
    examples: tuple[str, ...] = ()
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    word: tuple[str, Any] | None = None
    why: str = ""
    usual: tuple[float, float] | None = None
    json: Literal["number", "string", "boolean"] = "number"
    relative: bool = False

    def _bounds(self) -> Iterator[tuple[float, Callable[[Any, Any], bool], str, str]]:
        for name, *how in _BOUNDS:
            if (bound := getattr(self, name)) is not None:
                yield bound, *how

    @property
    def bounds(self) -> str:
        """The bounds in words; empty where there are none."""
        return ", ".join(words.format(bound) for bound, _, words, _ in self._bounds())

    def __call__(self, text: str) -> Any:  # noqa: ANN401 - of the type that the field has
        """Read a value.

        Raises:
            ValueError: The text can't be read, or the value is outside the bounds.
        """
        if self.word is not None and text == self.word[0]:
            return self.word[1]
        if self.word is not None and self.word[0] == "off" and text in {"false", "no", "none", "null", "~"}:
            raise ValueError(f"'{text}' is not read here; write off")
        value = self.parse(text)
        if not all(holds(value, bound) for bound, holds, _, _ in self._bounds()):
            raise ValueError(f"'{text}' must be {self.bounds}" + f": {self.why}" * bool(self.why))
        return value

    def parsed(self, text: str, file: MarkedFile) -> Any:  # noqa: ANN401 - of the type that the field has
        """Read a value of a file; a relative path is below the folder of the file."""
        value = self(text)
        return str(file.folder / value) if self.relative and "://" not in text else value

    @property
    def takes(self) -> str:
        """Allowed values in words, as Markdown."""
        text = ", ".join(filter(None, (self.noun, self.bounds)))
        text += ": " * bool(self.examples) + ", ".join(f"`{example}`" for example in self.examples)
        return text if self.word is None else f"{text}; or `{self.word[0]}`"

    def write(self, value: Any) -> Any:  # noqa: ANN401 - of the type that the field has
        """Return the value as it is written in YAML."""
        return self.word[0] if self.word is not None and value == self.word[1] else value

    def schema(self) -> Schema:
        """Return the type, and the bounds of numbers."""
        if self.json != "number":
            types: object = self.json if self.json == "boolean" else ["string", "number"]
            return {"type": types, "takes": self.takes}
        word = [self.word[0]] if self.word else []
        types = ["number", "string", *(["boolean"] if "false" in word else [])]
        pattern = "|".join([r"^\s*[-+.]?[0-9.]", *(f"^{literal}$" for literal in word)])
        bounds = {key: bound for bound, _, _, key in self._bounds()}
        return {"type": types, "pattern": pattern, **bounds, "takes": self.takes}


def _yes_or_no(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(f"'{text}' is not true or false")
    return text == "true"


YES_OR_NO = Reader(parse=_yes_or_no, noun="`true` or `false`", json="boolean")


@dataclass(frozen=True, kw_only=True, slots=True)
class OneOf(Scalar):
    """The reader of a name that is one of several.

    Attributes:
        kind: Kind of thing that is named, such as ``strategy``.
        allowed: All names; empty if only the loader knows them.
    """

    kind: str
    allowed: tuple[str, ...] = ()

    def parsed(self, text: str, file: MarkedFile) -> str:
        """Return the name."""
        allowed = self.allowed or file.names[self.kind]
        if allowed is not None and text not in allowed:
            raise ValueError(unknown(self.kind, text, allowed))
        return text

    def schema(self) -> Schema:
        """Return the names, or where the schema has them."""
        if self.allowed:
            return {"enum": list(self.allowed), "takes": ", ".join(f"`{name}`" for name in self.allowed)}
        plural = f"{self.kind[:-1]}ies" if self.kind.endswith("y") else f"{self.kind}s"
        return {"anyOf": [{"$ref": f"#/$defs/{self.kind}"}], "takes": f"[names](#{plural})"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Several(Form):
    """A list; a single value is a list of one, unless the values are sections."""

    empty: ClassVar[Any] = ()
    item: Form
    marks: tuple[object, ...] = ()

    def read(self, node: Node, instead: Any) -> tuple[Any, ...]:  # noqa: ANN401, ARG002
        """Return the values that can be read, without repetitions."""
        sections, single = self.item.is_section, not isinstance(node.value, list)
        if (sections and single) or node.value == []:
            node.must_be("a list with at least one entry (- …)" if sections else "at least one value")
            return ()
        items = node.value if isinstance(node.value, list) else [node]
        parsed = [value for item in items if (value := self.item.read(item, _WRONG)) is not _WRONG]
        if LISTED in self.marks and single and parsed and parsed[0] > 1:
            count = parsed[0]
            alone = f"{count} is ambiguous: write [{count}] for {count} alone, or list {count:,} values"
            node.error(f"{node.at}: {alone}, such as [0, 1, …]")
        values = tuple(parsed if sections else dict.fromkeys(parsed))
        return tuple(sorted(values)) if RISING in self.marks else values

    def write(self, value: tuple[Any, ...]) -> list[Any]:
        """Return a list."""
        return [self.item.write(entry) for entry in value]

    def schema(self) -> Schema:
        """Return the schema of a list, or of one value."""
        item = self.item.schema()
        several = {"type": "array", "items": item, "minItems": 1}
        if self.item.is_section:
            return several | {"takes": "a list of sections"}
        return {"anyOf": [item, several], "takes": f"a list: {item['takes']}"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Named(Form):
    """A mapping of names to values.

    Attributes:
        name: The reader of names.
        item: The form of each value, or for each allowed name its own.
    """

    empty: ClassVar[Any] = {}
    name: Scalar | None
    item: Form | Mapping[str, Form]

    def read(self, node: Node, instead: Any) -> dict[str, Any]:  # noqa: ANN401, ARG002
        """Return the names and values that can be read."""
        if not isinstance(node.value, dict):
            node.must_be("a mapping (key: value)")
        entries = {}
        for name, inside in node.inside.items():
            form = self.form(name)
            value = form.read(inside, _WRONG) if form else _WRONG
            try:
                _ = self.name and self.name.parsed(name, node.file)
            except ValueError as error:
                inside.file.add(inside.key_line, f"{node.at}: {error}")
                continue
            if value is not _WRONG:
                entries[name] = value
        return entries

    def form(self, name: str) -> Any:  # noqa: ANN401 - a form, or None
        """Return the form of a name's value; None of a name that is not allowed."""
        return self.item if isinstance(self.item, Form) else self.item.get(name)

    def write(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return a mapping."""
        return {name: self.form(name).write(entry) for name, entry in value.items()}

    def schema(self) -> Schema:
        """Return the schema of a mapping."""
        if isinstance(self.item, Mapping):
            inside = {name: form.schema() for name, form in self.item.items()}
            return {
                "type": "object",
                "properties": inside,
                "additionalProperties": False,
                "takes": "fields, each with a list",
            }
        item = self.item.schema()
        return {"type": "object", "additionalProperties": item, "takes": f"names, each with {item['takes']}"}
