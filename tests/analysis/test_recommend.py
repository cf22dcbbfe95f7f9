"""What is recommended, how far it may be forecast, and what would decide."""

import numpy as np
import pandas as pd
import pytest

from analysis.bootstrap import cell_draws
from analysis.holdout import holdout
from analysis.laws import laws
from analysis.recommend import Recommendation, recommend
from analysis.recommend_text import recommendation_lines
from analysis.table import tidy
from tests.analysis.synthetic import study, trial_row

LEVELS = tuple(np.geomspace(2e11, 1e13, 6))
POOL = 8192.0


def small(level: float) -> float:
    return float(0.42 + 0.3 * (level / 2e11) ** -0.5)


def large(level: float) -> float:
    return float(0.30 + 0.5 * (level / 2e11) ** -0.4)


def crossing(*, seeds: int = 3, noise: float = 0.003) -> pd.DataFrame:
    """Two architectures on all of the pool: the larger is ahead from 6e11 FLOPs on."""
    generator = np.random.default_rng(11)
    rows = []
    for architecture, law in (("ViT-X", small), ("ViT-M", large)):
        for level in LEVELS:
            rows += [
                trial_row((8192, "all", architecture, "clip"), level, seed, law(level) + noise * float(shift))
                for seed, shift in enumerate(generator.standard_normal(seeds))
            ]
    return pd.DataFrame(rows)


def recommended(
    results: pd.DataFrame, flops: float, pairs: float = POOL, limit: float = 30.0
) -> Recommendation:
    draws = cell_draws(tidy(results, metric="held-out/top1"), question="laws")
    fitted = tuple(laws(draws, along="compute"))
    return recommend(draws, fitted, holdout(draws, fitted), flops=flops, pairs=pairs, limit=limit)


def test_the_small_model_is_recommended_early_and_the_large_one_late() -> None:
    results = crossing()
    early, late = recommended(results, 2.5e11), recommended(results, 8e12)
    assert (early.candidates["architecture"][0], late.candidates["architecture"][0]) == ("ViT-X", "ViT-M")
    assert (early.choice.verdict, late.choice.verdict) == ("clear", "clear")
    assert not late.candidates["beyond"].any()
    assert late.experiment.startswith("to confirm, run ViT-M")


def test_a_forecast_beyond_the_data_holds_the_truth_and_is_wider_than_within() -> None:
    results = crossing()
    within, beyond = (recommended(results, flops).candidates.iloc[0] for flops in (9e12, 6e13))
    assert beyond["low"] < large(6e13) < beyond["high"]
    assert beyond["high"] - beyond["low"] > within["high"] - within["low"]
    assert beyond["factor"] == pytest.approx(6, rel=1e-3)


def test_a_forecast_past_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no curve can be forecast at 400 TFLOP: measured budgets end more"):
        recommended(crossing(), 4e14)
    assert len(recommended(crossing(), 4e14, limit=50).candidates) == 2


def test_a_subset_that_the_pool_does_not_hold_is_not_recommended() -> None:
    results = study(levels=LEVELS).results
    found = recommended(results, 5e12, pairs=POOL)
    assert found.left_out.empty
    less = recommended(results, 5e12, pairs=2600)
    assert set(less.candidates["subset_size"]) == {512.0, 1024.0}
    assert (less.left_out["reason"] == "needs a pool of some 8,190 pairs").sum() > 0


def test_in_one_epoch_a_model_stops_where_its_data_end() -> None:
    results = crossing()
    size = results["samples_seen"]
    one = results.assign(regime="one-epoch", subset_size=size, epochs=1.0, level_flops=np.nan)
    found = recommended(one, 1e13, pairs=100_000)
    row = found.candidates.iloc[0]
    assert row["subset_size"] == pytest.approx(100_000)
    assert row["flops"] < 1e13
    assert (
        "uses up its data"
        in recommendation_lines(found, flops=1e13, pairs=1e5, source="x", metric="held-out/top1")[1]
    )


def test_configurations_within_the_noise_are_a_tie_and_the_experiment_has_its_seeds() -> None:
    results = crossing(noise=0.02)
    found = recommended(results, 6e11)
    assert found.choice.verdict == "tie"
    assert " seeds each" in found.experiment


def test_one_seed_asks_for_seeds_first() -> None:
    found = recommended(crossing(seeds=1), 8e12)
    assert found.choice.verdict == "undecided"
    assert "three seeds each: the noise between seeds was not measured" in found.experiment


def test_two_budgets_leave_nothing_to_forecast_by() -> None:
    with pytest.raises(ValueError, match="nothing can be forecast: the curves have too few levels"):
        recommended(study(levels=LEVELS[:2]).results, 1e12)


def test_a_loss_is_worded_as_one() -> None:
    results = crossing().drop(columns=["held-out/top1", "style/top1"])
    results["text/loss"] = 3 * (1 - crossing()["held-out/top1"])
    draws = cell_draws(tidy(results, metric="text/loss"), question="laws")
    fitted = tuple(laws(draws, along="compute"))
    found = recommend(draws, fitted, holdout(draws, fitted), flops=8e12, pairs=POOL)
    lines = recommendation_lines(found, flops=8e12, pairs=POOL, source="x", metric="text/loss")
    assert lines[2].startswith(f"  predicted loss {3 * large(8e12):.2f}")
    assert lines[-1] == "  points: hundredths of the loss"


def test_an_architecture_of_several_costs_a_sample_is_no_one_configuration() -> None:
    results = crossing()
    late = results["level_flops"] > LEVELS[2]
    results.loc[late, "train_flops_per_sample"] *= 2
    with pytest.raises(ValueError, match="several costs a sample: it is no one configuration"):
        recommended(results, 8e12)


def sizes_of_one_law() -> pd.DataFrame:
    """Five transformers of one surface, at three budgets each: too few for laws of single curves."""
    generator = np.random.default_rng(6)
    rows = []
    for place, cost in enumerate(np.geomspace(4e6, 1e8, 5)):
        for level in (2e11, 2e12, 2e13):
            truth = 0.1 + 60 * cost**-0.35 + 4 * (level / cost) ** -0.3
            for seed in range(3):
                row = trial_row((8192, "all", "ViT-X", "clip"), level, seed, truth)
                error = truth * (1 + 0.004 * float(generator.standard_normal()))
                mine = {"trial": f"{place}-{level}-{seed}", "architecture": f"ViT-{place}"}
                seen = {"train_flops": level, "train_flops_per_sample": cost, "samples_seen": level / cost}
                rows.append(row | mine | seen | {"subset_size": 10**8, "held-out/top1": 1 - error})
    return pd.DataFrame(rows)


def test_a_family_is_forecast_by_its_surface_where_that_forecasts_best() -> None:
    found = recommended(sizes_of_one_law(), 1e14, pairs=1e8)
    first = found.candidates.iloc[0]
    assert first["law"] == "surface in model size and data"
    truth = {f"ViT-{place}": 0.1 + 60 * cost**-0.35 + 4 * (1e14 / cost) ** -0.3
             for place, cost in enumerate(np.geomspace(4e6, 1e8, 5))}  # fmt: skip
    assert first["low"] < truth[first["architecture"]] < first["high"]
    assert first["error"] == pytest.approx(truth[first["architecture"]], abs=0.01)
    assert "of its family, where the power law" in first["law_reason"]


def test_the_lines_say_law_error_distance_and_runner_up() -> None:
    found = recommended(crossing(), 6e13)
    text = "\n".join(
        recommendation_lines(found, flops=6e13, pairs=POOL, source="made up", metric="held-out/top1")
    )
    assert text.startswith(
        "60 TFLOP and a pool of 8,192 pairs, from made up:\n  train ViT-M, CLIP, 8,192 pairs"
    )
    assert "6 times beyond the measured budgets" in text
    assert "it missed held-out budgets by" in text
    assert "runner-up: ViT-X" in text
