"""A declaration as YAML with every default; `load` reads it back as the same declaration."""

from typing import Any

import yaml

from budgets.declaration.declaration import Declaration
from budgets.declaration.keys import Key, clashes, keys
from budgets.declaration.recipe import Recipe
from budgets.names import without_secrets


def dump_declaration(declaration: Declaration) -> str:
    """Return the resolved declaration as the YAML that would declare it, without the storage's password."""
    content = plain(declaration)
    if declaration.storage is not None:
        content["storage"] = without_secrets(declaration.storage)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def plain(value: object) -> dict[str, Any]:
    """Return a data class as a section with every default, but without keys that contradict others."""
    content: dict[str, Any] = {}
    for key in keys(type(value)):
        found = _plain(key, getattr(value, key.field))
        if key.form == "inline":
            content |= found
        elif found not in ({}, [], None):
            *around, name = key.name.split(".")
            inside = content.setdefault(around[0], {}) if around else content
            inside[name] = found
    if isinstance(value, Recipe) and value.warmup_samples is not None:
        content["warmup"] = f"{value.warmup_samples} samples"
    for name, _ in list(clashes(value, content.__contains__)):
        content.pop(name, None)
    return content


def _plain(key: Key, value: Any) -> Any:  # noqa: ANN401, PLR0911 - of the field's type; one a form
    if value is None and (key.read is None or key.read.write(None) is None):
        return None
    match key.form:
        case "choice":
            return _chosen(key, value)
        case "section" | "inline":
            return plain(value)
        case "sections":
            return [plain(each) for each in value]
        case "named":
            return {name: plain(each) for name, each in value.items()}
        case "list" | "range":
            assert key.read is not None
            return [key.read.write(each) for each in value]
        case "special":
            return {name: _special(key, each) for name, each in value.items()}
        case "mapping":
            return dict(value)
    return value if key.read is None else key.read.write(value)


def _special(key: Key, value: Any) -> Any:  # noqa: ANN401 - of the field's type
    """Return one value of a field with a reader of its own."""
    if key.options:
        return _chosen(key, value)
    return {name: plain(each) for name, each in value.items()} if key.kind else list(value)


def _chosen(key: Key, value: object) -> dict[str, Any]:
    (option,) = [each for each in key.options if each.kind is type(value)]
    return plain(value) if option.form == "inline" else {option.name: plain(value)}
