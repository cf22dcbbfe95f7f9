"""Runs chosen for the forecast of a surface, on surfaces whose values are known."""

import numpy as np
import pytest

from analysis.design.surface_design import SurfaceBelief, believe_surface, plan_runs
from analysis.laws.surfaces.repeated import Points, effective
from analysis.laws.varying import PRIOR, VaryingLaw

NOISE = 0.002


def grid() -> Points:
    """Return 48 places of eight sizes, up to eight epochs, then two that cost four times the dearest."""
    axes = np.meshgrid(np.geomspace(1e7, 1e9, 8), [1.0, 8.0], [1e9, 4e9, 1.6e10], indexing="ij")
    n, epochs, unique = (axis.ravel() for axis in axes)
    return Points(
        n=np.append(n, [4e9, 1e9]),
        unique=np.append(unique, [6.4e10, 6.4e10]),
        seen=np.append(unique * epochs, [1.28e11, 5.12e11]),
    )


def chinchilla(places: Points) -> np.ndarray:
    data = effective(places.unique, places.seen, 15.0)
    return np.asarray(1.8 + 480 * places.n**-0.35 + 2100 * data**-0.37)


def forecast(runs: np.ndarray, *, failed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return errors of the forecast at the two targets, and their standard deviations, both of ln y.

    A failed run has a loss that is 12 % too high.
    """
    places, generator = grid(), np.random.default_rng(len(runs))
    y = chinchilla(places) * np.exp(NOISE * generator.standard_normal(len(places.n)))
    y[np.arange(len(y)) == failed] *= 1.12
    belief = believe_surface(places, runs, y[runs], generator=generator)
    off = belief.mean - np.log(chinchilla(places))
    return off[-2:], np.sqrt(np.diag(belief.covariance)[-2:])


def plan(belief: SurfaceBelief, cost: list[float], room: float) -> list[int]:
    free = np.arange(len(cost)) < len(cost) - 1
    found = plan_runs(
        belief, cost=np.array(cost), free=free, target=np.array([len(cost) - 1]), weights=np.ones(1),
        room=room,
    )  # fmt: skip
    return [int(place) for place in found]


def test_law_with_fixed_height_and_exponent_is_a_power_law() -> None:
    places = grid()
    law = VaryingLaw.about(places)
    theta = np.array([0.5, 0.0, 0.0, -1.0, 0.0, 0.0, np.log(0.4), 0.0, 0.0, np.log(15.0), 0.0])
    data = effective(places.unique, places.seen, 15.0)

    expected = np.exp(0.5) + np.exp(-0.5) * (data / law.unit_d) ** -0.4

    assert np.exp(law(theta[None])[0]) == pytest.approx(expected, rel=1e-9)
    assert law.slopes(theta)[:, 0] == pytest.approx(1.0)
    assert PRIOR.shape == (2, len(theta))


def test_plan_takes_the_most_informative_runs_within_the_room() -> None:
    # The target has variance 1 and correlates with three places by .9, .3 and 0; a run has no noise.
    covariance = np.eye(4)
    covariance[3, :3] = covariance[:3, 3] = [0.9, 0.3, 0.0]
    belief = SurfaceBelief(mean=np.zeros(4), covariance=covariance, noise=1e-12)

    assert plan(belief, [10.0, 1.0, 1.0, 99.0], 10.0)[0] == 0
    assert plan(belief, [10.0, 1.0, 1.0, 99.0], 9.0) == [1, 2]
    assert plan(belief, [10.0, 1.0, 1.0, 99.0], 0.5) == []


def test_forecast_of_a_region_beyond_the_runs_holds_the_truth_within_its_spread() -> None:
    places = grid()
    cost = 6 * places.n * places.seen
    free = np.arange(len(cost)) < len(cost) - 2
    before = believe_surface(
        places, np.array([], dtype=np.intp), np.array([]), generator=np.random.default_rng(0)
    )
    runs = plan_runs(
        before, cost=cost, free=free, target=np.array([48, 49]), weights=np.ones(2),
        room=0.05 * float(cost[:-2].sum()),
    )  # fmt: skip

    off, spread = forecast(runs)

    assert cost[runs].sum() <= 0.05 * cost[:-2].sum()
    assert len(set(runs.tolist())) == len(runs)
    assert np.abs(off).max() < 0.03
    assert np.abs(off / spread).max() < 2
    cheapest = np.argsort(cost[:-2])[: len(runs)]
    assert spread.max() < forecast(cheapest)[1].max()


@pytest.mark.slow
def test_failed_run_moves_the_forecast_little() -> None:
    runs = np.arange(48)

    off, _ = forecast(runs, failed=46)

    assert np.abs(off).max() < 0.02
