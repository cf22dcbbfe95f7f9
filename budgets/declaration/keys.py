"""Keys of a declaration: the fields of its data classes, each with the form of its value.

A key is one field: ``name: Annotated[TYPE, READER] = DEFAULT``, with its description as a docstring below it.
`form_of` interprets the type; loading, dumping, warnings, the JSON schema and docs/declaration.md ask the
form that it returns. No reader is needed if the type says everything: ``bool``, a ``Literal``, a data class
(a section), a tuple of one (a list of sections), a dict of one; or one of these or None.

A section's class may have ``clashes(given)``, its contradictions; ``in_short``, what it takes in place of a
mapping; and ``defaults(top)``, an instance with the defaults where these depend on other keys.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import cache
from inspect import cleandoc, getdoc, getsource
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from budgets.declaration.marked_file import Node
from budgets.declaration.value_forms import YES_OR_NO, Form, Named, OneOf, Reader, Schema, Several

Given = Callable[[str], bool]
"""Returns whether a key was given in the file."""

Clashes = Iterator[tuple[str, str]]
"""Keys that contradict others, each with the error from the key on."""

NO_KEY = object()
"""Mark of a field that is no key of its own."""

A_VALUE, A_LIST = "a value", "a list"
"""In ``in_short``: any single value, or any list, is the value of the key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class At:
    """Mark of a field whose key has another name; if empty, its keys belong to the enclosing section."""

    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Section(Form):
    """A mapping with known keys, the fields of a data class."""

    is_section: ClassVar[bool] = True
    kind: Any

    @property
    def names(self) -> list[str]:
        """Its keys, with those of inline sections."""
        nested = ([key.name] if key.name else key.form.names for key in keys(self.kind))
        return [name for names in nested for name in names]

    def read(self, node: Node, instead: Any) -> Any:  # noqa: ANN401, ARG002 - of the class
        """Return an instance; beside a misspelt key, what seems to contradict it is not reported."""
        short = getattr(self.kind, "in_short", {})
        text = node.value if isinstance(node.value, str) else ""
        key, _, value = short.get(text, "").partition(": ")
        key = key or short.get(A_LIST if isinstance(node.value, list) else A_VALUE if text else "", "")
        if key:
            inside = replace(node, value=value or node.value, around=node, name="" if text else key)
            for item in inside.value if isinstance(inside.value, list) else ():
                item.around = inside
            node.value = {key: inside}
        if not isinstance(node.value, dict):
            node.must_be("a mapping (key: value)")
            node.value = {}
        for name in self.names:  # such as `evaluation.at`, which lies in another key's section
            around, _, last = name.rpartition(".")
            if around in node.value and last in node.value[around].inside:
                rest = dict(node.value[around].inside)
                node.value = {name: rest.pop(last), **node.value}
                node.value[around].value = rest
        node.check_keys(self.names)
        return self.build(node)

    def build(self, node: Node, instead: object = None) -> Any:  # noqa: ANN401 - of the class
        """Return an instance from a checked mapping; ``instead`` has the defaults, if not the class."""
        by_rule = getattr(self.kind, "defaults", None)
        instead = by_rule(node.file.top) if by_rule else instead
        arguments: dict[str, Any] = {}
        for key in keys(self.kind):
            default = key.default if instead is None else getattr(instead, key.field)
            inside = node.inside.get(key.name)
            if not key.name:
                arguments[key.field] = key.form.build(node, None if default is MISSING else default)
                continue
            if inside is None and default is MISSING:
                node.clash(key.name, f"{key.name} is missing")
            if inside is None and isinstance(key.form, Section) and default is not None:
                # What a missing section lacks is not reported beside it.
                unsaid = key.form.names if default is MISSING else ()
                empty = Node(value={}, file=node.file, line=node.line, meant=unsaid)
                arguments[key.field] = key.form.build(empty)
            else:
                default = key.form.empty if default is MISSING else default
                arguments[key.field] = default if inside is None else key.form.read(inside, default)
        value = self.kind(**arguments)
        for at, message in () if node.misspelt else clashes(value, node.given):
            node.clash(at, message)
        return value

    def write(self, value: Any) -> dict[str, Any] | None:  # noqa: ANN401 - of the class
        """Return a mapping with every default, but without keys that contradict others."""
        if value is None:
            return None
        content: dict[str, Any] = {}
        for key in keys(self.kind):
            written = key.form.write(getattr(value, key.field))
            if not key.name:
                content |= written
            elif written not in ({}, [], None):
                around, _, name = key.name.rpartition(".")
                (content.setdefault(around, {}) if around else content)[name] = written
        for name, _ in list(clashes(value, content.__contains__)):
            content.pop(name, None)
        return content

    def schema(self) -> Schema:
        """Return the schema of a mapping, with the class's docstring as a comment, and of its short forms."""
        inside: Schema = {}
        required: list[str] = []
        for key in keys(self.kind):
            schema = key.form.schema()
            around, _, name = key.name.rpartition(".")
            if not key.name:
                inside |= mapping_of(schema)["properties"]
                continue
            required += [name] if key.default is MISSING else []
            written = None if key.default is MISSING else key.form.write(key.default)
            plain = not isinstance(key.form, Section) and written not in (None, [], {})
            place = inside[around].setdefault("properties", {}) if around else inside
            place[name] = {**schema, "description": key.words, **({"default": written} if plain else {})}
        short = getattr(self.kind, "in_short", {})
        alone = [inside[key] for word, key in short.items() if word in {A_VALUE, A_LIST}]
        words = [word for word in short if word not in {A_VALUE, A_LIST}]
        alone += [{"enum": words}] if words else []
        whole = {"type": "object", "properties": inside, "required": required, "additionalProperties": False}
        first = f"a section, or only its `{short[A_VALUE]}`" if A_VALUE in short else "a section"
        told = {"takes": first, "$comment": getdoc(self.kind) or ""}
        return ({"anyOf": [whole, *alone]} if alone else whole) | told


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A key of a section, taken from a field of the section's data class.

    Attributes:
        name: The key in the file; empty if the keys of its section belong to the enclosing one.
        field: The field. A unit at its end (``_s``, ``_flops``) is not part of the key.
        kind: The data class.
        form: The form of its value.
        default: The default; `dataclasses.MISSING` if the key is required.
    """

    name: str
    field: str
    kind: Any
    form: Any
    default: Any

    @property
    def words(self) -> str:
        """The field's docstring, as Markdown.

        Raises:
            ValueError: There is none.
        """
        for kind in self.kind.__mro__[:-1]:  # without `object`
            body = ast.parse(cleandoc(getsource(kind))).body[0]
            assert isinstance(body, ast.ClassDef)
            for statement, below in pairwise(body.body):
                match statement, below:
                    case ast.AnnAssign(target=ast.Name(id=self.field)), ast.Expr(
                        ast.Constant(value=str(text))
                    ):
                        return plain_words(text)
        raise ValueError(f"{self.kind.__name__}.{self.field} has no docstring; write one below the field")


def plain_words(text: str) -> str:
    """Return a docstring on one line, without Python values such as ``(None)`` that YAML does not use."""
    return re.sub(r" \((None|0)\)", "", " ".join(text.split())).replace("``", "`").rstrip(".")


def keys(kind: type) -> tuple[Key, ...]:
    """Return the keys of a data class, in the order of its fields.

    Raises:
        TypeError: A field has no reader.
    """
    return _keys(kind)


@cache
def _keys(kind: Any) -> tuple[Key, ...]:  # noqa: ANN401 - mypy takes no `type` as hashable
    marked = ((field, getattr(field.type, "__metadata__", ())) for field in fields(kind))
    return tuple(_key(field, kind, marks) for field, marks in marked if NO_KEY not in marks)


def mapping_of(schema: Schema) -> Schema:
    """Return the schema of a section's mapping, without its short forms."""
    whole: Schema = schema.get("anyOf", [schema])[0]
    return whole


def unusual(value: object, around: str = "") -> Iterator[str]:
    """Yield a warning for each implausible number of a section and of the sections inside it."""
    for key in keys(type(value)):
        at, inside = f"{around}.{key.name}".strip("."), getattr(value, key.field)
        reader = key.form.item if isinstance(key.form, Named) else key.form
        named = (
            {f"{at}.{name}": entry for name, entry in inside.items()}
            if isinstance(inside, dict)
            else {at: inside}
        )
        if isinstance(inside, tuple):
            named = {f"{at}[{number}]": entry for number, entry in enumerate(inside, start=1)}
        for place, entry in named.items():
            if is_dataclass(entry):
                yield from unusual(entry, place)
            elif isinstance(reader, Reader) and reader.usual and isinstance(entry, int | float):
                low, high = reader.usual
                if not low <= entry <= high:
                    yield f"{place} = {entry:g} is unusual: {low:g} to {high:g} is common"


def clashes(value: object, given: Given) -> Clashes:
    """Yield each key of a section that contradicts another, with the error from the key on."""
    check = getattr(value, "clashes", None)
    yield from () if check is None else check(given)


def _key(field: "Field[Any]", kind: type, marks: tuple[object, ...]) -> Key:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    name = field.name.removesuffix("_s").removesuffix("_flops")
    name = next((mark.name for mark in marks if isinstance(mark, At)), name)
    return Key(name=name, field=field.name, kind=kind, form=form_of(field.type, name), default=default)


def form_of(hint: Any, name: str, marks: tuple[object, ...] = ()) -> Any:  # noqa: ANN401, PLR0911 - types
    """Return the form of a type with marks; of a ``Literal``, the key's name says what it lists.

    Raises:
        TypeError: A single value has no reader.
    """
    origin, inner = get_origin(hint), [argument for argument in get_args(hint) if argument is not NoneType]
    if origin is Annotated:
        return form_of(inner[0], name, hint.__metadata__)
    if form := next((mark for mark in marks if isinstance(mark, Form)), None):
        return form
    if origin in {Union, UnionType}:
        return form_of(inner[0], name, marks)
    if origin is tuple:
        return Several(item=form_of(inner[0], name), marks=marks)
    if origin is dict:
        return Named(name=None if inner[0] is str else form_of(inner[0], name), item=form_of(inner[1], name))
    if origin is Literal:
        return OneOf(kind=name.removesuffix("s"), allowed=tuple(inner))
    if is_dataclass(hint):
        return Section(kind=hint)
    if hint is bool:
        return YES_OR_NO
    raise TypeError(f"the field '{name}' has no reader; write Annotated[{hint}, READER]")
