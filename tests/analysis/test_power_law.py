"""A law that made the data is found again; data that hold none get no law."""

import re

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from analysis.power_law import Status, fit, fit_draws
from analysis.saturation import fit_saturated

X = np.geomspace(2e11, 9e12, 6)
ONCE = np.ones(6, dtype=np.int64)


@pytest.mark.parametrize(
    ("floor", "scale", "alpha"), [(0.30, 0.25, 0.35), (0.05, 0.60, 0.12), (0.55, 0.08, 1.4)]
)
def test_the_law_that_made_the_data_is_recovered(floor: float, scale: float, alpha: float) -> None:
    unit = float(np.exp(np.log(X).mean()))
    found = fit(X, floor + scale * (X / unit) ** -alpha, runs=ONCE)
    assert found.status == "ok"
    assert found.floor == pytest.approx(floor, abs=1e-6)
    assert found.scale == pytest.approx(scale, abs=1e-6)
    assert found.alpha == pytest.approx(alpha, rel=1e-5)
    assert found.objective < 1e-12
    assert found.agreement == found.starts


def noisy(seed: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    return 0.3 + 0.3 * (X / 1e12) ** -0.4 + 0.01 * generator.standard_normal(len(X))


@pytest.mark.parametrize("seed", range(5))
def test_no_search_over_all_three_parameters_ends_lower(seed: int) -> None:
    y = noisy(seed)
    found = fit(X, y, runs=ONCE)

    def objective(p: NDArray[np.float64]) -> float:
        return float(np.sum((y - p[0] - p[1] * (X / found.unit) ** -p[2]) ** 2))

    ends = [
        minimize(objective, [e, 0.3, a], method="L-BFGS-B", bounds=[(0, 1), (0, 5), (0.02, 5)], tol=1e-15).fun
        for e in (0.0, 0.3)
        for a in (0.1, 0.4, 1.5)
    ]
    assert found.objective <= min(ends) * (1 + 1e-6)


def test_many_draws_at_once_are_each_at_the_optimum_of_their_own() -> None:
    y = np.stack([noisy(seed) for seed in range(8)])
    together = fit_draws(X, y, runs=ONCE)
    alone = [fit(X, row, runs=ONCE) for row in y]
    np.testing.assert_allclose(together.alpha, [one.alpha for one in alone])
    np.testing.assert_allclose(together.objective, [one.objective for one in alone])


def test_a_point_of_four_runs_weighs_as_the_point_four_times() -> None:
    y = noisy(1)
    runs = np.array([1, 4, 1, 1, 2, 1])
    weighted, repeated = (
        fit(X, y, runs=runs),
        fit(np.repeat(X, runs), np.repeat(y, runs), runs=np.ones(10, np.int64)),
    )
    unit_change = (weighted.unit / repeated.unit) ** -repeated.alpha
    assert weighted.alpha == pytest.approx(repeated.alpha, rel=1e-6)
    assert weighted.scale == pytest.approx(repeated.scale * unit_change, rel=1e-6)


def test_two_levels_are_too_few_for_a_law() -> None:
    found = fit(X[[0, 0, 3]], np.array([0.9, 0.8, 0.5]), runs=np.array([1, 1, 3]))
    assert (found.status, found.levels, found.rows) == ("too few levels", 2, 5)
    assert not found.supported
    assert np.isnan(found.alpha)


def test_three_levels_are_passed_through_and_said_to_be_saturated() -> None:
    found = fit(X[:3], np.array([0.8, 0.6, 0.5]), runs=np.ones(3, np.int64))
    assert found.status == "saturated"
    assert "nothing is left to test" in found.reason
    np.testing.assert_allclose(found(X[:3]), [0.8, 0.6, 0.5], atol=1e-7)


@pytest.mark.parametrize(
    ("y", "status"),
    [
        ([0.5, 0.5, 0.6, 0.6, 0.7, 0.7], "no decrease"),
        ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], "floor undetermined"),
        ([0.9, 0.4, 0.4, 0.4, 0.4, 0.4], "exponent at bound"),
    ],
)
def test_what_holds_no_law_with_floor_is_said_to_hold_none(y: list[float], status: Status) -> None:
    assert fit(X, np.array(y), runs=ONCE).status == status


def test_a_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite values and x above zero"):
        fit(X, np.array([0.9, np.nan, 0.7, 0.6, 0.5, 0.4]), runs=ONCE)


def test_a_law_that_misses_a_point_by_more_than_its_noise_is_a_misfit() -> None:
    # A curve that falls ever faster: no sum of a floor and a power does that.
    y = np.array([0.95, 0.93, 0.90, 0.84, 0.74, 0.58])
    shifts = np.random.default_rng(0).standard_normal((400, 6))
    assert fit(X, y, runs=ONCE, draws=y + 0.10 * shifts, source="runs").supported
    found = fit(X, y, runs=ONCE, draws=y + 0.01 * shifts, source="runs")
    assert found.status == "misfit"
    assert not found.supported


def test_a_law_without_floor_is_a_line_in_logarithms() -> None:
    y = 0.4 * (X / 1e12) ** -0.2
    found = fit_draws(X, y[None, :], runs=ONCE, floor=False)
    assert found.alpha[0] == pytest.approx(0.2, rel=1e-6)
    assert found.floor[0] == 0


@pytest.mark.parametrize("floor", [True, False])
def test_a_saturating_law_is_recovered_with_its_shift(floor: bool) -> None:  # noqa: FBT001 (parametrised)
    x = np.geomspace(1e10, 1e14, 9)
    y = 0.3 * floor + 0.4 * ((x + 6e10) / 1e12) ** -0.3
    found = fit_saturated(x, y[None, :], runs=np.ones(9, np.int64), floor=floor)
    assert found.shift[0] == pytest.approx(6e10, rel=0.02)
    assert found.law.alpha[0] == pytest.approx(0.3, rel=0.01)
    np.testing.assert_allclose(found(x)[0], y, atol=2e-5)


def test_a_law_that_does_not_saturate_gets_no_shift() -> None:
    y = 0.3 + 0.4 * (X / 1e12) ** -0.3
    assert fit_saturated(X, y[None, :], runs=ONCE).shift[0] == pytest.approx(0, abs=0.02 * X[0])


def test_one_curve_of_noise_in_twenty_at_most_is_given_a_law_where_no_noise_was_measured() -> None:
    generator = np.random.default_rng(0)
    noise = 0.5 + 0.01 * generator.standard_normal((200, 4))
    assert np.mean([fit(X[:4], y, runs=ONCE[:4]).supported for y in noise]) <= 0.05
    assert all(fit(X, noisy(seed), runs=ONCE).supported for seed in range(5))


def test_a_fall_within_the_noise_is_no_law_and_its_chance_is_said() -> None:
    y = np.array([0.52, 0.51, 0.505, 0.50])
    draws = y + 0.02 * np.random.default_rng(1).standard_normal((500, 4))
    found = fit(X[:4], y, runs=ONCE[:4], draws=draws, source="runs")
    assert found.status == "no decrease"
    assert re.search(r"without any law it would fall so far in \d+%", found.reason)
