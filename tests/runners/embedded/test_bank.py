"""The sprite bank is complete, its splits are disjoint, and its authors are named."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from runners.embedded.bank import BANK_FILE, HELD_OUT, STYLE, TRAINING, load_bank


@pytest.fixture(scope="module")
def stored() -> Mapping[str, Any]:
    with np.load(BANK_FILE) as file:
        return dict(file)


def test_a_hundred_concepts_have_three_renditions_tags_and_related_ones_for_near_misses() -> None:
    bank = load_bank()
    assert len(bank) == len({concept.name for concept in bank}) == 100
    for number, concept in enumerate(bank):
        assert len(concept.training) == 3
        assert len(concept.tags) >= 2
        assert concept.name not in concept.tags
        assert len(concept.related) >= 3
        assert number not in concept.related
        assert {bank[other].category for other in concept.related} == {concept.category}


@pytest.mark.slow
def test_held_out_and_style_drawings_differ_from_every_training_drawing(stored: Mapping[str, Any]) -> None:
    sprites, used_for = stored["sprites"].astype(int), stored["used_for"]
    training = sprites[used_for == TRAINING]
    for sprite in sprites[used_for != TRAINING]:
        assert np.abs(training - sprite).mean(axis=(1, 2, 3)).min() > 3


def test_every_sprite_is_drawn_and_premultiplied(stored: Mapping[str, Any]) -> None:
    sprites = stored["sprites"]
    assert sprites.shape == (500, 40, 40, 4)
    assert (sprites[..., 3] > 127).mean(axis=(1, 2)).min() > 0.1
    assert (sprites[..., :3] <= sprites[..., 3:]).all()


def test_the_maker_of_the_style_shift_is_in_no_other_use(stored: Mapping[str, Any]) -> None:
    maker, used_for = stored["maker"], stored["used_for"]
    assert set(maker[used_for == STYLE]) == {"twemoji"}
    assert "twemoji" not in maker[used_for != STYLE]
    # One maker's two sets are the same drawing, shaded and flat: neither can stand for an unseen one.
    assert set(maker[used_for == HELD_OUT]) == {"noto", "noto-v1"}


def test_the_bank_is_small_and_names_each_maker_with_a_licence(stored: Mapping[str, Any]) -> None:
    assert BANK_FILE.stat().st_size < 1_000_000
    attribution = (BANK_FILE.parent / "ATTRIBUTION.md").read_text(encoding="utf-8")
    licences = {"Apache License 2.0", "MIT License", "Creative Commons Attribution 4.0 International"}
    assert all(word in attribution for word in licences | {f"`{maker}`" for maker in stored["maker"]})
    assert "Apache License" in (BANK_FILE.parent / "LICENSE-Apache-2.0.txt").read_text(encoding="utf-8")
