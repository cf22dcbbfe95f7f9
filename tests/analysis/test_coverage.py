"""Nine in ten intervals hold the truth: a small version of ``benchmarks/coverage.py``."""

import pytest

from tests.analysis.made_up_coverage import NAMES, Repeat, repeat, share


@pytest.fixture(scope="module")
def repeats() -> list[Repeat]:
    return [repeat(number, draws=300) for number in range(50)]


@pytest.mark.parametrize("name", NAMES)
def test_the_intervals_hold_what_they_say(name: str, repeats: list[Repeat]) -> None:
    held, given = share(one.held[name] for one in repeats)
    # Of 50 intervals that hold the truth in nine of ten, fewer than 40 do so in one study of fifty.
    assert 0.8 <= held <= 1.0
    assert given >= 40


def test_laws_are_found_where_they_were_made_and_rarely_in_noise(repeats: list[Repeat]) -> None:
    assert all(one.found for one in repeats)
    # Of 50 curves of noise that pass with a chance of one in twenty, more than six do in one study of fifty.
    assert sum(one.invented for one in repeats) <= 6


def test_a_repeat_is_the_same_each_time() -> None:
    assert repeat(3, draws=50) == repeat(3, draws=50)
