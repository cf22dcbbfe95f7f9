"""The damped search finds the optimum between the bounds, also where it lies at one of them."""

import numpy as np
import pytest
from scipy.optimize import minimize

from analysis.arrays import Floats, Indices
from analysis.laws.descent import descend, search

CURVATURE = np.array([[2.0, 1.9], [1.9, 2.0]])  # a narrow valley across both parameters
FREE_OPTIMUM = np.array([-1.0, 3.0])
BOUNDS = np.array([0.0, -5.0]), np.array([5.0, 5.0])


class Valley:
    """A quadratic with its lowest value, 1, outside of the bounds, and the number of its evaluations."""

    def __init__(self, directions: Floats) -> None:
        self.evaluations, self._directions = 0, directions

    def __call__(self, _: Indices, theta: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        self.evaluations += 1
        off, along = theta - FREE_OPTIMUM, self._directions
        curvature = np.tile(along.T @ CURVATURE @ along, (len(theta), 1, 1))
        return (
            1 + np.einsum("ri,ij,rj->r", off, CURVATURE, off) / 2,
            off @ CURVATURE @ along,
            curvature,
            np.tile(np.eye(along.shape[1]), (len(theta), 1, 1)),
        )


def test_parameters_beside_one_at_its_bound_reach_their_optimum_in_few_steps() -> None:
    valley = Valley(np.eye(2))

    ends, values = search(valley, np.array([[0.5, -4.0], [4.0, 4.0], [0.0, 0.0]]), bounds=BOUNDS)

    # With the first parameter at 0, the second is lowest at 3 + 1.9/2·(−1).
    assert ends == pytest.approx(np.tile([0.0, 2.05], (3, 1)), abs=1e-7)
    assert values == pytest.approx(1 + (2.0 - 1.9**2 / 2.0) / 2, rel=1e-12)
    assert valley.evaluations < 40


def test_parameters_that_move_together_rest_at_their_bound() -> None:
    bounds, together = (np.full(2, -5.0), np.full(2, 0.5)), np.ones((2, 1))

    ends, _ = search(Valley(together), np.zeros((1, 2)), bounds=bounds, directions=together)

    # Along (1, 1) the lowest value is at (1, 1).
    assert ends == pytest.approx(np.array([[0.5, 0.5]]))


def test_a_search_with_differences_ends_no_higher_than_scipys_at_a_bound() -> None:
    x = np.linspace(0.5, 4.0, 12)
    y = 1.5 * np.exp(-0.8 * x) - 0.05  # the best floor is below zero, its bound
    bounds = np.array([0.0, -3.0, 0.0]), np.array([1.0, 3.0, 5.0])

    def residual(theta: Floats) -> Floats:
        floor, log_a, rate = theta.T[:, :, None]
        return np.asarray(y - floor - np.exp(log_a - rate * x))

    start = np.array([0.3, 0.0, 2.0])
    ends, objectives = descend(residual, start[None], weights=np.ones(12), delta=np.inf, bounds=bounds)

    found = minimize(
        lambda theta: float((residual(theta[None])[0] ** 2).sum() / 2),
        start,
        method="L-BFGS-B",
        bounds=list(zip(*bounds, strict=True)),
        options={"ftol": 1e-15, "gtol": 1e-10},
    )
    assert ends[0, 0] == 0.0
    assert objectives[0] <= found.fun * (1 + 1e-9)
    assert ends[0] == pytest.approx(found.x, abs=1e-5)


def test_a_parameter_without_effect_stays_and_the_others_reach_their_optimum() -> None:
    def expand(_: Indices, theta: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        off = theta * np.array([1.0, 0.0]) - np.array([2.0, 0.0])
        matrix = np.tile(np.diag([2.0, 0.0]), (len(theta), 1, 1))
        return 1 + (off**2).sum(axis=1), 2 * off, matrix, matrix

    ends, values = search(expand, np.array([[0.5, 0.25], [4.0, 1.0]]), bounds=BOUNDS)

    assert ends == pytest.approx(np.array([[2.0, 0.25], [2.0, 1.0]]), abs=1e-6)
    assert values == pytest.approx(1.0)
