"""Pairs of the embedded pool: deterministic, with the declared mix and a small vocabulary."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from runners.embedded.bank import load_bank
from runners.embedded.embedded_pool import TrainingPairs
from runners.embedded.pair import (
    SHARES,
    STREAMS,
    TINTS,
    Pair,
    evaluation_image,
    generator,
    retrieval_pair,
    training_pair,
)

pytestmark = pytest.mark.slow

BANK = load_bank()
MANY = 6000


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return list(TrainingPairs(seed=11, count=MANY))


def test_pair_does_not_depend_on_earlier_pairs(pairs: list[Pair]) -> None:
    for index in (4999, 0, 17):
        alone = training_pair(11, index, bank=BANK)
        assert np.array_equal(alone.image, pairs[index].image)
        assert alone.caption == pairs[index].caption


def test_seeds_and_places_give_different_scenes(pairs: list[Pair]) -> None:
    assert len({pair.image.tobytes() for pair in pairs}) == MANY
    other = training_pair(12, 0, bank=BANK)
    assert not np.array_equal(other.image, pairs[0].image)


def test_streams_share_no_random_numbers_at_the_same_seed_and_place() -> None:
    draws = [generator(stream, 5, 7).random(4).tobytes() for stream in STREAMS]
    assert len(set(draws)) == len(STREAMS)


def test_caption_kinds_come_in_the_declared_shares(pairs: list[Pair]) -> None:
    counts = Counter(pair.kind for pair in pairs)
    assert sum(SHARES.values()) == pytest.approx(1)
    for kind, share in SHARES.items():
        sd = (share * (1 - share) / MANY) ** 0.5
        assert counts[kind] / MANY == pytest.approx(share, abs=4 * sd)


def test_a_fifth_of_the_scenes_shows_two_different_things(pairs: list[Pair]) -> None:
    two = [pair.things for pair in pairs if len(pair.things) == 2]
    assert len(two) / MANY == pytest.approx(0.2, abs=0.025)
    assert all(first != second for first, second in two)


def test_captions_for_retrieval_name_all_things_and_the_tint() -> None:
    for index in range(300):
        pair = retrieval_pair(0, index, bank=BANK)
        assert all(BANK[thing].name in pair.caption for thing in pair.things)
        assert pair.tint in pair.caption.split()


def test_a_caption_says_what_its_kind_promises(pairs: list[Pair]) -> None:
    def says(pair: Pair, things: Iterable[int]) -> list[bool]:
        return [f" {BANK[thing].name} " in f" {pair.caption} " for thing in things]

    for pair in pairs:
        first, words = BANK[pair.things[0]], set(pair.caption.split())
        match pair.kind:
            case "full":
                assert all(says(pair, pair.things))
                assert words & set(TINTS) <= {pair.tint}
            case "medium":
                assert words & set(first.tags)
            case "vague":
                assert first.category in words
            case "near-miss":
                assert any(says(pair, first.related))
                assert words & set(TINTS) <= {pair.tint}
            case "swapped":
                assert not any(says(pair, pair.things))


def test_without_noise_captions_are_true_in_their_shares_and_scenes_are_others() -> None:
    clean = TrainingPairs(seed=11, count=2000, noise="none")
    counts = Counter(pair.kind for pair in clean)
    assert set(counts) == {"full", "medium", "vague"}
    assert counts["full"] / 2000 == pytest.approx(0.39 / 0.71, abs=0.045)
    assert not np.array_equal(clean[0].image, TrainingPairs(seed=11, count=50)[0].image)


def test_captions_are_lower_case_and_leave_room_for_the_end_in_16_tokens(pairs: list[Pair]) -> None:
    longest = max(len(concept.name.split()) for concept in BANK)
    assert longest == 3
    for pair in pairs:
        assert pair.caption == pair.caption.lower()
        assert len(pair.caption.split()) <= 15
    words = {word for pair in pairs for word in pair.caption.split()}
    assert 300 < len(words) < 500


def test_images_are_32_pixels_square_and_show_their_tint_in_the_corners(pairs: list[Pair]) -> None:
    assert {pair.image.shape for pair in pairs} == {(32, 32, 3)}
    assert {pair.image.dtype for pair in pairs} == {np.dtype(np.uint8)}
    for tint, colour in TINTS.items():
        corners = [pair.image[[0, 0, -1, -1], [0, -1, 0, -1]] for pair in pairs if pair.tint == tint]
        assert np.abs(np.mean(corners, axis=(0, 1)) - colour).max() < 25


@pytest.mark.parametrize("stream", ["held-out", "seen", "style", "validation"])
def test_evaluation_images_take_the_classes_in_turn(stream: str) -> None:
    labels = [evaluation_image(stream, 0, index, bank=BANK)[1] for index in (0, 1, 99, 100, 1999)]
    assert labels == [0, 1, 99, 0, 99]


def test_negative_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        training_pair(-1, 0, bank=BANK)
