"""The surface: published optimum, restarts, resampled runs, and undecided cases."""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from analysis.arrays import Floats
from analysis.cells.intervals import bca, interval
from analysis.laws.repeated import Points, best_size, effective, fit_repeated
from analysis.laws.surface import SurfaceFit, fit, fit_draws
from analysis.laws.surface_forecast import PLAIN, SHARED, forecast
from tests.published import DATA


def crossed(sizes: Floats, data: Floats) -> tuple[Floats, Floats]:
    """Return every model size with every number of samples."""
    n, d = np.meshgrid(sizes, data)
    return n.ravel(), d.ravel()


def law(n: Floats, d: Floats) -> Floats:
    """Return the true error of the simulated surfaces."""
    return np.asarray(0.2 + 30 * n**-0.35 + 60 * d**-0.3)


def noisy(n: Floats, d: Floats, noise: float, seed: int = 0) -> Floats:
    return law(n, d) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))


def made_up(noise: float = 0.0) -> tuple[Floats, Floats, Floats]:
    n, d = crossed(np.geomspace(1e6, 1e9, 6), np.geomspace(1e7, 1e10, 6))
    return n, d, noisy(n, d, noise)


def parameters(surface: SurfaceFit) -> list[float]:
    return [surface.floor, surface.a, surface.b, surface.alpha, surface.beta]


@pytest.mark.parametrize("delta", [1e-3, np.inf])
def test_a_surface_without_noise_is_found_again_under_either_loss(delta: float) -> None:
    found = fit(*made_up(), delta=delta)
    assert found.status == "ok"
    assert parameters(found) == pytest.approx([0.2, 30, 60, 0.35, 0.3], rel=1e-4)


@pytest.mark.slow
def test_each_draw_of_a_surface_without_a_floor_ends_where_many_starts_end() -> None:
    n, d = crossed(np.geomspace(1e6, 1e8, 4), np.geomspace(1e6, 1e8, 6))
    rng = np.random.default_rng(6)
    alpha, beta = rng.uniform(0.1, 0.6, 2)
    floorless = 0.3 * (n / 1e7) ** -alpha + 0.3 * (d / 1e7) ** -beta
    y = floorless * np.exp(rng.normal(0, 0.02, len(n)))
    draws = y * np.exp(rng.normal(0, 0.03, (60, len(n))))

    drawn = fit_draws(n, d, draws, weights=np.ones((1, len(n))), around=fit(n, d, y))

    best = np.array([fit(n, d, draw).objective for draw in draws])
    assert (drawn.objective <= best * (1 + 1e-6)).all()


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


def test_a_term_that_the_data_do_not_show_is_undetermined() -> None:
    n, d, y = made_up()
    found = fit(n, d, y - 0.2)
    assert found.status == "term undetermined"
    assert "the floor" in found.reason


def test_five_points_are_too_few() -> None:
    n, d, y = made_up()
    found = fit(n[:5], d[:5], y[:5])
    assert (found.status, found.supported) == ("too few points", False)
    with pytest.raises(ValueError, match="above zero"):
        fit(n, d, y - 10)


def test_a_surface_with_one_exponent_is_found_again_and_needs_five_points() -> None:
    n, d, _ = made_up()
    y = 0.2 + 30 * n**-0.33 + 60 * d**-0.33
    found = fit(n, d, y, shared=True)
    assert (found.status, found.parameters) == ("ok", 4)
    assert parameters(found) == pytest.approx([0.2, 30, 60, 0.33, 0.33], rel=1e-4)
    few = np.array([0, 1, 8, 15, 35])
    assert fit(n[few], d[few], y[few], shared=True).supported
    assert not fit(n[few], d[few], y[few]).supported
    drawn = fit_draws(n, d, y[None, :], weights=np.ones((1, len(y))), around=found)
    assert drawn.alpha[0] == drawn.beta[0]


def over_training(training_set: str) -> pd.DataFrame:
    """Return the runs of Gadre et al. 2024 (figure 1 and table 2) on one training set."""
    table = pd.read_csv(DATA / "over-training.csv")
    return table[table["training_set"] == training_set]


@pytest.mark.parametrize(
    ("training_set", "published", "whole", "squares"),
    [("C4", 4.30, 5.3, 9.98), ("RedPajama", 0.73, 0.5, 7.27), ("RefinedWeb", 1.62, 0.8, 5.71)],
)
def test_the_largest_model_is_forecast_from_small_ones_about_as_well_as_published(
    training_set: str, published: float, whole: float, squares: float
) -> None:
    table = over_training(training_set)
    large = table[table["parameters"] > 6e9].iloc[0]
    small = table[table["parameters"] < 5e8]
    ratio = small["tokens"] / small["parameters"]
    smallest = small["parameters"] == small["parameters"].min()
    theirs = small[np.isclose(ratio, 20) | (smallest & np.isclose(ratio, 320))]

    def missed(runs: pd.DataFrame, *, shared: bool = False, delta: float = 1e-3) -> float:
        n, d, y = (runs[name].to_numpy(np.float64) for name in ("parameters", "tokens", "c4_loss"))
        fitted = fit(n, d, y, shared=shared, delta=delta)
        at = (np.array([large[name]], dtype=np.float64) for name in ("parameters", "tokens"))
        return float(100 * abs(fitted(*at)[0] / large["c4_loss"] - 1))

    assert len(theirs) == 5
    assert missed(theirs, shared=True) == pytest.approx(published, abs=0.4)
    assert missed(small, shared=True) < whole
    assert missed(small) < missed(small, delta=np.inf)
    assert missed(small, delta=np.inf) == pytest.approx(squares, abs=0.01)


def cells(n: Floats, d: Floats, y: Floats) -> pd.DataFrame:
    """Return the cells of a family that sees its data once."""
    return pd.DataFrame(
        {"train_flops_per_sample": n, "subset_size": d, "samples_seen": d, "error": y, "runs": 1.0}
    )


def inside(law: str, table: pd.DataFrame, out: NDArray[np.intp], draws: int = 100) -> NDArray[np.bool_]:
    """Return whether held-out cells lie in the 90 % interval of their forecast."""
    left = np.setdiff1d(np.arange(len(table)), out)
    measured = table["error"].to_numpy(np.float64)
    error = np.repeat(measured[None, left], 1 + draws, axis=0)
    found = forecast(law, table.iloc[left], error, Points.of(table.iloc[out]))
    assert found is not None
    low, high = np.quantile(found[1:], (0.05, 0.95), axis=0)
    return np.asarray((low <= measured[out]) & (measured[out] <= high))


@pytest.mark.slow
def test_intervals_within_the_data_cover_held_out_cells_at_their_nominal_rate() -> None:
    held = [
        inside(SHARED, table, np.array([place]))
        for table in (
            cells(*(over_training(name)[column].to_numpy(np.float64)
                    for column in ("parameters", "tokens", "c4_loss")))
            for name in ("C4", "RedPajama", "RefinedWeb")
        )
        for place in range(0, len(table), 2)
    ]  # fmt: skip
    assert 0.85 <= np.concatenate(held).mean() <= 0.96
    n, d = crossed(np.geomspace(1e6, 1e9, 4), np.geomspace(1e7, 1e10, 3))
    held = [
        inside(SHARED, cells(n, d, noisy(n, d, 0.04, seed)), np.array([seed % len(n)])) for seed in range(60)
    ]
    assert 0.83 <= np.concatenate(held).mean() <= 0.97


@pytest.mark.slow
def test_intervals_beyond_the_data_cover_the_largest_cells_when_the_law_bends_away() -> None:
    n, d, error = made_up()
    largest = np.flatnonzero(n * d >= np.sort(n * d)[-6] * 0.97)
    held = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        bend = np.exp(generator.normal(0, 0.05) * np.log(n * d / 1e16) ** 2 / 20)
        noise = np.exp(0.01 * generator.standard_normal(len(n)))
        held.append(inside(PLAIN, cells(n, d, error * bend * noise), largest))
    assert 0.83 <= np.concatenate(held).mean() <= 0.97


def test_bca_corrects_a_skewed_interval() -> None:
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


def repeated_grid(sizes: Floats) -> tuple[Floats, Floats, Floats]:
    """Return sizes, distinct pairs and samples seen of 1 to 64 epochs."""
    n, unique = (np.repeat(values, 4) for values in crossed(sizes, np.geomspace(1e6, 1e8, 5)))
    return n, unique, unique * np.tile([1.0, 4.0, 16.0, 64.0], len(n) // 4)


def test_the_simulated_decay_of_repetition_is_recovered() -> None:
    n, unique, seen = repeated_grid(np.geomspace(1e6, 1e9, 5))
    y = law(n, effective(unique, seen, 15.4))
    found = fit_repeated(n, unique, seen, y)
    assert found.status == "ok"
    assert found.decay == pytest.approx(15.4, rel=1e-3)
    np.testing.assert_allclose(found(Points(n=n, unique=unique, seen=seen)), y, rtol=1e-5)


@pytest.mark.slow
def test_the_simulated_decay_of_parameters_is_recovered_if_the_data_determine_it() -> None:
    n, unique, seen = repeated_grid(np.geomspace(1e6, 1e10, 6))
    fitted = fit(*made_up())
    sizes = effective(best_size(fitted, unique), n, 5.3)
    y = fitted(sizes, effective(unique, seen, 15.4))
    found = fit_repeated(n, unique, seen, y, delta=np.inf)
    assert (found.decay, found.size_decay) == pytest.approx((15.4, 5.3), rel=1e-3)
    assert found.surface.alpha == pytest.approx(fitted.alpha, rel=1e-3)
    np.testing.assert_allclose(found(Points(n=n, unique=unique, seen=seen)), y, rtol=1e-5)
    noise = np.exp(0.03 * np.random.default_rng(0).standard_normal(len(y)))
    vague = fit_repeated(n, unique, seen, fitted(n, effective(unique, seen, 15.4)) * noise, delta=np.inf)
    assert vague.decay == pytest.approx(15.4, rel=0.2)
    assert np.isinf(vague.size_decay)
    assert vague.size_reason.startswith("undecided")


def test_data_seen_once_determine_no_decay() -> None:
    n, d, y = made_up()
    assert fit_repeated(n, 2 * d, d, y).status == "no repetition"


def test_effective_data_are_all_of_one_epoch_and_at_most_one_plus_the_decay() -> None:
    unique = np.full(3, 100.0)
    seen = np.array([50.0, 100.0, 1e9])
    np.testing.assert_allclose(effective(unique, seen, 5.0), [50, 100, 600])
