"""The sprite bank is complete, its splits are disjoint, and its authors are named."""

import numpy as np
import pytest

from runners.embedded.bank import BANK_FILE, HELD_OUT, STYLE, TRAINING, load_bank


def test_the_bank_has_a_hundred_concepts_with_three_renditions_to_train_on() -> None:
    bank = load_bank()
    assert len(bank) == 100
    assert len({concept.name for concept in bank}) == 100
    assert all(len(concept.training) == 3 for concept in bank)


def test_every_concept_has_tags_and_related_concepts_for_near_misses() -> None:
    bank = load_bank()
    for number, concept in enumerate(bank):
        assert len(concept.tags) >= 2
        assert concept.name not in concept.tags
        assert len(concept.related) >= 3
        assert number not in concept.related
        assert {bank[other].category for other in concept.related} == {concept.category}


@pytest.mark.slow
def test_held_out_and_style_drawings_differ_from_every_training_drawing() -> None:
    with np.load(BANK_FILE) as file:
        sprites, used_for = file["sprites"].astype(int), file["used_for"]
    training = sprites[used_for == TRAINING]
    for sprite in sprites[used_for != TRAINING]:
        assert np.abs(training - sprite).mean(axis=(1, 2, 3)).min() > 3


def test_every_sprite_is_drawn_and_premultiplied() -> None:
    with np.load(BANK_FILE) as file:
        sprites = file["sprites"]
    assert sprites.shape == (500, 40, 40, 4)
    covered = (sprites[..., 3] > 127).mean(axis=(1, 2))
    assert covered.min() > 0.1
    assert (sprites[..., :3] <= sprites[..., 3:]).all()


def test_the_maker_of_the_style_shift_is_in_no_other_use() -> None:
    with np.load(BANK_FILE) as file:
        maker, used_for = file["maker"], file["used_for"]
    assert set(maker[used_for == STYLE]) == {"twemoji"}
    assert "twemoji" not in maker[used_for != STYLE]
    # One maker's two sets are the same drawing, shaded and flat: neither can stand for an unseen one.
    assert set(maker[used_for == HELD_OUT]) == {"noto", "noto-v1"}


def test_the_bank_is_small_and_names_each_maker_with_a_licence() -> None:
    assert BANK_FILE.stat().st_size < 1_000_000
    attribution = (BANK_FILE.parent / "ATTRIBUTION.md").read_text(encoding="utf-8")
    with np.load(BANK_FILE) as file:
        makers = set(file["maker"])
    assert all(f"`{maker}`" in attribution for maker in makers)
    for licence in ("Apache License 2.0", "MIT License", "Creative Commons Attribution 4.0 International"):
        assert licence in attribution
    assert "Apache License" in (BANK_FILE.parent / "LICENSE-Apache-2.0.txt").read_text(encoding="utf-8")
