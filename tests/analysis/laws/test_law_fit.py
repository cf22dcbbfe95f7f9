"""Status of a curve's law: drawn, lack of fit, untested, or the reason for none."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from analysis.arrays import Floats
from analysis.laws.forms import BOUNDED, FLOOR, POWER, SHIFT, Form
from analysis.laws.law_fit import LawFit, LawStatus, fit_laws

X = np.geomspace(2e11, 9e12, 6)
LINE = 0.3 + 0.3 * (X / 1e12) ** -0.4


def fitted(
    y: Sequence[float] | Floats, form: Form = FLOOR, *, x: Floats = X, runs: Sequence[int] | None = None,
    noise: float = 0.0, **known: Any,  # noqa: ANN401 - as `fit_laws` takes them
) -> LawFit:  # fmt: skip
    """Fit one curve, with draws of its errors if there is noise, and one run at each x by default."""
    error = np.asarray(y)
    shifts = noise * np.random.default_rng(0).standard_normal((800, len(error)))
    return fit_laws(
        form, x[None, : len(error)], error[None], runs=np.array([runs or [1] * len(error)]),
        draws=(error + shifts)[:, None] if noise else None, **known,
    )[0]  # fmt: skip


def test_the_law_that_made_the_data_is_ok_whatever_the_start() -> None:
    found = fitted(LINE)
    assert (found.status, found.agreement) == ("ok", found.starts)
    assert found.miss == pytest.approx(0, abs=1e-7)


def test_two_levels_are_too_few_for_a_law() -> None:
    found = fitted([0.9, 0.8, 0.5], POWER, x=X[[0, 0, 3]], runs=[1, 1, 3])
    assert (found.status, found.levels, found.rows) == ("too few levels", 2, 5)
    assert not found.supported
    assert np.isnan(found.alpha)


def test_a_law_with_as_many_parameters_as_levels_is_saturated() -> None:
    found = fitted([0.8, 0.6, 0.5])
    assert found.status == "saturated"
    assert "cannot be tested" in found.reason
    np.testing.assert_allclose(found(X[:3]), [0.8, 0.6, 0.5], atol=1e-7)


def test_four_levels_are_drawn_as_untested() -> None:
    found = fitted(LINE[:4])
    assert (found.status, found.supported, found.tested) == ("untested", True, False)
    assert fitted(LINE[:5]).tested


@pytest.mark.parametrize(
    ("y", "status"),
    [
        ([0.5, 0.5, 0.6, 0.6, 0.7, 0.7], "no decrease"),
        ([0.70, 0.69, 0.675, 0.66, 0.64, 0.62], "floor undetermined"),
        ([0.9, 0.4, 0.4, 0.4, 0.4, 0.4], "exponent at bound"),
    ],
)
def test_curves_without_a_law_with_floor_get_the_status_that_says_why(
    y: list[float], status: LawStatus
) -> None:
    assert fitted(y).status == status


def test_a_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        fitted([0.9, np.nan, 0.7, 0.6, 0.5, 0.4])


def test_misses_of_more_than_two_points_are_a_misfit_whatever_the_noise() -> None:
    # A curve that falls ever faster: no sum of a floor and a power does that.
    y = np.array([0.97, 0.96, 0.93, 0.86, 0.74, 0.50])
    found = fitted(y, noise=0.10, source="runs", freedom=12)
    assert (found.status, found.supported) == ("misfit", False)
    assert found.miss > 0.02
    assert fitted(y, SHIFT, noise=0.10, source="runs", freedom=12).supported


def test_a_law_no_better_than_carrying_levels_forward_is_a_misfit() -> None:
    steps = np.arange(24)
    y = 0.6 - 0.00625 * steps + 0.018 * np.sin(2 * np.pi * steps / 12)
    found = fitted(y, POWER, x=np.geomspace(2e11, 2e15, 24))
    assert found.miss < 0.02
    assert found.status == "misfit"
    assert "carrying each level forward" in found.reason


def test_misses_beyond_the_noise_are_a_lack_of_fit_that_is_drawn() -> None:
    y = LINE + np.array([0.012, -0.012, -0.012, 0.012, 0.012, -0.012])
    found = fitted(y, noise=0.003, source="runs", freedom=24)
    assert (found.status, found.supported) == ("lack of fit", True)
    assert found.lack_of_fit < 0.001
    loud = fitted(y, noise=0.012, source="runs", freedom=24)
    assert loud.status == "ok"
    assert loud.lack_of_fit > 0.1
    # The same misses of few seeds prove nothing.
    few = fitted(y, noise=0.003, source="runs", freedom=2)
    assert few.lack_of_fit > found.lack_of_fit


@pytest.mark.slow
def test_lack_of_fit_is_found_at_the_rate_of_its_level() -> None:
    generator = np.random.default_rng(2)
    y = LINE + 0.01 * generator.standard_normal((300, 6))
    chances = [fitted(row, noise=0.01, source="evaluation").lack_of_fit for row in y]
    assert 0.02 <= np.mean(np.array(chances) < 0.05) <= 0.09


@pytest.mark.slow
def test_without_measured_noise_at_most_one_in_twenty_curves_of_noise_gets_a_law() -> None:
    generator = np.random.default_rng(0)
    noise = 0.5 + 0.01 * generator.standard_normal((200, 4))
    assert np.mean([fitted(y).supported for y in noise]) <= 0.05
    assert all(fitted(LINE + 0.01 * generator.standard_normal(6)).supported for _ in range(5))


def test_a_fall_within_the_noise_gets_no_law_and_the_reason_gives_its_chance() -> None:
    y = np.array([0.52, 0.51, 0.505, 0.50])
    found = fitted(y, noise=0.02, source="runs", freedom=8)
    assert found.status == "no decrease"
    assert re.search(r"with chance \d+%", found.reason)


def test_a_bounded_law_that_does_not_fall_is_not_supported() -> None:
    assert not fitted([0.5, 0.5, 0.6, 0.6, 0.7, 0.7], BOUNDED, chance=0.99).supported
