"""The belief about true errors: the noise that a trunk's levels share."""

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.belief.belief import Curves, Measured, believe

X = np.array([1e11, 3e11])
LUCK = 0.03


def measured(errors: NDArray[np.float64]) -> Measured:
    count = len(errors)
    curves = Curves(
        x=np.tile(X, (count, 1)), per_sample=np.full(count, 1e7), pairs=np.full(count, np.inf),
        shared=np.zeros((count, 0)),
    )  # fmt: skip
    return Measured(curves=curves, errors=errors, images=50_000.0, chance=0.99)


def alone(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the same runs, each a unit of its own."""
    curves, units, points = errors.shape
    found = np.full((curves, units * points, points), np.nan)
    for point in range(points):
        found[:, point * units : (point + 1) * units, point] = errors[:, :, point]
    return found


@pytest.fixture
def trunks() -> NDArray[np.float64]:
    """Eight curves of three trunks whose levels share their noise; the last has one run at one level."""
    generator = np.random.default_rng(0)
    common = LUCK * generator.standard_normal((8, 3, 1))
    errors = np.array([0.6, 0.5]) + common + 0.1 * LUCK * generator.standard_normal((8, 3, 2))
    errors[-1] = [[0.6 + LUCK, 0.5 + LUCK], [0.6 - LUCK, np.nan], [np.nan, np.nan]]
    return errors


def test_a_single_run_is_corrected_by_how_its_trunk_did_at_the_other_level(
    trunks: NDArray[np.float64],
) -> None:
    shared, separate = (
        believe(measured(errors), draws=4000, generator=np.random.default_rng(1)).draws[:, -1, 1]
        for errors in (trunks, alone(trunks))
    )

    assert abs(shared.mean() - 0.5) < 0.01
    assert separate.mean() - shared.mean() > 0.005
    assert shared.std() < separate.std(), "the other level tells most of this run's noise"


def test_shared_noise_blurs_the_height_of_a_curve_and_not_its_fall(trunks: NDArray[np.float64]) -> None:
    shared, separate = (
        believe(measured(errors), draws=4000, generator=np.random.default_rng(1)).draws[:, 0]
        for errors in (trunks, alone(trunks))
    )

    assert shared.sum(axis=1).std() > 1.1 * separate.sum(axis=1).std()
    assert np.ptp(shared, axis=1).std() < 0.8 * np.ptp(separate, axis=1).std()
