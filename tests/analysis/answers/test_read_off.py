"""Configurations without a cell of the same cost are compared by their curves over compute."""

import numpy as np
import pandas as pd
import pytest

from analysis.answers.frontier import at_compute, frontier, read
from analysis.cells.bootstrap import CellDraws, cell_draws
from analysis.cells.curves import bends, straight_lines
from analysis.cells.pareto import costs
from analysis.cells.table import tidy
from tests.analysis.synthetic import trial_row

COST = {"ViT-X": 1e8, "ViT-S": 1.7e8}
X, Y = np.array([1.0, 4.0, 16.0]), np.array([[0.8, 0.6, 0.5]])


def once(
    samples: tuple[float, ...], *, noise: float = 0.0, seed: int = 0, gap: float = 0.0, alpha: float = 0.35
) -> pd.DataFrame:
    """Return two architectures in one epoch on one law of compute; the larger one is worse by ``gap``."""
    generator = np.random.default_rng(seed)
    rows = []
    for architecture, cost in COST.items():
        for seen in samples:
            flops = seen * cost
            error = 0.3 + 0.5 * (flops / 2e11) ** -alpha + (gap if architecture == "ViT-S" else 0.0)
            for run in range(3):
                row = trial_row((int(seen), "all", architecture, "clip"), flops, run, 0.5)
                rows.append(
                    row | {
                        "regime": "one-epoch", "level_flops": np.nan, "samples_seen": seen, "epochs": 1.0,
                        "train_flops": flops, "held-out/count": 1e6,
                        "held-out/top1": 1 - error - noise * float(generator.standard_normal()),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def drawn(results: pd.DataFrame, question: str = "read") -> CellDraws:
    return cell_draws(tidy(results, metric="held-out/top1"), question=question, draws=500)


def test_a_curve_is_read_off_by_straight_lines_in_the_logarithm_of_compute() -> None:
    np.testing.assert_allclose(read(X, Y, np.array([1.0, 2.0, 8.0, 16.0])), [[0.8, 0.7, 0.55, 0.5]])


def test_a_steep_first_step_sags_as_its_power_law_with_floor_does() -> None:
    x, at = np.array([1.0, 5.0, 25.0]), np.array([1.7, 3.0])
    _, sag = bends(x, 0.3 + 0.5 / x, at)
    np.testing.assert_allclose(straight_lines(x, 0.3 + 0.5 / x[None], at)[0] - sag, 0.3 + 0.5 / at)


def test_configurations_at_a_compute_can_be_chosen_from() -> None:
    draws = drawn(once((1e3, 4e3), noise=0.01))
    both = at_compute(draws, costs(draws.cells), 3e11)
    (second,) = both.take(np.array([1])).cells["architecture"]
    assert second == both.cells["architecture"].iloc[1]
    assert len(both.stacked()) == len(both.with_measured()), "no run is left out of a reading"


def test_a_curve_has_no_value_before_its_first_cell_and_keeps_its_last_value() -> None:
    np.testing.assert_allclose(read(X, Y, np.array([0.9, 0.99, 100.0])), [[np.inf, 0.8, 0.5]])
    rising = np.array([[0.8, 0.5, 0.6]])
    np.testing.assert_allclose(read(X, rising, np.array([8.0, 100.0])), [[0.5, 0.5]])


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "step"), [(0.35, 3.0), (1.0, 5.0)])
def test_a_cell_at_the_compute_does_not_make_one_of_two_equal_curves_clear(alpha: float, step: float) -> None:
    samples = (2e3, 2e3 * step, 2e3 * step**2, 2e3 * step**3)
    found = pd.concat([
        frontier(drawn(once(samples, noise=noise, seed=seed, alpha=alpha), str(seed)))
        for noise in (0.0005, 0.004)
        for seed in range(4)
    ])  # fmt: skip
    compared = found[found["configurations"] > 1]
    assert len(compared) > 40
    assert (compared["verdict"] == "clear").mean() <= 0.1


def test_a_gap_far_outside_noise_and_bend_is_clear() -> None:
    found = frontier(drawn(once((2e3, 6e3, 18e3, 54e3), noise=0.002, gap=0.05)))
    assert set(found["architecture"]) == {"ViT-X"}
    assert found["verdict"].tolist() == ["undecided", *["clear"] * 3]
    assert found["reason"].iloc[0] == "no other configuration was run at this compute or below"
    assert found["runner_up"].iloc[1] == "ViT-S, CLIP, all", (
        "between two of its cells it has no number of pairs"
    )


def test_a_configuration_run_only_at_less_compute_leaves_the_best_undecided() -> None:
    results = once((2e3, 18e3), noise=0.002)
    kept = (results["architecture"] == "ViT-S") | (results["samples_seen"] < 3e3)
    last = frontier(drawn(results[kept])).iloc[-1]
    assert (last["architecture"], last["verdict"]) == ("ViT-S", "undecided")
    assert last["reason"].endswith(", but ViT-X, CLIP, all was run at only one, lower compute")


def test_the_lead_over_a_curve_that_ends_earlier_lies_within_its_interval() -> None:
    results = once((2e3, 6e3, 18e3, 54e3), noise=0.002, gap=0.2)
    near = results[(results["architecture"] == "ViT-X") | (results["samples_seen"] < 7e3)]
    last = frontier(drawn(near)).iloc[-1]
    assert (last["architecture"], last["verdict"]) == ("ViT-X", "clear")
    assert last["gap_low"] < last["gap"] < last["gap_high"]
    kept = 0.5 + 0.5 * (6e3 * COST["ViT-S"] / 2e11) ** -0.35
    assert last["runner_up_error"] < kept - 0.01, "its error may have fallen since its last cell"
    assert "as the runner-up, which was run at less compute only, may have fallen by then" in last["reason"]


@pytest.mark.parametrize("alpha", [0.02, 0.05])
def test_of_two_equal_configurations_the_one_that_was_run_further_is_not_clear(alpha: float) -> None:
    results = once((2e3, 6e3, 18e3, 54e3), noise=0.002, alpha=alpha)
    further = results[(results["architecture"] == "ViT-X") | (results["samples_seen"] < 2e4)]
    last = frontier(drawn(further)).iloc[-1]
    assert (last["architecture"], last["verdict"]) == ("ViT-X", "undecided")
    assert "run at less compute only and might be lower here" in last["reason"]


def test_a_runner_up_that_may_have_fallen_below_the_leader_is_not_shown_ahead() -> None:
    results = once((2e3, 6e3, 18e3, 54e3), noise=0.002, gap=0.01)
    near = results[(results["architecture"] == "ViT-X") | (results["samples_seen"] < 7e3)]
    last = frontier(drawn(near)).iloc[-1]
    assert last["verdict"] != "clear"
    assert last["gap"] > 0
    assert last["runner_up_error"] == pytest.approx(last["error"] + last["gap"])


def test_the_draws_of_a_reading_lie_below_the_straight_line() -> None:
    draws = drawn(once((2e3, 6e3, 18e3), noise=0.0005))
    (place,) = np.flatnonzero((draws.cells["architecture"] == "ViT-X") & (draws.cells["budget"] == 6e3))
    cost = costs(draws.cells)
    here = at_compute(draws, cost, float(cost[place]))
    other = int(np.flatnonzero(here.cells["architecture"] == "ViT-S")[0])
    truth = 0.3 + 0.5 * (cost[place] / 2e11) ** -0.35
    line = float(here.cells["error"].iloc[other])
    assert line > truth + 0.005
    low, high = np.quantile(here.draws[:, other], (0.05, 0.95))
    assert low < truth < high < line + 0.001
    assert here.cells["error"].iloc[1 - other] == pytest.approx(truth, abs=0.001)


def test_a_curve_that_ties_only_by_falling_on_is_named_and_makes_the_best_undecided() -> None:
    results = once((2e3, 6e3, 18e3, 54e3), noise=0.002, gap=0.05)
    near = results[(results["architecture"] == "ViT-X") | (results["samples_seen"] < 7e3)]
    last = frontier(drawn(near)).iloc[-1]
    assert (last["architecture"], last["verdict"]) == ("ViT-X", "undecided")
    assert last["reason"].endswith("; ViT-S, CLIP, all was run at less compute only and might be lower here")
    assert len(last["leaders"]) == 1
    assert set(frontier(drawn(results))["verdict"].iloc[1:]) == {"clear"}
