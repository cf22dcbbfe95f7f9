"""The joint law of a table: what it recovers, how its draws cover, what a trunk shares, and small tables."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.arrays import Floats
from analysis.belief.belief import Belief, Curves, Measured, believe, effects
from analysis.belief.law import JointLaw, fit_joint_law
from analysis.belief.space import SURFACE, Axes, Estimates, Space

CHANCE, FLOOR = 0.99, 0.2
SIZES = np.geomspace(1e9, 3e10, 6)  # forward FLOPs of a sample
SAMPLES = np.geomspace(1e7, 8.1e8, 5)
BEYOND = 3.0
NOISE = 0.004


def surface(size: Floats, samples: Floats) -> Floats:
    """A bounded law of two exponents, .28 and .35."""
    q = 0.9 * (size / 1e9) ** -0.28 + 3.0 * (samples / 1e7) ** -0.35
    return np.asarray(FLOOR + (CHANCE - FLOOR) * q / (1 + q))


def axes_of(size: Floats, samples: Floats, pool: float = np.inf) -> Axes:
    size, samples = np.broadcast_arrays(size, samples)
    compute = np.log(size * samples)
    return Axes(
        size=np.log(size), samples=np.log(samples), distinct=np.log(np.minimum(samples, pool)),
        along=compute - compute[:, :1],
    )  # fmt: skip


def measured(
    errors: Floats, samples: Floats = SAMPLES, size: Floats = SIZES, pool: float = np.inf, **more: bool
) -> Measured:
    """Runs of shape (curves, units, points)."""
    curves = Curves(
        x=3 * size[: len(errors), None] * samples, per_sample=3 * size[: len(errors)],
        pairs=np.full(len(errors), pool), shared=np.zeros((len(errors), 0)),
    )  # fmt: skip
    chance = float("nan") if more.get("loss") else CHANCE
    return Measured(curves=curves, errors=errors, images=50_000.0, chance=chance, **more)


def noisy(truth: Floats, seeds: int, seed: int = 0, noise: float = NOISE) -> Floats:
    generator = np.random.default_rng(seed)
    return np.asarray(truth[:, None] + noise * generator.standard_normal((len(truth), seeds, truth.shape[1])))


def drawn(runs: Measured) -> Belief:
    return believe(runs, draws=1000, generator=np.random.default_rng(0))


def held(draws: Floats, truth: Floats) -> Floats:
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    return np.asarray((low <= truth) & (truth <= high))


@pytest.mark.parametrize("pool", [np.inf, 2e7])
def test_slopes_of_the_surface_equal_differences(pool: float) -> None:
    axes = axes_of(SIZES[:, None], SAMPLES, pool)
    space = Space.of(axes, np.ones(axes.size.shape, dtype=bool), np.zeros((len(SIZES), 0)))
    parameters = np.array([-0.5, -1.2, -0.3, -0.8, 0.2, 2.0])

    def law(at: Floats) -> Floats:
        return space.law(at, axes, space.effective(at, axes))

    slopes = space.slopes(parameters, axes, space.effective(parameters, axes))
    for place, step in enumerate(1e-5 * np.eye(len(parameters))):
        difference = (law(parameters + step) - law(parameters - step)) / 2e-5
        assert slopes[..., place] == pytest.approx(difference, abs=1e-7)
    assert slopes[..., 5].any() == np.isfinite(pool)


def test_states_of_trunks_have_ln_q_tilted_with_all_that_acts_on_it() -> None:
    axes = replace(axes_of(SIZES[:, None], np.tile(SAMPLES, 2)), trunk=np.arange(10) // 5 * np.ones((6, 1)))
    space = Space.of(axes, np.ones(axes.size.shape, dtype=bool), np.eye(6))
    samples = space.effective(np.zeros(SURFACE), axes)
    by_common, by_own = space.common(axes, samples, np.arange(6)), space.own(axes, samples)

    def tilted(common: Floats, own: Floats) -> tuple[Floats, Floats, Floats]:
        acts = np.concatenate([space.slopes(common[:SURFACE], axes, samples), by_common], axis=-1)
        log_q = space.law(common[:SURFACE], axes, samples) + by_common @ common[SURFACE:] + by_own @ own
        return space.tilted(axes, float(common[SURFACE]), log_q, acts, by_own)

    generator = np.random.default_rng(0)
    common = 0.3 * generator.standard_normal((SURFACE + by_common.shape[2],))
    own = 0.3 * generator.standard_normal((by_own.shape[2],))
    _, of_common, of_own = tilted(common, own)
    for place, step in enumerate(1e-5 * np.eye(len(common))):
        difference = (tilted(common + step, own)[0] - tilted(common - step, own)[0]) / 2e-5
        assert of_common[..., place] == pytest.approx(difference, abs=1e-7)
    for place, step in enumerate(1e-5 * np.eye(len(own))):
        difference = (tilted(common, own + step)[0] - tilted(common, own - step)[0]) / 2e-5
        assert of_own[..., place] == pytest.approx(difference, abs=1e-7)


def test_known_surface_is_recovered_and_forecast() -> None:
    truth = surface(SIZES[:, None], SAMPLES)
    belief = drawn(measured(noisy(truth, 2)))
    assert np.abs(belief.draws.mean(axis=0) - truth).mean() < NOISE / np.sqrt(2)

    ahead = np.array([[BEYOND * SAMPLES[-1]]])
    forecast = belief.errors(axes_along(SIZES, ahead), np.arange(len(SIZES)))
    assert np.abs(np.median(forecast, axis=0) - surface(SIZES[:, None], ahead)).max() < 0.012
    assert held(forecast, surface(SIZES[:, None], ahead)).all()


def axes_along(size: Floats, samples: Floats, first: float = SAMPLES[0]) -> Axes:
    """Axes of curves that begin at the first of ``SAMPLES``."""
    read = axes_of(size[:, None], samples)
    return replace(read, along=read.samples - np.log(first))


def test_draws_equal_the_estimates_if_there_are_many_seeds() -> None:
    wavy = surface(SIZES[:, None], SAMPLES) + 0.02 * np.sin(np.arange(30.0)).reshape(6, 5)
    runs = measured(noisy(wavy, 60, noise=0.02))
    belief = drawn(runs)
    deviation = np.sqrt(belief.noise / 60)
    assert np.abs((belief.draws.mean(axis=0) - runs.mean) / deviation).max() < 1.0
    assert 0.75 < (belief.draws.std(axis=0) / deviation).mean() < 1.05


def test_curve_without_runs_takes_after_its_family() -> None:
    architecture, strategy = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    q = np.exp(-0.3 * architecture - 0.4 * strategy)[:, None] * (SAMPLES / 1e7) ** -0.35
    truth = FLOOR + (CHANCE - FLOOR) * q / (1 + q)
    errors = noisy(truth, 2)
    errors[-1] = np.nan
    runs = measured(errors, size=np.full(12, 1e9))
    runs = replace(runs, curves=replace(runs.curves, shared=effects(architecture, strategy)))
    draws = drawn(runs).draws
    assert held(draws[:, -1], truth[-1]).all()
    width = draws.std(axis=0)
    assert (width[-1] > 2 * width[:-1].mean(axis=0)).all()
    assert (np.abs(np.median(draws[:, -1], axis=0) - truth[-1]) < np.abs(truth[-2] - truth[-1])).all()


def test_forecasts_hold_with_the_stated_probability() -> None:
    shares = []
    for number in range(25):
        generator = np.random.default_rng(number)
        alpha, floor = generator.uniform(0.25, 0.6, (4, 1)), generator.uniform(0.15, 0.4, (4, 1))
        x = np.append(SAMPLES, BEYOND * SAMPLES[-1]) / SAMPLES[0]
        truth = floor + generator.uniform(0.3, 0.5, (4, 1)) * x**-alpha
        belief = drawn(measured(noisy(truth[:, :-1], 2, number), size=SIZES[:4]))
        forecast = belief.errors(axes_along(SIZES[:4], BEYOND * SAMPLES[-1:]), np.arange(4))
        shares.append(held(forecast, truth[:, -1:]).mean())
    assert np.mean(shares) >= 0.85


def test_curves_may_fall_steeply_late() -> None:
    x = np.append(SAMPLES, BEYOND * SAMPLES[-1]) / SAMPLES[-2]
    q = 8 * (1 + x**2) ** -1.25 * np.exp(-0.1 * np.arange(6))[:, None]  # ∂ln q/∂ln x from 0 to −2.5
    truth = 0.05 + (CHANCE - 0.05) * q / (1 + q)
    belief = drawn(measured(noisy(truth[:, :-1], 2)))
    forecast = belief.errors(axes_along(SIZES, BEYOND * SAMPLES[-1:]), np.arange(6))
    assert held(forecast, truth[:, -1:]).mean() >= 0.8


def test_curves_that_turn_up_after_many_epochs_are_forecast_to_rise() -> None:
    epochs = np.append(SAMPLES, BEYOND * SAMPLES[-1]) / SAMPLES[0]
    decline = 0.3 + np.linspace(0.4, 0.3, 6)[:, None] * epochs**-0.5
    truth = decline + 0.02 * np.maximum((epochs / 6) ** 0.6 - 1, 0.0)
    belief = drawn(measured(noisy(truth[:, :-1], 2), pool=SAMPLES[0]))
    ahead = replace(axes_along(SIZES, BEYOND * SAMPLES[-1:]), distinct=np.full((6, 1), np.log(SAMPLES[0])))
    forecast = belief.errors(ahead, np.arange(6))
    assert (np.median(forecast, axis=0)[:, 0] > truth[:, -2]).all()
    assert held(forecast, truth[:, -1:]).mean() >= 0.8


def fitted() -> JointLaw:
    truth = surface(SIZES[:, None], SAMPLES)
    known = Estimates(
        error=truth, covariance=np.broadcast_to(NOISE**2 * np.eye(5), (6, 5, 5)),
        seen=np.ones(truth.shape, dtype=bool), freedom=np.full((6, 1), np.inf),
    )  # fmt: skip
    fit = fit_joint_law(axes_of(SIZES[:, None], SAMPLES), known, np.zeros((6, 0)), chance=CHANCE)
    return fit.draw(50, np.random.default_rng(0))


def test_readings_of_one_law_are_joint_also_far_beyond_its_runs() -> None:
    law, far = fitted(), SAMPLES[-1] * np.array([0.5, 3.0, 30.0, 300.0])
    together = law.errors(axes_along(SIZES, far), np.arange(6))
    for curve in range(6):
        for point in range(4):
            alone = law.errors(axes_along(SIZES[[curve]], far[[point]]), np.array([curve]))
            assert alone[:, 0, 0] == pytest.approx(together[:, curve, point], abs=1e-12)
    width = together.std(axis=0).mean(axis=0)
    assert (np.diff(width) > 0).all(), "the further, the less is known"


def test_losses_have_no_unit() -> None:
    losses = noisy(2.0 + 3 * (SAMPLES / 1e7) ** -0.3 * (SIZES[:, None] / 1e9) ** -0.1, 2, noise=0.01)
    one, thousand = (drawn(measured(unit * losses, loss=True)) for unit in (1.0, 1000.0))
    assert thousand.draws == pytest.approx(1000 * one.draws, rel=1e-6)
    assert one.draws.max() > 4


TRUTH = surface(SIZES[:, None], SAMPLES)
NONE = np.full((6, 2, 5), np.nan)


@pytest.mark.parametrize(
    ("errors", "more"),
    [
        pytest.param(noisy(TRUTH[:1], 2), {}, id="one curve"),
        pytest.param(noisy(TRUTH[:1, :1], 1), {"samples": SAMPLES[:1]}, id="one run"),
        pytest.param(noisy(TRUTH, 1), {}, id="single runs"),
        pytest.param(noisy(TRUTH, 2), {"size": np.full(6, 1e9)}, id="one size"),
        pytest.param(noisy(TRUTH[:, :2], 2), {"samples": SAMPLES[:2]}, id="two points"),
        pytest.param(noisy(np.full((6, 5), 0.5), 3, noise=0.0), {}, id="all the same"),
        pytest.param(noisy(np.full((6, 5), CHANCE), 2), {}, id="chance"),
        pytest.param(np.concatenate([noisy(TRUTH[:3], 2), NONE[:3]]), {}, id="half without runs"),
        pytest.param(NONE, {}, id="no runs"),
        pytest.param(NONE, {"loss": True}, id="no losses"),
        pytest.param(noisy(TRUTH, 2), {"pool": 1e5}, id="thousands of epochs"),
        pytest.param(noisy(5 * TRUTH, 1), {"loss": True, "pool": 1e8}, id="losses of repeats"),
        pytest.param(np.zeros((2, 2, 5)), {}, id="no errors"),
        pytest.param(np.concatenate([NONE, noisy(TRUTH, 2)], axis=2), {}, id="states of trunks alone"),
        pytest.param(noisy(np.tile(5 * TRUTH[:1], 2), 1), {"loss": True}, id="losses of a trunk"),
    ],
)
def test_tables_that_say_little_are_drawn(errors: Floats, more: dict[str, Floats]) -> None:
    belief = drawn(measured(errors, **more))  # type: ignore[arg-type]
    assert belief.draws.shape == (1000, len(errors), errors.shape[2])
    assert np.isfinite(belief.draws).all()
    assert (belief.draws.std(axis=0) > 0).all()


TWO_LEVELS, SAME_SIZE = np.array([1e4, 3e4]), np.full(8, 1e7 / 3)
LUCK = 0.03


def alone(errors: Floats) -> Floats:
    """Return the same runs, each a unit of its own."""
    curves, units, points = errors.shape
    found = np.full((curves, units * points, points), np.nan)
    for point in range(points):
        found[:, point * units : (point + 1) * units, point] = errors[:, :, point]
    return found


@pytest.fixture
def trunks() -> Floats:
    """Eight curves of three trunks whose levels share their noise; the last has one run at one level."""
    generator = np.random.default_rng(0)
    common = LUCK * generator.standard_normal((8, 3, 1))
    errors = np.array([0.6, 0.5]) + common + 0.1 * LUCK * generator.standard_normal((8, 3, 2))
    errors[-1] = [[0.6 + LUCK, 0.5 + LUCK], [0.6 - LUCK, np.nan], [np.nan, np.nan]]
    return errors


def test_a_single_run_is_corrected_by_how_its_trunk_did_at_the_other_level(
    trunks: Floats,
) -> None:
    shared, separate = (
        believe(
            measured(errors, TWO_LEVELS, SAME_SIZE), draws=4000, generator=np.random.default_rng(1)
        ).draws[:, -1, 1]
        for errors in (trunks, alone(trunks))
    )

    assert abs(shared.mean() - 0.5) < 0.01
    assert separate.mean() - shared.mean() > 0.005
    assert shared.std() < separate.std(), "the other level tells most of this run's noise"


def test_shared_noise_blurs_the_height_of_a_curve_and_not_its_fall(trunks: Floats) -> None:
    shared, separate = (
        believe(
            measured(errors, TWO_LEVELS, SAME_SIZE), draws=4000, generator=np.random.default_rng(1)
        ).draws[:, 0]
        for errors in (trunks, alone(trunks))
    )

    assert shared.sum(axis=1).std() > 1.1 * separate.sum(axis=1).std()
    assert np.ptp(shared, axis=1).std() < 0.8 * np.ptp(separate, axis=1).std()
