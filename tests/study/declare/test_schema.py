"""The JSON schema takes what the loader takes, and refuses what an editor can know to be wrong."""

from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from study.declare import shipped_studies
from study.declare.schema import declaration_schema
from tests.study.declared import DECLARATIONS, changed

SCHEMA = Draft7Validator(declaration_schema())


def errors(text: str) -> list[str]:
    """Return the keys of a declaration that the schema refuses."""
    found = SCHEMA.iter_errors(yaml.safe_load(text))
    return [".".join(map(str, error.absolute_path)) for error in found]


def test_every_declaration_is_valid() -> None:
    Draft7Validator.check_schema(SCHEMA.schema)
    shipped = [path.read_text(encoding="utf-8") for path in shipped_studies().values()]
    for text in (*DECLARATIONS, *shipped):
        assert errors(text) == []
    for text in ("1000", "10k samples", "0.1", "10%"):
        assert errors(changed("warmup: 10%", f"warmup: {text}")) == []


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("fit: drop", "fitt: drop", "budget"),
        ("fit: drop", "fit: shrink", "budget.fit"),
        ("beta1: 0.9", "beta1: 1.5", "training.beta1"),
        ("eps: 1e-6", "eps: small", "training.eps"),
        ("study: full\n", "", ""),
        ("seeds: [0, 1]", "seeds: []", "seeds"),
        ("beta2: [0.95, 98%]", "beta3: [0.95, 98%]", "tuning.fields"),
        ("checkpoint: 2 min", "checkpoint: {a: b}", "resources"),
    ],
)
def test_a_mistake_that_an_editor_can_know_is_refused(old: str, new: str, place: str) -> None:
    assert errors(changed(old, new)) == [place]


def test_keys_names_and_defaults_are_there_to_be_completed() -> None:
    keys: dict[str, Any] = SCHEMA.schema["properties"]
    block = keys["grid"]["items"]["properties"]
    assert block["strategies"]["anyOf"][0]["anyOf"] == [{"$ref": "#/$defs/strategy"}]
    assert "siglip" in SCHEMA.schema["$defs"]["strategy"]["anyOf"][0]["enum"]
    assert keys["training"]["properties"]["schedule"]["default"] == "cosine"
    assert keys["evaluation"]["properties"]["at"]["description"].startswith("Shares of a trial's steps")
