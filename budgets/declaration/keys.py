"""Keys of a declaration: the fields of its data classes, each with reader, default and description.

A key is one field: ``name: Annotated[TYPE, READER] = DEFAULT``, with its description as a docstring below it.
Loading, dumping and docs/declaration.md follow from that. No reader is needed if the type says everything:
``bool``, a ``Literal``, a data class (a section), a tuple of one (a list of sections), a dict of one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from budgets.names import unknown

Given = Callable[[str], bool]
"""Returns whether a key was given in the file."""

Clashes = Iterator[tuple[str, str]]
"""Keys that contradict others, each with the error from the key on."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
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

    @property
    def bounds(self) -> str:
        """The bounds in words; empty where there are none."""
        said = (
            ("more than {:,}", self.above),
            ("{:,} or more", self.at_least),
            ("below {:,}", self.below),
            ("at most {:,}", self.at_most),
        )
        return ", ".join(text.format(bound) for text, bound in said if bound is not None)

    def __call__(self, text: str) -> Any:  # noqa: ANN401 - of the type that the field has
        """Read a value.

        Raises:
            ValueError: The text can't be read, or the value is outside the bounds.
        """
        if self.word is not None and text == self.word[0]:
            return self.word[1]
        value = self.parse(text)
        if (
            (self.above is not None and not value > self.above)
            or (self.at_least is not None and not value >= self.at_least)
            or (self.below is not None and not value < self.below)
            or (self.at_most is not None and not value <= self.at_most)
        ):
            raise ValueError(f"'{text}' must be {self.bounds}" + f": {self.why}" * bool(self.why))
        return value

    @property
    def takes(self) -> str:
        """Allowed values in words, as Markdown."""
        text = ", ".join(filter(None, (self.noun, self.bounds)))
        text += ": " * bool(self.examples) + ", ".join(f"`{example}`" for example in self.examples)
        return text if self.word is None else f"{text}; or `{self.word[0]}`"

    def write(self, value: object) -> object:
        """Return the value as it is written in YAML."""
        return self.word[0] if self.word is not None and value == self.word[1] else value


@dataclass(frozen=True, kw_only=True, slots=True)
class OneOf:
    """The reader of a name that is one of several.

    Attributes:
        kind: Kind of thing that is named, such as ``strategy``.
        allowed: All names; empty if only the loader knows them.
    """

    kind: str
    allowed: tuple[str, ...] = ()

    def __call__(self, text: str) -> str:
        """Return the name.

        Raises:
            ValueError: The name is not allowed.
        """
        if text not in self.allowed:
            raise ValueError(unknown(self.kind, text, self.allowed))
        return text

    @property
    def takes(self) -> str:
        """Allowed values in words, as Markdown."""
        plural = f"{self.kind[:-1]}ies" if self.kind.endswith("y") else f"{self.kind}s"
        return ", ".join(f"`{name}`" for name in self.allowed) or f"[names](#{plural})"

    def write(self, value: object) -> object:
        """Return the name."""
        return value


@dataclass(frozen=True, kw_only=True, slots=True)
class At:
    """Mark of a field whose key has another name; if empty, its keys belong to the enclosing section."""

    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Tunable:
    """Mark of a field that can be tuned, with the reader of the values to try if not the field's own."""

    read: Reader | None = None


RISING = object()
"""Mark of a list whose values are sorted."""

KeyForm = Literal[
    "value", "list", "range", "mapping", "section", "sections", "named", "inline", "choice", "special", "none"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A key of a section, taken from a field of the section's data class.

    Attributes:
        name: The key in the file.
        field: The field. A unit at its end (``_s``, ``_flops``) is not part of the key.
        form: ``value``, ``list``, ``range`` (one value, or the lowest and the highest), ``mapping`` of names
            to values, ``section``, ``sections`` (a list of them), ``named`` (a section for each name),
            ``inline`` (a section whose keys belong to the enclosing one), ``choice`` (a section of one kind
            of several), ``special`` (read by a function of its own), or ``none`` (no key, but it can be
            tuned).
        read: The reader of a value, or of each value.
        read_name: The reader of a mapping's names.
        kind: The data class of a section.
        options: Of a choice, each kind as a key of the section, ``section`` or ``inline``.
        default: The default; `dataclasses.MISSING` if the key is required.
        tuned: The reader of values to try in tuning; None if the field can't be tuned.
        rising: True if a list is sorted.
    """

    name: str = ""
    field: str = ""
    form: KeyForm = "none"
    read: Reader | OneOf | None = None
    read_name: Reader | OneOf | None = None
    kind: Any = None
    options: tuple["Key", ...] = ()
    default: Any = MISSING
    tuned: Reader | None = None
    rising: bool = False


def _yes_or_no(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(f"'{text}' is not true or false")
    return text == "true"


_YES_OR_NO = Reader(parse=_yes_or_no, noun="`true` or `false`")


def keys(kind: type) -> tuple[Key, ...]:
    """Return the keys of a data class, in the order of its fields.

    Raises:
        TypeError: A field has no reader.
    """
    return tuple(key for key in _of_fields(kind) if key.form != "none")


def tunable(kind: type) -> dict[str, Reader]:
    """Return the fields of a data class, and of those inside it, that can be tuned, with their readers."""
    found: dict[str, Reader] = {}
    for key in _of_fields(kind):
        found |= {key.field: key.tuned} if key.tuned is not None else {}
        found |= tunable(key.kind) if key.form == "inline" else {}
    return found


def unusual(value: object, around: str = "") -> Iterator[str]:
    """Yield a warning for each implausible number of a section and of the sections inside it."""
    for key in keys(type(value)):
        inside = getattr(value, key.field)
        at = f"{around}.{key.name}".strip(".")
        if key.form in {"section", "inline", "choice"} and inside is not None:
            yield from unusual(inside, at)
        elif key.form == "sections":
            for number, each in enumerate(inside, start=1):
                yield from unusual(each, f"{at}[{number}]")
        elif isinstance(key.read, Reader) and key.read.usual is not None:
            low, high = key.read.usual
            named = inside.items() if isinstance(inside, dict) else [("", inside)]
            for name, number in named:
                if isinstance(number, int | float) and not low <= number <= high:
                    place = f"{at}.{name}".strip(".")
                    yield f"{place} = {number:g} is unusual: {low:g} to {high:g} is common"


def clashes(value: object, given: Given) -> Clashes:
    """Yield each key of a section that contradicts another, with the error from the key on."""
    check = getattr(value, "clashes", None)
    yield from () if check is None else check(given)


@cache
def _of_fields(kind: Any) -> tuple[Key, ...]:  # noqa: ANN401 - mypy takes no `type` as hashable
    return tuple(map(_key, fields(kind)))


def _key(field: "Field[Any]") -> Key:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    name = field.name.removesuffix("_s").removesuffix("_flops")
    key = _typed(field.type, Key(name=name, field=field.name, default=default))
    if key.form in {"value", "list", "range", "mapping"} and key.read is None:
        raise TypeError(f"the field '{field.name}' has no reader; write Annotated[{field.type}, READER]")
    return key


def _typed(hint: Any, key: Key) -> Key:  # noqa: ANN401, PLR0911 - types have no common type; one a form
    """Complete a key from its type."""
    origin, inner = get_origin(hint), [each for each in get_args(hint) if each is not NoneType]
    if origin is Annotated:
        key = _typed(inner[0], key)
        for mark in hint.__metadata__:
            key = _marked(mark, key)
        return key
    if origin in {Union, UnionType} and len(inner) == 1:
        return _typed(inner[0], key)
    if origin in {Union, UnionType}:
        return replace(key, form="choice", options=tuple(_typed(each, key) for each in inner))
    if origin is tuple:
        inside = _typed(inner[0], key)
        return replace(inside, form="sections" if inside.kind else "list" if Ellipsis in inner else "range")
    if origin is dict:
        inside = _typed(inner[1], key)
        kinds: dict[KeyForm, KeyForm] = {"section": "named", "value": "mapping"}
        form = kinds.get(inside.form, "special")
        return replace(inside, form=form, read_name=_typed(inner[0], key).read)
    if origin is Literal:
        return replace(key, form="value", read=OneOf(kind=key.name.removesuffix("s"), allowed=tuple(inner)))
    if is_dataclass(hint):
        return replace(key, form="section", kind=hint)
    return replace(key, form="value", read=_YES_OR_NO if hint is bool else None)


def _marked(mark: object, key: Key) -> Key:
    """Complete a key from a mark of its annotation."""
    if isinstance(mark, Reader | OneOf):
        return replace(key, read=mark)
    if isinstance(mark, Tunable):
        tuned = mark.read or key.read
        assert isinstance(tuned, Reader), f"'{key.field}' is tuned, but has no reader of values to try"
        return replace(key, tuned=tuned, form="none" if key.read is None else key.form)
    if isinstance(mark, At):
        return replace(key, name=mark.name, form=key.form if mark.name else "inline")
    return replace(key, rising=mark is RISING)
