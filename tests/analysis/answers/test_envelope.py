"""The envelope over compute, and the change of the best quality along it."""

import numpy as np
import pandas as pd
import pytest

from analysis.answers.envelope import Envelope, envelopes
from analysis.answers.quality_trade import quality_trades
from analysis.cells.bootstrap import CellDraws, cell_draws
from analysis.cells.pareto import undominated
from analysis.cells.study_frames import StudyFrames
from analysis.cells.table import tidy
from analysis.labels import quality_fraction
from analysis.laws.holdout import holdout
from analysis.laws.laws import laws
from tests.analysis.synthetic import QUALITIES, trial_row

LEVELS = tuple(np.geomspace(2e11, 2e13, 5))


def drawn(results: pd.DataFrame) -> CellDraws:
    return cell_draws(tidy(results, metric="held-out/top1"), question="laws")


def enveloped(results: pd.DataFrame) -> Envelope:
    """Return the only envelope of a study's curves over compute."""
    draws = drawn(results)
    (found,) = envelopes(draws, holdout(draws, tuple(laws(draws, along="compute"))).choices)
    return found


def pools(pairs: int, *, seeds: int = 3, turn: float = 0.0, noise: float = 0.004) -> pd.DataFrame:
    """Return three qualities of a pool; the log of the best fraction grows with the budget by ``turn``."""
    generator = np.random.default_rng(2)
    rows = []
    for level in LEVELS:
        best = np.log(0.4) + turn * np.log(level / LEVELS[2])
        for quality, fraction in QUALITIES.items():
            error = 0.5 - 0.03 * np.log(level / 2e11) + 0.04 * (np.log(fraction) - best) ** 2
            rows += [
                trial_row(
                    (int(pairs * fraction), quality, "ViT-X", "clip"), level, seed,
                    float(error) + noise * float(generator.standard_normal()),
                )
                for seed in range(seeds)
            ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_cell_is_on_the_frontier_where_no_cheaper_one_is_better() -> None:
    compute = np.array([1.0, 2.0, 2.0, 4.0, 8.0])
    error = np.array([[0.5, 0.6, 0.4, 0.45, 0.3], [0.5, 0.3, 0.4, 0.2, 0.3]])
    assert undominated(compute, error).tolist() == [
        [True, False, True, False, True],
        [True, True, False, True, False],
    ]


@pytest.mark.slow
def test_the_envelope_is_the_law_through_the_best_of_each_budget(frames: StudyFrames) -> None:
    found = enveloped(frames.results)
    assert found.fit.levels == 3
    assert found.pareto["error"].is_monotonic_decreasing
    assert found.pareto["train_flops"].is_monotonic_increasing
    assert found.pareto["probability"].between(0, 1).all()
    assert found.pareto["probability"].iloc[-1] > 0.5


@pytest.mark.slow
def test_the_exponent_of_the_envelope_lies_in_its_interval() -> None:
    rows = []
    generator = np.random.default_rng(4)
    for level in LEVELS:
        for architecture, shift in (("ViT-X", 0.0), ("ViT-M", 0.1)):
            for seed in range(3):
                error = 0.3 + 0.4 * (level / 2e11) ** -0.35 + shift + 0.004 * generator.standard_normal()
                rows.append(trial_row((8192, "all", architecture, "clip"), level, seed, float(error)))
    found = enveloped(pd.DataFrame(rows))
    assert set(found.pareto["architecture"]) == {"ViT-X"}
    assert found.alpha.low < 0.35 < found.alpha.high
    assert found.alpha.bca_low < 0.35 < found.alpha.bca_high
    assert found.floor.low < 0.3 < found.floor.high


@pytest.mark.parametrize(
    ("turn", "verdict"), [(0.3, "filter less"), (-0.3, "filter more"), (0.0, "undecided")]
)
def test_the_simulated_trend_of_the_best_fraction_is_found(turn: float, verdict: str) -> None:
    (found,) = quality_trades(drawn(pools(8192, turn=turn)))
    assert (found.along, found.verdict) == ("budget", verdict)
    assert np.sign(round(found.slope, 9)) == np.sign(turn)
    # Between the fractions tried the best one is not known, however sure the choice among them is.
    step = float(np.log(found.best["x"].iloc[-1] / found.best["x"].iloc[0]))
    assert found.slope_low + 0.5 * np.log(2) / step < found.slope < found.slope_high - 0.5 * np.log(2) / step
    if verdict != "undecided":
        assert found.best["fraction"].iloc[[0, -1]].nunique() == 2


def test_one_seed_decides_no_trade() -> None:
    (found,) = quality_trades(drawn(pools(8192, seeds=1, turn=0.3)))
    assert (found.verdict, found.reason) == ("undecided", "the noise between seeds was not measured")
    assert np.isnan(found.slope_low)


def test_mixtures_are_not_fractions_of_a_pool() -> None:
    alone = pools(8192, turn=0.3)
    mixed = alone[alone["quality"] == "all"].assign(quality="mixture:half", **{"held-out/top1": 0.99})
    mixed = mixed.assign(trial=mixed["trial"] + "-mixed")
    (found,) = quality_trades(drawn(pd.concat([alone, mixed], ignore_index=True)))
    assert found.verdict == "filter less"
    (only,) = quality_trades(drawn(alone))
    assert found.best["fraction"].tolist() == only.best["fraction"].tolist()
    assert quality_trades(drawn(mixed)) == ()


def test_two_pools_are_compared_at_each_budget() -> None:
    small = pools(8192)
    small = small.assign(trial=small["trial"] + "-small")
    both = pd.concat([small, pools(65_536)], ignore_index=True)
    found = quality_trades(drawn(both))
    assert [trade.along for trade in found] == ["budget", "budget", *["pool"] * 5]
    assert found[-1].best["x"].tolist() == pytest.approx([8192, 65_536], rel=0.01)


def test_cells_of_nearly_equal_cost_count_as_equally_expensive() -> None:
    error = np.array([[0.5, 0.4]])
    for start in np.geomspace(1.0, 1.1, 50):
        assert undominated(np.array([start, 1.02 * start]), error).tolist() == [[False, True]]
        assert undominated(np.array([start, 1.05 * start]), error).tolist() == [[True, True]]


def test_rounding_to_whole_batches_adds_no_point_to_the_frontier() -> None:
    rows = [
        trial_row(
            (8192, "all", architecture, "clip"), level, seed, error - 0.05 * float(np.log(level / 2e11))
        )
        | {"train_flops": share * level}
        for level in LEVELS
        for architecture, share, error in (("ViT-X", 0.9, 0.61), ("ViT-S", 0.999, 0.60))
        for seed in range(2)
    ]
    found = enveloped(pd.DataFrame(rows))
    assert set(found.pareto["architecture"]) == {"ViT-S"}
    assert len(found.read) == len(LEVELS)


def test_the_envelope_runs_along_the_lines_between_the_cells_of_a_curve() -> None:
    rows = [
        trial_row((int(seen), "all", architecture, "clip"), seen * cost, 0, 0.5)
        | {
            "regime": "one-epoch", "level_flops": np.nan, "samples_seen": seen, "train_flops": seen * cost,
            "held-out/top1": 1 - (0.3 + 0.5 * (seen * cost / 2e11) ** -0.35 + shift),
        }
        for architecture, cost, shift in (("ViT-X", 1e8, 0.0), ("ViT-S", 1.7e8, 0.1))
        for seen in (2e3, 4e3, 8e3, 16e3)
    ]  # fmt: skip
    found = enveloped(pd.DataFrame(rows))
    assert set(found.pareto["architecture"]) == {"ViT-X"}, "the other one has no cell that is not beaten"
    assert found.read["train_flops"].max() == found.pareto["train_flops"].max()
    law = 0.3 + 0.5 * (found.read["train_flops"] / 2e11) ** -0.35
    np.testing.assert_allclose(found.read["error"], law, atol=0.01)
    assert len(found.read) > len(found.pareto)


def test_fractions_that_were_not_tried_everywhere_make_no_trend() -> None:
    rows = pools(8192, turn=0.0)
    late = rows["level_flops"] > rows["level_flops"].median()
    purest = rows["quality"].map(quality_fraction) == rows["quality"].map(quality_fraction).min()
    # The purest is always the best, and was not run at the higher levels.
    accuracy = rows["held-out/top1"].where(~purest, 0.9)
    (found,) = quality_trades(drawn(rows.assign(**{"held-out/top1": accuracy})[~(late & purest)]))
    assert found.verdict == "undecided"
    assert found.slope == pytest.approx(0.0, abs=0.05)
