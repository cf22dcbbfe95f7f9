"""Nine in ten intervals hold the truth: a small version of ``benchmarks/coverage.py``."""

import pytest

from tests.analysis.made_up_coverage import Repeat, repeat, share


@pytest.fixture(scope="module")
def repeats() -> list[Repeat]:
    return [repeat(number, draws=300) for number in range(50)]


@pytest.mark.parametrize("name", ["exponent", "crossover", "optimum", "surface_exponent", "surface_optimum"])
def test_the_intervals_hold_what_they_say(name: str, repeats: list[Repeat]) -> None:
    held, given = share(getattr(one, name) for one in repeats)
    # Of 50 intervals that hold the truth in nine of ten, fewer than 40 do so in one study of fifty.
    assert 0.8 <= held <= 1.0
    assert given >= 40


def test_a_repeat_is_the_same_each_time() -> None:
    assert repeat(3, draws=50) == repeat(3, draws=50)
