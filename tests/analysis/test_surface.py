"""The surface: published optimum, restarts, resampled runs, and what it cannot decide."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from analysis.intervals import bca, interval
from analysis.repeated import best_size, effective, fit_repeated
from analysis.surface import fit, fit_draws, resample
from analysis.surface_search import Data, project, search

POINTS = Path("../shared/data/epoch_chinchilla_svg_extracted.csv")
needs_points = pytest.mark.skipif(not POINTS.exists(), reason=f"{POINTS} is not there")
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def chinchilla() -> tuple[Floats, Floats, Floats]:
    """Model size, tokens, loss of the published points, without the five highest losses."""
    table = pd.read_csv(POINTS).sort_values("loss").iloc[:-5]
    n = table["Model Size"].to_numpy(np.float64)
    return n, table["Training FLOP"].to_numpy(np.float64) / (6 * n), table["loss"].to_numpy(np.float64)


@needs_points
def test_the_chinchilla_points_give_the_published_optimum_from_any_of_100_starts(
    chinchilla: tuple[Floats, Floats, Floats],
) -> None:
    starts = np.exp(np.random.default_rng(0).uniform(np.log(0.03), np.log(3), (100, 2)))
    found = fit(*chinchilla, starts=starts)
    assert found.agreement == found.starts == 100
    assert f"{found.floor:.5f} {found.a:.2f} {found.b:.2f}" == "1.81722 477.83 2143.42"
    assert f"{found.alpha:.5f} {found.beta:.5f}" == "0.34731 0.36717"
    assert f"{found.objective:.9f}" == "0.001018274"


@needs_points
def test_five_outliers_move_the_exponent_of_data() -> None:
    table = pd.read_csv(POINTS)
    n = table["Model Size"].to_numpy(np.float64)
    found = fit(n, table["Training FLOP"].to_numpy(np.float64) / (6 * n), table["loss"].to_numpy(np.float64))
    assert found.beta == pytest.approx(0.453, abs=0.0006)


@needs_points
def test_4000_refits_take_seconds_and_each_is_at_its_optimum(
    chinchilla: tuple[Floats, Floats, Floats],
) -> None:
    n, d, y = chinchilla
    weights = resample(len(y), 4000, np.random.default_rng(1))
    around = fit(n, d, y)
    began = time.process_time()
    drawn = fit_draws(n, d, y[None, :], weights=weights, around=around)
    assert time.process_time() - began < 2.0
    starts = np.exp(np.random.default_rng(2).uniform(np.log(0.05), np.log(2), (40, 2)))
    for draw in range(0, 4000, 250):
        data = Data.of(n, d, y[None, :], weights[[draw]], 1e-3)
        lowest = search(data, project(data, starts))[1].min()
        assert drawn.objective[draw] == pytest.approx(lowest, rel=1e-9)


@needs_points
def test_the_optimal_model_size_has_the_published_exponent(chinchilla: tuple[Floats, Floats, Floats]) -> None:
    n, d, y = chinchilla
    drawn = fit_draws(n, d, y[None, :], weights=np.ones((1, len(y))), around=fit(n, d, y))
    ratio = float(np.log(drawn.optimum(1e24) / drawn.optimum(1e21))[0] / np.log(1e3))
    assert ratio == pytest.approx(0.367172 / (0.347310 + 0.367172), abs=1e-5)


def made_up(seed: int = 0, noise: float = 0.0) -> tuple[Floats, Floats, Floats]:
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e7, 1e10, 6)))
    y = 0.2 + 30 * n**-0.35 + 60 * d**-0.3
    return n, d, y * np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))


@pytest.mark.parametrize("delta", [1e-3, np.inf])
def test_a_surface_without_noise_is_found_again_under_either_loss(delta: float) -> None:
    found = fit(*made_up(), delta=delta)
    assert found.status == "ok"
    np.testing.assert_allclose(
        [found.floor, found.a, found.b, found.alpha, found.beta], [0.2, 30, 60, 0.35, 0.3], rtol=1e-4
    )


def test_the_derivatives_are_those_of_the_objective() -> None:
    n, d, y = made_up(noise=0.05)
    drawn = fit_draws(n, d, y[None, :], weights=np.ones((1, len(y))), around=fit(n, d, y), delta=np.inf)

    def objective(shift: Floats) -> float:
        e, a, b, alpha, beta = shift * [drawn.floor[0], drawn.a[0], drawn.b[0], drawn.alpha[0], drawn.beta[0]]
        return float(((np.log(y) - np.log(e + a * n**-alpha + b * d**-beta)) ** 2).sum() / 2)

    lowest = objective(np.ones(5))
    assert lowest == pytest.approx(drawn.objective[0], rel=1e-12)
    for place in range(5):
        for step in (1 - 1e-3, 1 + 1e-3):
            shift = np.ones(5)
            shift[place] = step
            assert objective(shift) > lowest


def test_a_term_that_the_data_do_not_show_is_said_to_be_none() -> None:
    n, d, _ = made_up()
    found = fit(n, d, 30 * n**-0.35 + 60 * d**-0.3)
    assert found.status == "term undetermined"
    assert "the floor" in found.reason


def test_five_points_are_too_few() -> None:
    n, d, y = made_up()
    found = fit(n[:5], d[:5], y[:5])
    assert (found.status, found.supported) == ("too few points", False)
    with pytest.raises(ValueError, match="above zero"):
        fit(n, d, y - 10)


def test_bca_moves_a_skewed_interval_to_where_its_ends_belong() -> None:
    generator = np.random.default_rng(3)
    covered = np.zeros(2)
    for _ in range(300):
        runs = generator.exponential(size=25)
        picked = runs[generator.integers(25, size=(600, 25))]
        values, estimate = picked.var(axis=1), float(runs.var())
        jackknife = np.array([np.delete(runs, left).var() for left in range(25)])
        for place, (low, high) in enumerate((interval(values), bca(values, estimate, jackknife))):
            covered[place] += low <= 1.0 <= high
    assert covered[1] > covered[0] + 6
    assert np.isnan(bca(values, estimate, jackknife[:7])).all()


def test_repetition_decays_as_it_was_made_to() -> None:
    grids = np.meshgrid(np.geomspace(1e6, 1e9, 5), np.geomspace(1e6, 1e8, 5))
    n, unique = (np.repeat(grid.ravel(), 4) for grid in grids)
    seen = unique * np.tile([1.0, 4.0, 16.0, 64.0], 25)
    y = 0.2 + 30 * n**-0.35 + 60 * effective(unique, seen, 15.4) ** -0.3
    found = fit_repeated(n, unique, seen, y)
    assert found.status == "ok"
    assert found.decay == pytest.approx(15.4, rel=1e-3)
    np.testing.assert_allclose(found(n, unique, seen), y, rtol=1e-5)


def repeated_grid(sizes: int) -> tuple[Floats, Floats, Floats]:
    grids = np.meshgrid(np.geomspace(1e6, 1e10, sizes), np.geomspace(1e6, 1e8, 5))
    n, unique = (np.repeat(grid.ravel(), 4) for grid in grids)
    return n, unique, unique * np.tile([1.0, 4.0, 16.0, 64.0], sizes * 5)


def test_excess_parameters_decay_as_they_were_made_to_where_the_data_tell() -> None:
    n, unique, seen = repeated_grid(6)
    law = fit(*made_up())
    sizes = effective(best_size(law, unique), n, 5.3)
    y = law(sizes, effective(unique, seen, 15.4))
    found = fit_repeated(n, unique, seen, y, delta=np.inf)
    assert (found.decay, found.size_decay) == pytest.approx((15.4, 5.3), rel=1e-3)
    assert found.surface.alpha == pytest.approx(law.alpha, rel=1e-3)
    np.testing.assert_allclose(found(n, unique, seen), y, rtol=1e-5)
    noise = np.exp(0.03 * np.random.default_rng(0).standard_normal(len(y)))
    vague = fit_repeated(n, unique, seen, law(n, effective(unique, seen, 15.4)) * noise, delta=np.inf)
    assert vague.decay == pytest.approx(15.4, rel=0.2)
    assert np.isinf(vague.size_decay)
    assert vague.size_reason.startswith("could not be decided")


def test_data_seen_once_tell_nothing_about_repetition() -> None:
    n, d, y = made_up()
    assert fit_repeated(n, 2 * d, d, y).status == "no repetition"


def test_effective_data_are_all_of_one_epoch_and_at_most_one_plus_the_decay() -> None:
    unique = np.full(3, 100.0)
    seen = np.array([50.0, 100.0, 1e9])
    np.testing.assert_allclose(effective(unique, seen, 5.0), [50, 100, 600])
