"""Generator of docs/declaration.md, the template's last part, docs/dev/source-map.md and docs/results.md.

Run it with ``python -m docs.build.reference``. Keys, values, defaults and descriptions come from the data
classes (`budgets/declaration`): a class's docstring is above its table, a field's docstring in its row.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from inspect import cleandoc, getdoc, getsource
from itertools import pairwise
from pathlib import Path
from typing import Any

from budgets.cost.architecture import catalogue, load_architecture
from budgets.cost.model_config import complete_config
from budgets.cost.strategy import STRATEGIES, Strategy
from budgets.declaration import values
from budgets.declaration.declaration import Declaration
from budgets.declaration.keys import Key, keys, tunable
from budgets.declaration.recipe import PRESETS, Recipe
from budgets.declaration.sections import Training
from docs.build import result_columns
from docs.build import source_map as house

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "declaration.md"
TEMPLATE = ROOT / "study" / "declare" / "template.yaml"
_MARK = "# Every other key, with its default"
_INTRODUCTION = """
# The declaration

Every key of a study's YAML file. `python -m study new NAME` writes a commented file to start from;
`python -m study plan FILE` checks one and shows what it asks for. An unknown key, a value that is not allowed
and keys that contradict each other are errors with file, line and the nearest valid name, all at once. Errors
that need the pools, evaluation sets or metrics are found once none of these is left.
This page is written by `python -m docs.build.reference` from the data classes; a test holds it to them.

Numbers are written as people do: `10M` or `1_000_000` pairs; `1e18`, `900 GFLOP`, `2 EFLOP` or
`3 gpu-days of h100 at 40%` of compute; `10%` or `0.1` for a share; `30 s`, `2 min` or `1.5 h`. A single value
is read as a list of one. The default `–` means none.
"""


def reference() -> str:
    """Return the whole page.

    Raises:
        ValueError: A field has no docstring.
    """
    parts = [_INTRODUCTION]
    for path, kind, rows in sections():
        text = "" if kind in {Declaration, None} else (getdoc(kind) or "").replace("``", "`")
        lines = [f"| `{row.name}` | {words(row)} | {_takes(row.key)} | {_default(row)} |" for row in rows]
        table = "\n".join(["| key | meaning | values | default |", "|---|---|---|---|", *lines])
        heading = f"## `{path.removesuffix('[]')}`" if path else "## The file"
        parts.append("\n\n".join(filter(None, [heading, text, table])))
    parts += [_presets(), _strategies(), _architectures()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A key with its full name, and the class whose field it is."""

    name: str
    kind: Any
    key: Key
    optional: bool = False


def sections(path: str = "", kind: Any = Declaration) -> Iterator[tuple[str, Any, list[Row]]]:  # noqa: ANN401
    """Yield each section: path, class (None for a choice between classes) and rows."""
    rows = list(_rows(path, kind))
    yield path, kind, rows
    for row in rows:
        if row.key.form == "choice":
            yield row.name, None, [each for option in row.key.options for each in _options(row.name, option)]
            for option in row.key.options:
                if option.form == "section":
                    yield from sections(f"{row.name}.{option.name}", option.kind)
        elif row.key.kind is not None:
            inside = {
                "sections": f"{row.name}[]",
                "named": f"{row.name}.NAME",
                "special": f"{row.name}.NAME.POOL",
            }.get(row.key.form, row.name)
            yield from sections(inside, row.key.kind)


def _rows(path: str, kind: type) -> Iterator[Row]:
    for key in keys(kind):
        if key.form == "inline":
            yield from _rows(path, key.kind)
        else:
            yield Row(name=f"{path}.{key.name}".strip("."), kind=kind, key=key)


def _options(path: str, option: Key) -> Iterator[Row]:
    if option.form == "section":
        yield Row(name=f"{path}.{option.name}", kind=option.kind, key=option, optional=True)
    else:
        yield from (replace(row, optional=True) for row in _rows(path, option.kind))


def words(row: Row) -> str:
    """Return a field's docstring, or the class's for a section that is one of several kinds.

    Raises:
        ValueError: The field has no docstring.
    """
    if row.key.kind is row.kind:
        return _markdown((getdoc(row.kind) or "").partition("\n\n")[0])
    for kind in row.kind.__mro__[:-1]:  # without `object`
        body = ast.parse(cleandoc(getsource(kind))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in pairwise(body.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=row.key.field)), ast.Expr(
                    ast.Constant(value=str(text))
                ):
                    return _markdown(text)
    raise ValueError(f"{row.kind.__name__}.{row.key.field} has no docstring; write one below the field")


def _markdown(text: str) -> str:
    """Return a docstring on one line, without Python values such as ``(None)`` that YAML does not use."""
    text = re.sub(r" \((None|0)\)", "", " ".join(text.split()))
    return text.replace("``", "`").replace("|", "\\|").rstrip(".")


def _takes(key: Key) -> str:
    read = key.read.takes if key.read is not None else "a section"
    first = keys(key.kind)[0].name if key.form == "named" else ""
    return {
        "list": f"a list: {read}",
        "range": f"one value, or the lowest and the highest: {read}",
        "mapping": f"names, each with {read}",
        "special": f"names, each with {_inside(key)}",
        "named": f"names, each with a section, or only its `{first}`",
        "sections": "a list of sections",
    }.get(key.form, read)


def _inside(key: Key) -> str:
    """Return what each name of a field with a reader of its own has."""
    if key.options:
        return "a section like `pool`, or only its `path`"
    return f"pools, each with a section, or only its `{keys(key.kind)[0].name}`" if key.kind else "a list"


def _default(row: Row) -> str:
    key = row.key
    if key.default is MISSING:
        return "–" if row.optional and key.kind else "required of its kind" if row.optional else "required"
    if key.kind is not None:
        return "as below" if isinstance(key.default, key.kind) else "–"
    shown = _shown(key)
    return f"`{shown}`" if shown else "–"


def _shown(key: Key) -> str:
    """Return a default as it would be declared; empty if there is none."""
    if key.read is values.memory:
        return f"{key.default / 2**30:g} GiB"
    several = key.default if isinstance(key.default, tuple) else (key.default,)
    written = several if key.read is None else [key.read.write(each) for each in several]
    texts = [
        f"{each:g}" if type(each) in {int, float} else str(each) for each in written if each not in (None, {})
    ]
    return ", ".join(texts).replace("True", "true").replace("False", "false") + " s" * (
        key.read is values.seconds
    )


def template() -> str:
    """Return the template, ending with every key that it does not mention, with default and description."""
    text = TEMPLATE.read_text(encoding="utf-8").partition(_MARK)[0]
    lines = [f"{_MARK}; docs/declaration.md says which values each takes:"]
    for _, _, rows in sections():
        for row in rows:
            key = row.key
            if key.kind or key.default is MISSING or f"{key.name}:" in text:
                continue
            said = re.sub(r" \(\[.*?\]\(.*?\)\)", "", re.split(r"(?<! al)\. |; ", words(row))[0])
            head = f"#   {row.name}: {_shown(key) or '–'}"
            lines += textwrap.wrap(
                said,
                120,
                initial_indent=f"{head:<41} ",
                subsequent_indent=f"#{'':<40} ",
                break_on_hyphens=False,
            )
    return text + "\n".join(lines) + "\n"


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
        said = ", ".join(f"{key} {_written(value)}" for key, value in settings.items())
        lines.append(f"- `{name}`: {said}")
    tuned = ", ".join(f"`{name}`" for name in tunable(Training))
    return "\n".join(["## Presets", "", *lines, "", f"`tuning.fields` takes {tuned}."])


def _written(value: object) -> str:
    """Return a preset's value as YAML has it; None is the tail that is each strategy's own."""
    if isinstance(value, bool) or value is None:
        return "strategy" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _strategies() -> str:
    rows = [
        f"| `{each.name}` | {each.image_views} | {each.image_fraction:.0%} | {each.kept_fraction:.0%} "
        f"| {each.text_fraction:.0%} | ×{each.batch_factor} | {_loss(each)} |"
        for each in STRATEGIES.values()
    ]
    header = [
        "| strategy | image views | image side | image tokens kept | text tokens kept | batch | loss |",
        "|---" * 7 + "|",
    ]
    return "\n".join(["## Strategies", "", *header, *rows])


def _loss(each: Strategy) -> str:
    return "CLIP + SimCLR" if each.self_supervised_head else "sigmoid" if each.sigmoid_loss else "CLIP"


def _architectures() -> str:
    inputs: dict[tuple[int, int, int], list[str]] = {}
    for name in catalogue():
        config = complete_config(load_architecture(name).config)
        sizes = config.vision["image_size"], config.text["context_length"], config.text["vocab_size"]
        inputs.setdefault(sizes, []).append(f"`{name}`")
    rows = [
        f"| {', '.join(names)} | {side} × {side} | {tokens} | {words:,} |"
        for (side, tokens, words), names in sorted(inputs.items())
    ]
    about = (
        "Those of `budgets/cost/catalogue/`; each JSON file (open_clip's model-config) in the folder that "
        "`catalogue:` names; also open_clip's own model configs, by their names. Torch counts those without "
        "a closed form. Images are resized and cropped to a model's pixels, and captions cut to its tokens. "
        "A vocabulary of 49,408 is CLIP's; a smaller one holds the pool's most frequent words."
    )
    header = "| architectures | pixels | tokens | vocabulary |\n" + "|---" * 4 + "|"
    return "\n".join(["## Architectures", "", about, "", header, *rows])


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    TEMPLATE.write_text(template(), encoding="utf-8")
    house.PAGE.write_text(house.house_map(), encoding="utf-8")
    result_columns.PAGE.write_text(result_columns.columns_page(), encoding="utf-8")
