"""A valley is fitted as a parabola, with as much asymmetry as the data support."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.laws.excess_variance import excess
from analysis.sizes import valley

T = np.linspace(-1.8, 1.8, 5)


def exponents(alpha: float, beta: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return a valley of two power laws with its minimum at zero."""
    return np.asarray(0.3 + 0.1 * (np.exp(-alpha * T) + alpha / beta * np.exp(beta * T)))


@given(st.floats(0.01, 0.2), st.floats(-0.5, 0.5), st.floats(1e-4, 1e-2))
def test_a_parabola_is_fitted_exactly_whatever_the_noise(bend: float, slope: float, noise: float) -> None:
    error = 0.5 + slope * bend * T + bend * T**2
    found = valley.fit(T, error[None, :], np.full(5, noise**2), np.zeros(1))[0]
    np.testing.assert_allclose(found, [0.5, slope * bend, bend, 0.0], atol=1e-9)


def test_the_fit_is_the_most_probable_under_its_prior() -> None:
    error, noise, pull = exponents(0.2, 0.6), 0.004, 0.7
    bend = np.polyfit(T, error, 2)[0]
    deviation = valley.ASYMMETRY * bend / 3
    rows = np.vstack([np.vander(T, 4, increasing=True) / noise, [0, 0, 0, 1 / deviation]])
    expected = np.linalg.lstsq(rows, np.append(error / noise, pull))[0]
    found = valley.fit(T, error[None, :], np.full(5, noise**2), np.array([pull]))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.6), (0.6, 0.2)])
def test_an_asymmetric_valley_has_its_minimum_where_a_parabola_misses_it(alpha: float, beta: float) -> None:
    error = exponents(alpha, beta)
    parabola = np.polyfit(T, error, 2)
    found = valley.fit(T, error[None, :], np.full(5, 1e-8), np.zeros(1))
    missed = abs(float(valley.lowest(found, T[0], T[-1])[0]))
    assert missed < 0.06
    assert missed < abs(parabola[1] / (2 * parabola[0])) / 3


@pytest.mark.slow
def test_the_form_error_is_zero_if_the_noise_explains_the_residuals() -> None:
    generator = np.random.default_rng(0)
    noisy = [exponents(0.4, 0.5) + 0.004 * generator.standard_normal(5) for _ in range(200)]
    found = [
        valley.form_error([valley.Valley(t=T, error=error, variance=np.full(5, 0.004**2))]) for error in noisy
    ]
    assert np.mean([one.variance == 0 for one in found]) > 0.5
    together = valley.form_error(
        [valley.Valley(t=T, error=error, variance=np.full(5, 0.004**2)) for error in noisy]
    )
    assert together.freedom == 400
    assert together.variance**0.5 < 0.0015


def test_an_excess_variance_is_found() -> None:
    values = 0.5 * np.random.default_rng(0).standard_normal(4000)
    found = excess(
        lambda more: float((values**2).sum() / (0.3**2 + more)), freedom=4000, noise=0.3**2, highest=10.0
    )
    assert found.variance**0.5 == pytest.approx(0.4, abs=0.01)
    drawn = found.drawn(2000, np.random.default_rng(1))
    assert np.median(drawn) == pytest.approx(0.4, abs=0.01)


def test_few_degrees_of_freedom_make_the_form_error_uncertain() -> None:
    few = excess(lambda more: 8 / (1 + more), freedom=2, noise=1.0, highest=100.0)
    many = excess(lambda more: 800 / (1 + more), freedom=200, noise=1.0, highest=100.0)
    assert few.variance == pytest.approx(many.variance, rel=1e-6)
    spread = [
        np.ptp(np.quantile(one.drawn(4000, np.random.default_rng(0)), [0.05, 0.95])) for one in (few, many)
    ]
    assert spread[0] > 4 * spread[1]
