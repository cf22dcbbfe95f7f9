"""docs/declaration.md is what the loader and the data classes say, no key more and none less."""

from collections.abc import Iterator

import pytest

from docs.build import reference_keys
from docs.build import source_map as house
from docs.build.reference import PAGE, reference
from docs.build.reference_keys import keys
from docs.build.reference_words import WORDS
from study.declare import load
from study.declare.yaml_reader import Section
from tests.study.declared import full


def test_the_reference_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run `python -m docs.build.reference`"


def test_the_map_has_every_file() -> None:
    assert house.PAGE.read_text(encoding="utf-8") == house.house_map(), "run `python -m docs.build.reference`"


def test_a_key_that_the_loader_takes_and_nobody_explains_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    read = load.read_declaration

    def with_another(root: Section) -> object:
        root.take("colour", str, "red")
        return read(root)

    monkeypatch.setattr(load, "read_declaration", with_another)
    with pytest.raises(
        ValueError, match=r"'colour' has no field .* and no line in docs\.build\.reference_words"
    ):
        reference()


def test_a_section_that_no_example_has_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_keys, "EXAMPLES", ("{grid: [{}]}",))
    with pytest.raises(ValueError, match=r"no example of docs\.build\.reference_keys has the section"):
        reference()


def test_the_examples_of_values_are_read() -> None:
    for read, (_, examples) in WORDS.items():
        for example in examples:
            assert read(example) is not None


def test_it_has_every_key_of_a_declaration_that_has_every_key() -> None:
    assert {path for path in paths("", full()) if not path.startswith("tuning.fields.")} <= set(keys())


def paths(prefix: str, content: object) -> Iterator[str]:
    """Every key, at any depth, but for names that the user chose."""
    for entry in content if isinstance(content, list) else []:
        if isinstance(entry, dict):
            yield from paths(f"{prefix}[]", entry)
    for name, value in content.items() if isinstance(content, dict) else []:
        path = f"{prefix}.{'NAME' if prefix == 'evaluation' else name}".lstrip(".")
        yield path
        if path != "training.lr_peak":
            yield from paths(path, value)
