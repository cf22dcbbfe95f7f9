"""A minimum over model sizes is marked only where the data hold one."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import nnls

from analysis.bootstrap import Source
from analysis.isoflop import family
from analysis.size_profile import Profile, profile

SIZES = np.array([13e6, 25e6, 39e6, 72e6, 140e6])


def fitted(error: NDArray[np.float64], *, noise: float = 0.002, source: Source = "runs") -> Profile:
    shifts = noise * np.random.default_rng(0).standard_normal((1000, len(error)))
    stack = np.concatenate([error[None, :], error + shifts, error + shifts[:12]])
    runs = np.full(len(error), 3)
    return profile(SIZES[: len(error)], stack, refits=1000, runs=runs, source=source)


def parabola(minimum: float, curvature: float) -> NDArray[np.float64]:
    return 0.5 + curvature * np.log(SIZES / minimum) ** 2


def test_a_minimum_between_the_sizes_is_found_with_an_interval_around_it() -> None:
    found = fitted(parabola(45e6, 0.05))
    assert found.status == "ok"
    assert found.size == pytest.approx(45e6, rel=1e-6)
    assert found.ends.low < 45e6 < found.ends.high
    assert found.ends.bca_low < 45e6 < found.ends.bca_high
    np.testing.assert_allclose(found(SIZES), parabola(45e6, 0.05))


@pytest.mark.parametrize(("minimum", "word"), [(5e6, "smaller"), (500e6, "larger")])
def test_a_minimum_at_the_edge_is_reported_and_not_marked(minimum: float, word: str) -> None:
    found = fitted(parabola(minimum, 0.05))
    assert found.status == "minimum at the edge"
    assert found.reason.endswith(f"the best may be {word}")
    assert np.isnan(found.size)


def test_a_concave_profile_is_fitted_by_the_best_convex_curve_reported_and_not_marked() -> None:
    error = parabola(45e6, -0.05)
    found = fitted(error)
    assert found.status == "concave"
    assert found.reason.startswith("the constraint binds: the error is not convex")
    assert found.reason.endswith("a line towards the smallest model: no minimum is marked")
    assert np.isnan(found.size)
    assert found.sizes == (13e6, 39e6)
    near = SIZES[:3]
    basis = np.vander(np.log(near / found.unit), 3, increasing=True)
    # Non-negative least squares needs both signs of what is free.
    columns = np.column_stack([basis, -basis[:, :2]])
    missed = ((found(near) - error[:3]) ** 2).sum()
    assert missed == pytest.approx(nnls(columns, error[:3])[1] ** 2, rel=1e-9)


def test_a_minimum_that_moves_out_in_the_draws_is_not_marked() -> None:
    found = fitted(parabola(45e6, 0.004), noise=0.02)
    assert found.status == "unstable"
    assert np.isnan(found.size)


def test_one_seed_marks_no_minimum() -> None:
    found = fitted(parabola(45e6, 0.05), source="evaluation")
    assert found.status == "one seed"
    assert np.isnan(found.size)


def test_two_sizes_are_too_few() -> None:
    assert fitted(np.array([0.6, 0.5])).status == "too few sizes"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mini-ViT-XS-8", "ViT"), ("mini-ConvNeXt", "ConvNeXt"), ("RN50", "ResNet"), ("own_tower-3", "own")],
)
def test_a_family_is_the_catalogues_or_the_letters_a_name_begins_with(name: str, expected: str) -> None:
    assert family(name) == expected
