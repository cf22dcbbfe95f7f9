"""Gains of further runs against closed forms of normal errors."""

import numpy as np
import pytest

from analysis.design.questions import best_gains, forecast_gains, settle

DRAWS = 20_000


def normal(*means_and_sds: tuple[float, float]) -> np.ndarray:
    generator = np.random.default_rng(0)
    columns = [mean + sd * generator.standard_normal(DRAWS) for mean, sd in means_and_sds]
    return np.stack(columns, axis=1)


def gains(values: np.ndarray, variance: float, *, indifference: float = 0.0) -> np.ndarray:
    curves = np.arange(values.shape[1])
    return best_gains(
        values, values[:, :, None], np.full(len(curves), variance), curves, np.zeros_like(curves),
        indifference=indifference,
    )  # fmt: skip


def test_exact_result_of_one_of_two_equal_configurations_gains_a_quarter() -> None:
    # Knowing t, the better one is named with probability max(Φ(t), 1 − Φ(t)), 3/4 on average instead of 1/2.
    found = gains(normal((0.5, 0.1), (0.5, 0.1)), 1e-9)

    assert found == pytest.approx([0.25, 0.25], abs=0.01)


def test_noisier_run_gains_less() -> None:
    values = normal((0.5, 0.1), (0.5, 0.1))

    # Half of the variance is explained: t given y has the mean y/2, and E max(Φ, 1 − Φ) is 1/2 + asin(1/2)/π.
    assert gains(values, 0.1**2) == pytest.approx([1 / 6, 1 / 6], abs=0.01)


def test_configuration_that_cannot_win_gains_nothing() -> None:
    found = gains(normal((0.3, 0.02), (0.31, 0.02), (0.9, 0.02)), 1e-4)

    assert found[2] == 0
    assert (found[:2] > 0.05).all()


def test_difference_within_the_indifference_is_not_worth_a_run() -> None:
    values = normal((0.300, 0.002), (0.301, 0.002))

    assert (gains(values, 1e-9) > 0.1).all()
    assert (gains(values, 1e-9, indifference=0.02) < 1e-6).all()


def test_run_that_cannot_unseat_the_leader_lowers_the_doubt_about_it() -> None:
    # The noise equals what is unknown of either, and the rival is two standard deviations of the gap behind.
    found = gains(normal((0.30, 0.02), (0.36, 0.02)), 0.02**2)

    assert (found > 1e-4).all()
    assert (found < 0.01).all()


def test_forecast_gains_the_share_of_variance_that_a_run_removes() -> None:
    values = normal((0.3, 0.02))

    found = forecast_gains(
        values[:, 0], values[:, :, None], np.array([1e-9, 0.02**2]), np.zeros(2, int), np.zeros(2, int)
    )

    assert found == pytest.approx([1, 0.5], abs=0.02)


def test_running_trial_narrows_the_draws_and_moves_no_mean() -> None:
    draws = normal((0.3, 0.02), (0.5, 0.02))[:, :, None]
    before = draws.mean(axis=0)

    settle(draws, 0, 0, 0.02**2, np.random.default_rng(1))

    assert draws.mean(axis=0) == pytest.approx(before, rel=1e-3)
    assert draws.std(axis=0).ravel() == pytest.approx([0.02 / 2**0.5, 0.02], rel=0.03)
