"""Generated pages are up to date; docs/declaration.md lists exactly the keys of the data classes."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import yaml

from budgets.cost.architecture import catalogue
from budgets.declaration import values
from budgets.declaration.keys import Section, keys, mapping_of
from budgets.declaration.value_forms import OneOf, Reader
from docs.build import reference as page
from docs.build import result_columns as columns
from docs.build import source_map as house
from study.declare.schema import declaration_schema
from study.declare.yaml_reader import read_top
from tests.study.declared import DECLARATIONS


@dataclass(frozen=True, kw_only=True, slots=True)
class Pauses:
    """A section with an additional field."""

    pause_s: Annotated[float, values.seconds] = 60.0
    """Time between two trials; 0 starts them at once."""
    colour: Annotated[str, OneOf(kind="colour", allowed=("red", "green"))] = "red"
    """Colour of the lamp."""


@pytest.mark.parametrize(
    ("path", "made"),
    [(page.PAGE, page.reference), (house.PAGE, house.house_map), (columns.PAGE, columns.columns_page)],
)
def test_generated_pages_are_up_to_date(path: Path, made: Callable[[], str]) -> None:
    assert path.read_text(encoding="utf-8") == made(), "run `python -m docs.build.reference`"


def test_a_new_field_is_a_key_that_is_read_checked_written_and_explained(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("pause: 2 min\ncolour: gren\n")
    section, top = Section(kind=Pauses), read_top(path)
    found = section.read(top, None)

    assert found == Pauses(pause_s=120.0)
    with pytest.raises(ValueError, match=r"2: colour: unknown colour 'gren'; did you mean 'green'\?"):
        top.file.raise_any()
    assert section.write(found) == {"pause": 120.0, "colour": "red"}
    pause = mapping_of(section.schema())["properties"]["pause"]
    assert pause["description"] == "Time between two trials; 0 starts them at once"
    assert (pause["default"], pause["maximum"]) == (60.0, 365 * 86400)


@dataclass(frozen=True, kw_only=True, slots=True)
class Silent:
    colour: Annotated[str, OneOf(kind="colour", allowed=("red", "green"))] = "red"


def test_a_field_without_a_docstring_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Silent\.colour has no docstring; write one below the field"):
        Section(kind=Silent).schema()


def test_a_field_without_a_reader_is_an_error() -> None:
    @dataclass
    class Unread:
        colour: str = "red"

    with pytest.raises(TypeError, match="the field 'colour' has no reader; write Annotated"):
        keys(Unread)


def test_the_examples_of_values_are_read() -> None:
    readers = [each for each in vars(values).values() if isinstance(each, Reader)]
    assert len(readers) > 20
    for read in readers:
        for example in read.examples:
            assert read(example) is not None


def test_the_declarations_of_the_tests_have_every_key_of_the_reference() -> None:
    known = {name for each in page.sections("", declaration_schema()) for name, _ in page.rows(*each)}
    declared = {path for text in DECLARATIONS for path in paths("", yaml.safe_load(text))}
    assert declared - {"evaluation.NAME", "mixtures.NAME", "mixtures.NAME.POOL"} == known


NAMED = {"evaluation": "NAME", "mixtures": "NAME", "mixtures.NAME": "POOL"}
"""Section whose keys are names chosen by the user → the word for them in the reference."""
VALUES = {"pools", "resources.custom", "training.lr_peak", "tuning.fields"}
"""Mappings that are values: the reference lists none of their names."""


def paths(prefix: str, content: object) -> Iterator[str]:
    """Yield every key at any depth, without names chosen by the user."""
    for entry in content if isinstance(content, list) else []:
        if isinstance(entry, dict):
            yield from paths(f"{prefix}[]", entry)
    for key, value in content.items() if isinstance(content, dict) else []:
        name = key if f"{prefix}.{key}" in {"evaluation.at", "evaluation.trunk"} else NAMED.get(prefix, key)
        path = f"{prefix}.{name}".lstrip(".")
        yield path
        if path not in VALUES:
            yield from paths(path, value)


def test_the_inputs_of_each_architecture_stand_beside_its_name() -> None:
    lines = page.PAGE.read_text(encoding="utf-8").splitlines()
    (row,) = (line for line in lines if line.endswith("| 32 × 32 | 16 | 1,024 |"))
    assert re.findall("`(.*?)`", row) == [name for name in catalogue() if name.startswith("mini-")]
