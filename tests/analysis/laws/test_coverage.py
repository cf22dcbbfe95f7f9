"""Nine in ten intervals contain the true value: a small version of ``benchmarks/coverage.py``."""

from collections import defaultdict

import numpy as np
import pytest

from tests.analysis.made_up.coverage import NAMES, Held, ask, invented, surface
from tests.analysis.made_up.valleys import KINDS, Kind

pytestmark = pytest.mark.slow

STUDIES = 12


@pytest.fixture(scope="module")
def answers() -> dict[Kind, Held]:
    found: dict[Kind, Held] = {kind: defaultdict(list) for kind in KINDS}
    for kind in KINDS:
        for number in range(STUDIES):
            for name, held in ask(kind, number, draws=200).items():
                found[kind][name] += held
    return found


@pytest.mark.parametrize("name", NAMES)
def test_intervals_cover_the_truth_at_their_nominal_rate(name: str, answers: dict[Kind, Held]) -> None:
    # Intervals of one study are correlated, so a share over a dozen studies of each form is a rough one.
    held = [one for kind in KINDS for one in answers[kind][name]]
    assert len(held) >= 20
    assert np.mean(held) >= 0.82


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_is_named_or_among_the_tied(kind: Kind, answers: dict[Kind, Held]) -> None:
    assert np.mean(answers[kind]["right or tied"]) >= 0.95
    assert np.mean(answers[kind]["clear but wrong"]) <= 0.1


def test_laws_are_rarely_found_in_noise() -> None:
    # Of 50 curves of noise that pass with a chance of one in twenty, more than six do in one study of fifty.
    assert sum(invented(number, draws=300) for number in range(50)) <= 6


def test_intervals_of_the_surface_cover_the_truth_at_their_nominal_rate() -> None:
    found = [surface(number, draws=200) for number in range(25)]
    for name in found[0]:
        assert np.mean([one[name] for one in found]) >= 0.8
