"""Generator of docs/declaration.md, docs/dev/source-map.md and docs/results.md.

Run it with ``python -m docs.build.reference``. The page of the declaration shows its JSON schema
(`study schema`), which comes from the data classes (`budgets/declaration`): a class's docstring is above its
table, a field's docstring in its row.
"""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from budgets.cost.architecture import catalogue, load_architecture
from budgets.cost.strategy import strategies
from budgets.declaration import values
from budgets.declaration.keys import mapping_of
from budgets.declaration.recipe import PRESETS, Recipe
from budgets.declaration.sections import TUNED_FIELDS
from budgets.declaration.value_forms import Schema
from budgets.quantity import format_share
from docs.build import result_columns
from docs.build import source_map as house
from study.declare.schema import declaration_schema

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "declaration.md"
_INTRODUCTION = """
# The declaration

Every key of a study's YAML file. `python -m study new NAME` writes a short one to start from;
`python -m study plan FILE` checks one and shows what it asks for. An unknown key, a value that is not allowed
and keys that contradict each other are errors with file, line and the nearest valid name, all at once. Errors
that need the pools, evaluation sets or metrics are found once none of these is left.
This page is written by `python -m docs.build.reference` from the data classes; a test holds it to them.

Numbers are written as people do: `10M` or `1_000_000` pairs; `1e18`, `900 GFLOP`, `2 EFLOP` or
`3 gpu-days of h100 at 40%` of compute; `10%` or `0.1` for a share; `30 s`, `2 min` or `1.5 h`. A single value
is read as a list of one. The default `–` means none.
"""


def reference() -> str:
    """Return the whole page."""
    parts = [_INTRODUCTION]
    for path, schema in sections("", declaration_schema()):
        about = schema.get("$comment", "").replace("``", "`") if path else ""
        lines = [
            f"| `{name}` | {key['description']} | {key['takes']} | {_default(schema, name, key)} |"
            for name, key in rows(path, schema)
        ]
        table = "\n".join(["| key | meaning | values | default |", "|---|---|---|---|", *lines])
        heading = f"## `{path.removesuffix('[]')}`" if path else "## The file"
        parts.append("\n\n".join(filter(None, [heading, about, table])))
    parts += [_presets(), _strategies(), _architectures()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def rows(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield the keys of a section with their full names, and those that stand beside a user's own names."""
    for name, key in mapping_of(schema)["properties"].items():
        at = f"{path}.{name}".lstrip(".")
        yield at, key
        if isinstance(key.get("additionalProperties"), dict):
            yield from ((f"{at}.{inner}", beside) for inner, beside in key.get("properties", {}).items())


def sections(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield each section of a schema with its path, such as ``grid[]`` or ``evaluation.NAME``."""
    yield path, schema
    for name, key in mapping_of(schema)["properties"].items():
        at, inside = f"{path}.{name}".lstrip("."), key
        for place in ("NAME", "POOL"):
            if isinstance(named := inside.get("additionalProperties"), dict):
                at, inside = f"{at}.{place}", named
        at, inside = (f"{at}[]", key["items"]) if "items" in key else (at, inside)
        if "$comment" in inside and name != "pools":  # each is as `pool`
            yield from sections(at, inside)


def _default(schema: Schema, name: str, key: Schema) -> str:
    """Return a default as it would be declared."""
    whole, name = mapping_of(schema), name.rpartition(".")[2]
    if name in whole.get("required", ()):
        return "required"
    if "default" not in key:
        return "–"
    if key["takes"] == values.memory.takes:
        return f"`{key['default'] / 2**30:g} GiB`"
    several = key["default"] if isinstance(key["default"], list) else [key["default"]]
    shown = ", ".join(f"{value:g}" if type(value) in {int, float} else str(value) for value in several)
    unit = " s" * (key["takes"] == values.seconds.takes)
    return f"`{shown.replace('True', 'true').replace('False', 'false')}{unit}`"


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
        settings |= {} if preset.lr_rule == "none" else {"lr_rule": preset.lr_rule}
        listed = ", ".join(f"{key} {_written(value)}" for key, value in settings.items())
        lines.append(f"- `{name}`: {listed}")
    tuned = ", ".join(f"`{name}`" for name in TUNED_FIELDS)
    return "\n".join(["## Presets", "", *lines, "", f"`tuning.fields` takes {tuned}."])


def _written(value: object) -> str:
    """Return a preset's value as YAML has it; None is the tail that is each strategy's own."""
    if isinstance(value, bool) or value is None:
        return "strategy" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _strategies() -> str:
    rows = [
        f"| `{strategy.name}` | {strategy.label} | {strategy.image_views} "
        f"| {format_share(strategy.image_fraction)} | {format_share(strategy.kept_fraction)} "
        f"| {format_share(strategy.text_fraction)} | ×{strategy.batch_factor} | {strategy.paper} |"
        for strategy in strategies().values()
    ]
    header = [
        "| strategy | called | image views | image side | image tokens | text tokens | batch | source |",
        "|---" * 8 + "|",
    ]
    return "\n".join(["## Strategies", "", *header, *rows])


def _architectures() -> str:
    inputs: dict[tuple[int, int, int], list[str]] = {}
    for name in catalogue():
        costs = load_architecture(name).costs
        sizes = costs.image_size, costs.context_length, costs.vocab_size
        inputs.setdefault(sizes, []).append(f"`{name}`")
    rows = [
        f"| {', '.join(names)} | {side} × {side} | {tokens} | {words:,} |"
        for (side, tokens, words), names in sorted(inputs.items())
    ]
    about = (
        "Those of `budgets/cost/catalogue/`; each JSON file (open_clip's model-config) in the folder that "
        "`catalogue:` names; also open_clip's own model configs, by their names. Torch counts those without "
        "a closed form or a shipped count. Images are resized and cropped to a model's pixels, and captions "
        "cut to its tokens. A vocabulary of 49,408 is CLIP's; a smaller one holds the pool's most frequent "
        "words."
    )
    header = "| architectures | pixels | tokens | vocabulary |\n" + "|---" * 4 + "|"
    return "\n".join(["## Architectures", "", about, "", header, *rows])


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    house.PAGE.write_text(house.house_map(), encoding="utf-8")
    result_columns.PAGE.write_text(result_columns.columns_page(), encoding="utf-8")
