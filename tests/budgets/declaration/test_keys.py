"""Keys of a declaration from the types and annotations of data classes."""

from dataclasses import fields

import pytest

from budgets.declaration import values
from budgets.declaration.data_sections import DeclaredSet
from budgets.declaration.declaration import Declaration
from budgets.declaration.keys import Section, clashes, keys
from budgets.declaration.recipe import Recipe
from budgets.declaration.sections import TUNED_FIELDS, Budget, Design, GridBlock, Resources, Training
from budgets.declaration.value_forms import Named, OneOf, Reader, Several
from budgets.quantity import parse_number
from tests.budgets.plans import declare


def test_a_reader_says_and_checks_its_bounds() -> None:
    read = Reader(parse=parse_number, noun="a number", examples=("2",), at_least=1.01, at_most=10**6)

    assert read("1.01") == 1.01
    assert read.takes == "a number, 1.01 or more, at most 1,000,000: `2`"
    with pytest.raises(ValueError, match=r"'1\.0' must be 1\.01 or more, at most 1,000,000"):
        read("1.0")
    with pytest.raises(ValueError, match=r"'1e7' must be"):
        read("1e7")
    with pytest.raises(ValueError, match=r"'1' must be 0 or more, below 1"):
        values.share_below_one("1")
    with pytest.raises(ValueError, match=r"'0%' must be more than 0, at most 1"):
        values.positive_share("0%")


def test_a_word_is_read_as_its_value_and_the_value_written_as_the_word() -> None:
    assert (values.norm_or_off("off"), values.decay_or_off("off"), values.pairs_or_all("all")) == (
        None,
        0.0,
        None,
    )
    assert values.norm_or_off.write(None) == "off"
    assert values.decay_or_off.write(0.0) == "off"
    assert values.decay_or_off.write(0.999) == 0.999
    assert values.pairs_or_all.takes == "a number of pairs, more than 0: `10M`; or `all`"


def test_a_fields_type_says_the_form_of_its_key() -> None:
    forms = {key.name: type(key.form) for kind in (Declaration, Training) for key in keys(kind)}

    assert {name: forms[name] for name in ("study", "pool", "evaluation", "budget", "grid")} == {
        "study": Reader, "pool": Section, "evaluation": Named, "budget": Section, "grid": Several
    }  # fmt: skip
    assert (forms["lr_peak"], forms["preset"]) == (Named, OneOf)


def test_the_unit_of_a_field_is_not_part_of_its_key() -> None:
    assert {key.field: key.name for key in keys(Resources)}["backoff_s"] == "backoff"
    assert {key.field: key.name for key in keys(Budget)}["study_flops"] == "study"
    assert {key.field: key.name for key in keys(Declaration)}["name"] == "study"


def test_tuned_numbers_are_fields_of_the_training_and_have_no_words() -> None:
    assert set(TUNED_FIELDS) <= {field.name for kind in (Training, Recipe) for field in fields(kind)}
    with pytest.raises(ValueError, match="'off' is not a number"):
        values.norm("off")
    assert "warmup_samples" not in {key.name for key in keys(Recipe)}


def test_contradicting_keys_are_reported_without_a_file() -> None:
    def of(value: object, *given: str) -> dict[str, str]:
        return dict(clashes(value, given.__contains__))

    assert of(Recipe(), "cooldown") == {
        "cooldown": "cooldown needs schedule: constant-with-cooldown or trunk, found cosine"
    }
    assert of(Recipe(schedule="constant-with-cooldown"), "cooldown", "eps") == {}
    assert of(Recipe(schedule="trunk")) == {
        "warmup": "warmup must be in samples with schedule: trunk, such as warmup: 10k samples"
    }
    assert of(Design(best=(7,)), "best") == {"best": "best needs adaptive"}
    assert set(of(Budget(levels=(1,)), "levels", "ladder", "fit")) == {"ladder", "fit"}
    assert of(Resources(nodes=2, cpus=2, ranks=3)) == {
        "ranks": "ranks = 3 can't be spread evenly over resources.nodes = 2"
    }
    assert set(of(DeclaredSet(probe=True), "probe", "images")) == {"path", "images"}
    block = GridBlock(architectures=("RN50",), levels=(7,))
    assert of(declare(block, levels=(10**9,)))["grid[1].levels"].endswith("(1 GFLOP); 7 FLOP is not")
