"""Reads a section of a declaration into its data class, key by key, as the class's fields define."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, replace
from typing import Any, TypeVar

from budgets.declaration.keys import Key, OneOf, clashes, keys
from study.declare.yaml_reader import Section

T = TypeVar("T")
Special = Callable[["Walk", Section, Mapping[str, Any]], Any]
"""A reader for a key with its own rules; called with the section and the values of the fields before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """A reader of a declaration's sections.

    Attributes:
        names: Kind of name → the allowed names, for kinds that the data class does not list.
        special: Data class and field → the field's own reader.
    """

    names: Mapping[str, tuple[str, ...]]
    special: Mapping[tuple[type, str], Special]

    def read(self, section: Section, kind: type[T], defaults: T | None = None) -> T:
        """Read a section as its data class; ``defaults`` replace the class's defaults."""
        found: dict[str, Any] = {}
        for key in keys(kind):
            default = key.default if defaults is None else getattr(defaults, key.field)
            # A dotted key such as `evaluation.at` lies in another key's section, which must not read it as
            # one of the user's names.
            dotted_inside = [
                each.name.partition(".")[2] for each in keys(kind) if each.name.startswith(f"{key.name}.")
            ]
            special = self.special.get((kind, key.field))
            around, _, last = key.name.rpartition(".")
            place = section.section(around) if around else section
            if special is not None:
                found[key.field] = special(self, section, found)
            elif place is None:
                found[key.field] = default
            else:
                found[key.field] = self._value(place, replace(key, name=last, default=default), dotted_inside)
        value = kind(**found)
        for at, message in clashes(value, section.has):
            around = f"{section.name}{'.' if at else ' '}" if section.name else ""
            section.error(f"{around}{message}", at or None)
        return value

    def _value(self, section: Section, key: Key, dotted_inside: Sequence[str]) -> Any:  # noqa: ANN401, PLR0911 - of the field's type; one a form
        """Read the value of a key; ``dotted_inside``: keys of their own inside its section."""
        required = key.default is MISSING
        read, read_name = self._named(key.read), self._named(key.read_name)
        match key.form:
            case "value":
                return section.take(key.name, read, key.default)
            case "list":
                values = section.take_list(key.name, read, key.default)
                return tuple(sorted(values)) if key.rising else values
            case "range":
                return _range(section, key, section.take_list(key.name, read, key.default or ()))
            case "mapping":
                return section.take_mapping(key.name, read, read_name)
            case "inline":
                return self.read(section, key.kind, None if required else key.default)
            case "section":
                inner = section.section(key.name, required=required)
                return key.default if inner is None else self.read(inner, key.kind)
            case "sections":
                inside = section.sections(key.name, required=required)
                return tuple(self.read(each, key.kind) for each in inside)
            case "named":
                inner = section.section(key.name)
                names = () if inner is None else [name for name in inner.names() if name not in dotted_inside]
                return {name: each for name in names if (each := self.one(inner, name, key.kind)) is not None}
        raise TypeError(f"no reader for '{key.field}' of form {key.form}")

    def one(self, section: Section | None, name: str, kind: type[T]) -> T | None:
        """Read a named section; a single value is taken as the value of its first key."""
        assert section is not None
        inner = section.section(name) if section.is_section(name) else None
        if inner is not None:
            return self.read(inner, kind)
        first = keys(kind)[0]
        value = section.take(name, self._named(first.read))
        return None if value is None else kind(**{first.field: value})

    def _named(self, read: Callable[[str], Any] | None) -> Callable[[str], Any]:
        if isinstance(read, OneOf) and not read.allowed:
            return replace(read, allowed=self.names[read.kind])
        return read or str


def _range(section: Section, key: Key, values: tuple[Any, ...]) -> tuple[Any, Any] | None:
    """Return the lowest and the highest of one or two values, given in this order."""
    field = f"{section.name}.{key.name}"
    if len(values) > 2:  # noqa: PLR2004 - the ends of a range
        noun = getattr(key.read, "noun", "").removeprefix("a ")
        section.error(f"{field} is one {noun}, or the lowest and the highest", key.name)
    elif values and values[0] > values[-1]:
        section.error(f"{field}: the lowest comes first, found {values[0]:g} before {values[-1]:g}", key.name)
    return (min(values), max(values)) if values else None
