"""Each form of law is recovered from data that it generated."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize, minimize_scalar

from analysis.arrays import Floats
from analysis.laws import forms
from analysis.laws.forms import BOUNDED, FLOOR, FLOOR_SHIFT, FORMS, POWER, SHIFT, Curves, Form
from analysis.laws.least_squares import fit, restarts

X = np.geomspace(2e11, 9e12, 6)
WIDE = np.geomspace(1e10, 1e14, 9)
ONCE = np.ones(6)
CHANCE = 0.99


def one(form: Form, x: Floats, y: Floats) -> Curves:
    return fit(form, x, y[None, :], weights=np.ones(len(x)), chance=CHANCE)


def noisy(seed: int) -> Floats:
    generator = np.random.default_rng(seed)
    return np.asarray(0.3 + 0.3 * (X / 1e12) ** -0.4 + 0.01 * generator.standard_normal(len(X)), np.float64)


@pytest.mark.parametrize(
    ("floor", "scale", "alpha"), [(0.30, 0.25, 0.35), (0.05, 0.60, 0.12), (0.55, 0.08, 1.4)]
)
def test_the_law_with_floor_that_made_the_data_is_recovered(floor: float, scale: float, alpha: float) -> None:
    unit = float(np.exp(np.log(X).mean()))
    found = one(FLOOR, X, floor + scale * (X / unit) ** -alpha)
    assert found.floor[0] == pytest.approx(floor, abs=1e-6)
    assert found.scale[0] == pytest.approx(scale, abs=1e-6)
    assert found.alpha[0] == pytest.approx(alpha, rel=1e-5)
    assert found.objective[0] < 1e-12


def test_a_power_law_is_a_line_in_logarithms() -> None:
    found = one(POWER, X, 0.4 * (X / 1e12) ** -0.2)
    assert found.alpha[0] == pytest.approx(0.2, rel=1e-6)
    assert found.floor[0] == 0


@pytest.mark.parametrize("form", [SHIFT, FLOOR_SHIFT])
@pytest.mark.parametrize("shift", [6e10, 5e12])  # 6 and 500 times the smallest x
def test_a_shifted_law_is_recovered_with_its_shift(form: Form, shift: float) -> None:
    y = 0.3 * form.floor + 0.4 * ((WIDE + shift) / 1e12) ** -0.3
    found = one(form, WIDE, y)
    assert found.shift[0] == pytest.approx(shift, rel=0.02)
    assert found.alpha[0] == pytest.approx(0.3, rel=0.01)
    np.testing.assert_allclose(found(WIDE)[0], y, atol=2e-5)


def test_a_law_that_is_not_shifted_gets_no_shift() -> None:
    found = one(FLOOR_SHIFT, X, 0.3 + 0.4 * (X / 1e12) ** -0.3)
    assert found.shift[0] == 0
    assert found.alpha[0] == pytest.approx(0.3, rel=1e-4)


def test_a_bounded_law_is_recovered_and_ends_at_chance_and_floor() -> None:
    q = (WIDE / 3e11) ** -0.7
    found = one(BOUNDED, WIDE, (0.25 + CHANCE * q) / (1 + q))
    assert found.floor[0] == pytest.approx(0.25, abs=1e-5)
    assert found.shift[0] == pytest.approx(3e11, rel=1e-4)
    assert found.alpha[0] == pytest.approx(0.7, rel=1e-4)
    np.testing.assert_allclose(found(np.array([1.0, 1e30]))[0], [CHANCE, 0.25], atol=1e-4)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_fitted_form_has_the_values_of_its_formula(form: Form) -> None:
    found = one(form, X, noisy(0))
    law, _, ratio = form.formula.partition(", q = ")
    for sign, plain in (("·", "*"), ("^-α", "**(-alpha)"), ("−", "-"), ("x₀", "x0")):
        law, ratio = law.replace(sign, plain), ratio.replace(sign, plain)
    alpha, x0, scale = found.alpha[0], found.shift[0], found.scale[0]
    known = {"x": X, "E": found.floor[0], "alpha": alpha, "x0": x0, "c": scale}
    known["A"] = scale * (found.unit[0] + x0) ** alpha  # the scale is that at x = unit
    if ratio:
        known["q"] = pd.eval(ratio, local_dict=known, engine="python")
    expected = np.asarray(pd.eval(law, local_dict=known, engine="python"), dtype=np.float64)
    np.testing.assert_allclose(found(X)[0], expected, rtol=1e-9)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_no_search_from_other_starts_ends_lower(form: Form) -> None:
    for seed in range(5):
        y = noisy(seed)
        found = float(one(form, X, y).objective[0])
        assert restarts(form, X[None], y[None], weights=ONCE[None], chance=CHANCE).min() >= found * (1 - 1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_no_search_of_scipys_over_all_three_parameters_ends_lower(seed: int) -> None:
    y = noisy(seed)
    found = one(FLOOR, X, y)

    def objective(p: Floats) -> float:
        return float(np.sum((y - p[0] - p[1] * (X / found.unit[0]) ** -p[2]) ** 2))

    ends = [
        minimize(objective, [e, 0.3, a], method="L-BFGS-B", bounds=[(0, 1), (0, 5), (0.02, 5)], tol=1e-15).fun
        for e in (0.0, 0.3)
        for a in (0.1, 0.4, 1.5)
    ]
    assert found.objective[0] <= min(ends) * (1 + 1e-6)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_many_draws_at_once_are_each_at_the_optimum_of_their_own(form: Form) -> None:
    y = np.stack([noisy(seed) for seed in range(8)])
    together = fit(form, X, y, weights=ONCE, chance=CHANCE)
    alone = [one(form, X, row).objective[0] for row in y]
    np.testing.assert_allclose(together.objective, alone, rtol=1e-6)


def test_rows_may_have_an_x_of_their_own() -> None:
    x = np.stack([X, 3 * X])
    y = 0.3 + 0.3 * (x / 1e12) ** -0.4
    found = fit(FLOOR, x, y, weights=np.ones((2, 6)))
    np.testing.assert_allclose(found.alpha, 0.4, rtol=1e-5)
    np.testing.assert_allclose(found(np.array([1e12]))[:, 0], 0.6, rtol=1e-6)


@pytest.mark.parametrize("form", [FLOOR, BOUNDED])
def test_a_point_of_four_runs_weighs_as_the_point_four_times(form: Form) -> None:
    y, runs = noisy(1), np.array([1, 4, 1, 1, 2, 1])
    weighted = fit(form, X, y[None, :], weights=runs.astype(np.float64), chance=CHANCE)
    repeated = one(form, np.repeat(X, runs), np.repeat(y, runs))
    assert weighted.alpha[0] == pytest.approx(repeated.alpha[0], rel=1e-5)
    np.testing.assert_allclose(weighted(X), repeated(X), rtol=1e-6)


def test_the_shift_is_at_its_optimum_where_the_slope_is_at_its_bound() -> None:
    rng, x = np.random.default_rng(0), np.geomspace(1e11, 1e13, 7)
    y = 0.6 * (x / 1e12) ** -0.01 + rng.normal(0, 0.02, (60, len(x)))  # flatter than the lowest slope

    found = fit(SHIFT, x, y, weights=np.ones(len(x)))

    unit, least = np.exp(np.log(x).mean()), forms.SLOPE_BOUNDS[0]
    rows = np.flatnonzero(found.at_bound & (found.shift > 0))
    assert len(rows) > 30
    for row in rows:

        def objective(log_shift: float, y: Floats = y[row]) -> float:
            shift = np.exp(log_shift)
            v = ((x + shift) / (unit + shift)) ** -(least * (1 + shift / unit))
            return float(((y - v * (v @ y) / (v @ v)) ** 2).sum())

        near = np.log(found.shift[row]) + np.array([-1.0, 1.0])
        lowest, highest = np.log([x[0] * forms.SHIFT_REACH[0], x[-1] * forms.SHIFT_REACH[1]])
        best = minimize_scalar(objective, bounds=np.clip(near, lowest, highest), method="bounded")
        assert found.objective[row] <= best.fun * (1 + 2e-6)
