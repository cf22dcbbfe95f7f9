"""Writes docs/declaration.md, and docs/dev/source-map.md beside it: ``python -m docs.build.reference``.

Which keys there are and how each is read is heard from the loader (`docs.build.reference_keys`); what a key
means and what it is by default is said by the data classes that it ends up in.
"""

import re
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from inspect import getdoc
from pathlib import Path
from typing import Any

from budgets.cost.architecture import catalogue
from budgets.cost.strategy import STRATEGIES, Strategy
from budgets.quantity import parse_seconds
from budgets.recipe import PRESETS, Recipe
from docs.build import source_map as house
from docs.build.reference_keys import Key, keys
from docs.build.reference_words import CLASSES, DEFAULTS, FIELD_OF, HEADINGS, INTRODUCTION, MEANINGS, WORDS
from study.declare.load_tuning import FIELDS
from study.declare.values import OrOff, size
from study.declare.yaml_reader import OneOf

PAGE = Path(__file__).resolve().parents[1] / "declaration.md"


def reference() -> str:
    """Gives the whole page.

    Raises:
        ValueError: A key is said nothing about, or its reader is not described.
    """
    found = keys()
    parts = [INTRODUCTION]
    for prefix, (heading, text) in HEADINGS.items():
        inside = [key for path, key in found.items() if path.rpartition(".")[0] == prefix]
        rows = [f"| `{key.path}` | {_meaning(key)} | {_allowed(key)} | {_default(key)} |" for key in inside]
        table = "\n".join(["| key | what it is | values | default |", "|---|---|---|---|", *rows])
        parts.append("\n\n".join(each for each in (f"## {heading}", text, table) if each))
    told = {path for path in found if path.rpartition(".")[0] in HEADINGS}
    if told != set(found):
        raise ValueError(f"under no heading of docs.build.reference_words: {', '.join(set(found) - told)}")
    parts += [_presets(), _strategies(), _architectures()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _meaning(key: Key) -> str:
    if key.path in MEANINGS:
        return MEANINGS[key.path]
    _, text = _attribute(key)
    none = "`off`" if isinstance(key.read, OrOff) else "`all`" if key.read is size else ""
    text = text.replace(", or None for", "; by default").replace(", or None", "")
    text = text.replace("None stands for", f"{none} stands for" if none else "without it")
    return text.replace("None ", f"{none} ").replace("``", "`").replace("|", "\\|").rstrip(".")


def _attribute(key: Key) -> tuple["Field[Any]", str]:
    """The field that a key ends up in, and what its class says of it."""
    prefix, _, name = key.path.rpartition(".")
    name = FIELD_OF.get(key.path, name)
    for kind in CLASSES[prefix]:
        found = {each.name: each for each in fields(kind)}
        if name in found:
            return found[name], _said(kind)[name]
    raise ValueError(
        f"'{key.path}' has no field in {CLASSES[prefix]} and no line in docs.build.reference_words"
    )


def _said(kind: type) -> dict[str, str]:
    """Attribute → what a class's docstring says of it."""
    _, _, listed = (getdoc(kind) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in entries}


def _allowed(key: Key) -> str:
    if key.read is None:
        return "a list of sections" if key.form == "sections" else "a section"
    text = words_of(key.read)
    return {"list": f"a list: {text}", "mapping": f"names, each with {text}"}.get(key.form, text)


def words_of(read: Callable[[str], Any]) -> str:
    """Says what a reader takes.

    Raises:
        ValueError: Nothing is known of the reader.
    """
    if isinstance(read, OrOff):
        return f"{words_of(read.read)}; or `off`"
    if isinstance(read, OneOf):
        if read.kind == "architecture":
            return "[names](#architectures)"
        return ", ".join(f"`{name}`" for name in read.allowed)
    if read not in WORDS:
        raise ValueError(f"docs.build.reference_words.WORDS does not say what {read} takes")
    text, examples = WORDS[read]
    return text + (": " + ", ".join(f"`{example}`" for example in examples) if examples else "")


def _default(key: Key) -> str:
    if key.path in DEFAULTS:
        return DEFAULTS[key.path]
    if key.required:
        return "required"
    value = key.default
    if key.path not in MEANINGS:
        field, _ = _attribute(key)
        value = field.default if field.default is not MISSING else value
    return _text(key, value)


def _text(key: Key, value: object) -> str:
    if isinstance(key.read, OrOff) and not value:
        return "`off`"
    if isinstance(value, tuple):
        return ", ".join(_text(key, each) for each in value) or "–"
    if key.read is size and not value:
        return "`all`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{value:g}{' s' if key.read is parse_seconds else ''}`"
    return f"`{value}`" if value else "–"


def _presets() -> str:
    plain = Recipe()
    lines = []
    for name, preset in PRESETS.items():
        settings = {
            field.name: getattr(preset.recipe, field.name)
            for field in fields(Recipe)
            if getattr(preset.recipe, field.name) != getattr(plain, field.name)
        }
        settings |= {"batch_size": preset.batch_size}
        settings |= {} if preset.lr_peak is None else {"lr_peak": preset.lr_peak}
        said = ", ".join(
            f"{key} {value:g}" if key != "optimizer" else f"{key} {value}" for key, value in settings.items()
        )
        lines.append(f"- `{name}`: {said}")
    tuned = ", ".join(f"`{name}`" for name in FIELDS)
    return "\n".join(["## Presets", "", *lines, "", f"`tuning.fields` takes {tuned}."])


def _strategies() -> str:
    rows = [
        f"| `{each.name}` | {each.image_views} | {each.kept_fraction:.0%} | {each.text_fraction:.0%} "
        f"| ×{each.batch_factor} | {_loss(each)} |"
        for each in STRATEGIES.values()
    ]
    header = [
        "| strategy | image views | image tokens kept | text tokens kept | batch | loss |",
        "|---" * 6 + "|",
    ]
    return "\n".join(["## Strategies", "", *header, *rows])


def _loss(each: Strategy) -> str:
    return "CLIP + SimCLR" if each.self_supervised_head else "sigmoid" if each.sigmoid_loss else "CLIP"


def _architectures() -> str:
    names = ", ".join(f"`{name}`" for name in catalogue())
    return (
        "## Architectures\n\nThose of `budgets/catalogue/` and each JSON file (open_clip's model-config) "
        f"in the folder that `catalogue:` names:\n\n{names}"
    )


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    house.PAGE.write_text(house.house_map(), encoding="utf-8")
