"""Recommendations: the configuration, the limit of extrapolation, and experiments that would decide a tie."""

import numpy as np
import pandas as pd
import pytest

from analysis.answers.candidates import smallest_pool
from analysis.answers.frontier import frontier
from analysis.answers.recommendation import Recommendation, recommend
from analysis.answers.recommendation_text import recommendation_lines
from analysis.cells.bootstrap import CellDraws, cell_draws
from analysis.cells.study_frames import as_planned, lost_cells, with_budgets
from analysis.cells.table import tidy
from analysis.laws.holdout import Holdout, holdout
from analysis.laws.laws import Law, laws
from analysis.laws.surface_forecast import SURFACES
from budgets.quality import count_available
from tests.analysis.synthetic import study, trial_row
from tests.root import ROOT

pytestmark = pytest.mark.slow

LEVELS = tuple(np.geomspace(2e11, 1e13, 6))
POOL = 8192.0


def small(level: float) -> float:
    return float(0.42 + 0.3 * (level / 2e11) ** -0.5)


def large(level: float) -> float:
    return float(0.30 + 0.5 * (level / 2e11) ** -0.4)


def crossing(*, seeds: int = 3, noise: float = 0.003) -> pd.DataFrame:
    """Return two architectures on the whole pool; the larger one is better from 6e11 FLOPs on."""
    generator = np.random.default_rng(11)
    rows = []
    for architecture, law in (("ViT-X", small), ("ViT-M", large)):
        for level in LEVELS:
            rows += [
                trial_row((8192, "all", architecture, "clip"), level, seed, law(level) + noise * float(shift))
                for seed, shift in enumerate(generator.standard_normal(seeds))
            ]
    return pd.DataFrame(rows)


ANALYSED: dict[int, tuple[CellDraws, tuple[Law, ...], Holdout]] = {}


def recommended(
    results: pd.DataFrame,
    flops: float,
    pairs: float = POOL,
    limit: float = 30.0,
    plan: pd.DataFrame | None = None,
) -> Recommendation:
    return recommend(*analysed(results), flops=flops, pairs=pairs, limit=limit, plan=plan)


def analysed(results: pd.DataFrame) -> tuple[CellDraws, tuple[Law, ...], Holdout]:
    """Return the laws of a study; one that several tests use is analysed once."""
    key = int(pd.util.hash_pandas_object(results).sum())
    if key not in ANALYSED:
        draws = cell_draws(tidy(results, metric="held-out/top1"), question="laws")
        fitted = tuple(laws(draws, along="compute"))
        ANALYSED[key] = draws, fitted, holdout(draws, fitted)
    return ANALYSED[key]


def test_the_small_model_is_recommended_early_and_the_large_one_late() -> None:
    results = crossing()
    early, late = recommended(results, 2.5e11), recommended(results, 8e12)
    assert (early.candidates["architecture"][0], late.candidates["architecture"][0]) == ("ViT-X", "ViT-M")
    assert (early.choice.verdict, late.choice.verdict) == ("clear", "clear")
    assert not late.candidates["beyond"].any()
    assert late.experiment.startswith("to confirm, run ViT-M")


def test_nothing_is_clear_while_planned_configurations_or_seeds_have_no_result() -> None:
    results = crossing()
    third = results["architecture"].eq("ViT-M") & results["seed"].gt(0)
    largest = results["level_flops"].eq(LEVELS[-1])
    absent = results.assign(architecture="ConvNeXt-C", trial=results["trial"] + "-c")
    cases = {
        "all ended": (results, "clear"),
        "another seed of the largest level": (results[~(third & largest)], "undecided"),
        "a third architecture": (results, "undecided"),
    }
    for what, (ran, verdict) in cases.items():
        plan = pd.concat([results, absent]) if what.startswith("a third") else results
        planned = with_budgets(plan.assign(chosen=True), tidy(ran, metric="held-out/top1"))
        found = recommended(ran, LEVELS[-1], plan=planned)
        assert found.choice.verdict == verdict, what
        if verdict == "undecided":
            assert found.choice.reason.startswith("so far ahead by ")
            assert found.choice.reason.endswith(" planned trials without a result")
            assert found.experiment.startswith("run what was planned and has no result: ")
    # What a design left out makes the best undecided, and the next experiment stays.
    left = pd.concat([results.assign(chosen=True), absent.assign(chosen=False)])
    found = recommended(results, LEVELS[-1], plan=with_budgets(left, tidy(results, metric="held-out/top1")))
    assert found.choice.verdict == "undecided"
    assert found.choice.reason.endswith("; 1 configuration of the grid that might be best not run here")
    assert found.experiment == recommended(results, LEVELS[-1]).experiment
    # A smaller budget than that of the missing trials does not wait for them.
    early = with_budgets(results.assign(chosen=True), tidy(results[~largest], metric="held-out/top1"))
    assert recommended(results[~largest], LEVELS[-2], plan=early).choice.verdict == "clear"


def with_a_third() -> pd.DataFrame:
    """Return two architectures that cross, and a third one that is worse throughout."""
    results = crossing()
    third = results[results["architecture"].eq("ViT-M")].assign(architecture="ConvNeXt-C")
    third = third.assign(trial=third["trial"] + "-c", **{"held-out/top1": third["held-out/top1"] - 0.1})
    return pd.concat([results, third], ignore_index=True)


def test_a_configuration_whose_runs_all_diverged_at_a_compute_is_not_recommended_there() -> None:
    results = with_a_third()
    gone = results["architecture"].eq("ViT-M") & results["level_flops"].eq(LEVELS[-1])
    lost = results.assign(
        status=np.where(gone, "diverged", "finished"),
        **{"held-out/top1": results["held-out/top1"].mask(gone)},
    )
    for table in (pd.DataFrame(), results.assign(chosen=True)):
        trials = tidy(as_planned(lost, table), metric="held-out/top1")
        plan, cells = with_budgets(table, trials), lost_cells(trials)
        assert cells[["architecture", "runs"]].to_numpy().tolist() == [["ViT-M", 3]]

        def read(flops: float, cells: pd.DataFrame = cells, plan: pd.DataFrame = plan) -> Recommendation:
            return recommend(*analysed(lost), flops=flops, pairs=POOL, plan=plan, lost=cells)

        assert read(8e12).candidates["architecture"].iloc[0] == "ViT-M"
        for flops in (LEVELS[-1], 1.5 * LEVELS[-1]):
            found = read(flops)
            assert "ViT-M" not in set(found.candidates["architecture"])
            assert (
                found.left_out["reason"].item() == "all of its 3 runs at 10 TFLOP diverged or gave no number"
            )
            assert found.choice.verdict == "undecided"
            assert "; all runs of ViT-M, CLIP, 8,192 pairs, all diverged" in found.choice.reason


def test_nothing_is_clear_where_another_configuration_lost_all_of_its_runs() -> None:
    results = with_a_third()
    gone = results["architecture"].eq("ConvNeXt-C")
    lost = results.assign(
        status=np.where(gone, "diverged", "finished"),
        **{"held-out/top1": results["held-out/top1"].mask(gone)},
    )
    cells = lost_cells(tidy(lost, metric="held-out/top1"))
    found = recommend(*analysed(lost), flops=LEVELS[-1], pairs=POOL, lost=cells)
    assert found.choice.verdict == "undecided"
    assert (
        "; all runs of ConvNeXt-C, CLIP, 8,192 pairs, all diverged or gave no number" in found.choice.reason
    )
    assert recommend(*analysed(lost), flops=LEVELS[-1], pairs=POOL).choice.verdict == "clear"


def test_nothing_is_clear_where_others_ran_once_at_less_compute() -> None:
    results = with_a_third().assign(regime="equal-samples")
    later = results["architecture"].eq("ViT-X") & results["level_flops"].gt(LEVELS[0])
    once = results[~later]
    found = recommended(once, float(results["train_flops"].max()))
    assert found.candidates["architecture"].iloc[0] == "ViT-M"
    assert found.choice.verdict == "undecided"
    assert found.choice.reason.endswith(" was run at only one, lower compute")
    assert found.experiment.endswith(" at 9.999 TFLOP"), "where the recommended one was measured"
    assert recommended(results, float(results["train_flops"].max())).choice.verdict == "clear"


def test_where_all_was_measured_the_draws_of_the_report_decide() -> None:
    results = crossing(noise=0.02)
    trials = tidy(results, metric="held-out/top1")
    report = cell_draws(trials, question="frontier")
    found = recommend(*analysed(results), flops=LEVELS[2], pairs=POOL, measured=report)
    best = frontier(report).set_index("budget").loc[LEVELS[2]]
    first = found.candidates.iloc[0]
    assert (found.choice.verdict, first["architecture"]) == (best["verdict"], best["architecture"])
    assert (first["low"], first["high"]) == (best["low"], best["high"])
    assert found.choice.probability[0] == best["probability"]


def test_a_forecast_beyond_the_data_holds_the_truth_and_is_wider_than_within() -> None:
    results = crossing()
    within, beyond = (recommended(results, flops).candidates.iloc[0] for flops in (9e12, 6e13))
    assert beyond["low"] < large(6e13) < beyond["high"]
    assert beyond["high"] - beyond["low"] > within["high"] - within["low"]
    assert beyond["factor"] == pytest.approx(6, rel=1e-3)


def test_a_forecast_past_the_limit_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"no curve can be forecast at 400 TFLOP: .*: measured budgets end more"
    ):
        recommended(crossing(), 4e14)
    assert len(recommended(crossing(), 4e14, limit=50).candidates) == 2


def test_a_subset_that_the_pool_does_not_hold_is_not_recommended() -> None:
    results = study(levels=LEVELS).results
    found = recommended(results, 5e12, pairs=POOL)
    assert found.left_out.empty
    less = recommended(results, 5e12, pairs=2600)
    assert set(less.candidates["subset_size"]) == {512.0, 1024.0}
    assert (less.left_out["reason"] == "needs a pool of 8,192 pairs").sum() > 0


@pytest.mark.parametrize("quality", ["all", "top7", "top29", "top57 by clip"])
def test_the_smallest_pool_of_a_subset_holds_it_and_one_pair_less_does_not(quality: str) -> None:
    for size in range(1, 400):
        pool = smallest_pool(size, quality)
        assert count_available(pool - 1, quality) < size <= count_available(pool, quality)


def test_in_one_epoch_the_pairs_limit_the_compute_of_a_model() -> None:
    results = crossing()
    size = results["samples_seen"]
    one = results.assign(regime="one-epoch", subset_size=size, epochs=1.0, level_flops=np.nan)
    found = recommended(one, 1e13, pairs=100_000)
    row = found.candidates.iloc[0]
    assert row["subset_size"] == pytest.approx(100_000)
    assert row["flops"] < 1e13
    assert (
        "data are used up"
        in recommendation_lines(found, flops=1e13, pairs=1e5, source="x", metric="held-out/top1")[1]
    )
    with pytest.raises(
        ValueError, match=r"at 10 TFLOP: .+: all its budgets are above .+, one epoch of the pool"
    ):
        recommended(one, 1e13, pairs=10)


def test_in_one_epoch_a_pool_a_little_smaller_than_a_measured_one_is_read_like_it() -> None:
    results = crossing()
    size = results["samples_seen"]
    one = results.assign(regime="one-epoch", subset_size=size, epochs=1.0, level_flops=np.nan)
    pairs = float(size[results["architecture"] == "ViT-M"].max())
    errors = [
        recommended(one, 1e13, pairs=share * pairs).candidates.set_index("architecture")["error"]
        for share in (0.95, 0.98, 1.0)
    ]
    assert all(set(found.index) == {"ViT-M", "ViT-X"} for found in errors)
    assert errors[0].min() >= errors[1].min() - 0.003
    assert errors[1].min() == pytest.approx(errors[2].min(), abs=0.003)


def test_configurations_of_two_regimes_are_distinguished() -> None:
    results = crossing()
    again = results.assign(regime="equal-samples", level_flops=np.nan, trial=results["trial"] + "-again")
    found = recommended(pd.concat([results, again], ignore_index=True), 1e13)
    assert set(found.candidates["regime"]) == {"fixed-compute", "equal-samples"}
    assert found.candidates["name"].is_unique
    said = recommendation_lines(found, flops=1e13, pairs=POOL, source="x", metric="held-out/top1")
    assert any("(fixed compute)" in line for line in said)
    assert any("(equal samples)" in line for line in said)


def test_a_law_of_few_levels_is_said_to_be_untested() -> None:
    results = crossing()
    for levels in (4, len(LEVELS)):
        few = results[results["level_flops"] <= LEVELS[levels - 1]]
        (reason, _) = recommended(few, 2 * LEVELS[levels - 1]).candidates["law_reason"]
        assert reason.endswith("; 4 levels are too few to test its form") is (levels == 4)


def test_two_forecasts_that_hardly_differ_are_decided_by_runs() -> None:
    results = crossing(noise=0.01)
    small_ones = results[results["architecture"] == "ViT-X"]
    twins = small_ones.assign(architecture="ViT-Y", trial=small_ones["trial"] + "-y")
    found = recommended(pd.concat([small_ones, twins], ignore_index=True), 3e13)
    assert not found.candidates["measured"].any()
    assert found.experiment.startswith("run ViT-")
    assert found.experiment.endswith(" with two seeds each: the gap of 0.00 points is a forecast")


def test_configurations_within_the_noise_are_a_tie_and_the_experiment_has_its_seeds() -> None:
    results = crossing(noise=0.02)
    found = recommended(results, 6e11)
    assert found.choice.verdict == "tie"
    assert " seeds each" in found.experiment


def test_with_one_seed_the_next_experiment_is_more_seeds() -> None:
    found = recommended(crossing(seeds=1), 8e12)
    assert found.choice.verdict == "undecided"
    assert "three seeds each: the noise between seeds was not measured" in found.experiment


def test_two_budgets_are_interpolated_and_beyond_them_the_larger_one_is_used() -> None:
    results = study(levels=LEVELS[:2], noise=0.0).results
    middle = float(np.sqrt(LEVELS[0] * LEVELS[1]))
    between = recommended(results, middle).candidates
    assert set(between["read"]) == {"interpolated between two measured budgets"}
    first = between.iloc[0]
    own = results[
        (results["architecture"] == first["architecture"]) & (results["strategy"] == first["strategy"])
        & (results["quality"] == first["quality"]) & (results["subset_size"] == first["subset_size"])
    ].groupby("level_flops")[["train_flops", "held-out/top1"]].mean()  # fmt: skip
    line = np.interp(np.log(middle), np.log(own["train_flops"]), 1 - own["held-out/top1"])
    assert first["error"] == pytest.approx(float(line))
    beyond = recommended(results, 1e12).candidates
    lone = beyond[beyond["architecture"] == "ConvNeXt-C"]
    assert lone["measured"].all()
    np.testing.assert_allclose(lone["flops"], LEVELS[1], rtol=0.01)
    assert set(beyond.loc[~beyond["measured"], "read"]) <= set(SURFACES)
    with pytest.raises(
        ValueError, match=r"no curve can be forecast at 100 TFLOP: .*: measured budgets end more"
    ):
        recommended(results, 1e14)


def single(results: pd.DataFrame, architecture: str, cost: float, level: float, error: float) -> pd.DataFrame:
    """Return the results with one more cell of three similar seeds."""
    rows = []
    for seed, shift in enumerate((-0.001, 0.0, 0.001)):
        row = trial_row((8192, "all", "ViT-X", "clip"), level, seed, error + shift)
        mine = {"architecture": architecture, "trial": f"{architecture}-{level:g}-{seed}"}
        seen = {"train_flops": level, "train_flops_per_sample": cost, "samples_seen": level / cost}
        rows.append(row | mine | seen)
    return pd.concat([results, pd.DataFrame(rows)], ignore_index=True)


def test_a_cell_measured_at_the_budget_takes_part_without_a_law() -> None:
    results = single(crossing(), "ViT-H", 1.1e9, 8e12, large(8e12) - 0.01)
    first = recommended(results, 8.1e12).candidates.iloc[0]
    assert (first["architecture"], first["read"], first["law"]) == ("ViT-H", "measured", "")
    assert first["error"] == pytest.approx(large(8e12) - 0.01)


def test_a_cell_that_costs_less_than_the_budget_takes_part() -> None:
    results = single(crossing(), "ConvNeXt-H", 1.1e9, 2e12, large(8e12) - 0.02)
    found = recommended(results, 8e12)
    lines = recommendation_lines(found, flops=8e12, pairs=POOL, source="x", metric="held-out/top1")
    assert lines[1] == "  train ConvNeXt-H, CLIP, 8,192 pairs, all"
    assert lines[2].endswith("], measured at 2 TFLOP, which costs only 25 % of the budget")
    assert recommended(results, 1e12).left_out["reason"].tolist() == ["all its budgets are above 1 TFLOP"]


def test_beyond_a_single_level_nothing_is_clear() -> None:
    results = with_a_third()
    once = results[results["level_flops"].eq(LEVELS[-1])]
    assert recommended(once, LEVELS[-1]).choice.verdict == "clear"
    beyond = recommended(once, 4 * LEVELS[-1])
    assert beyond.choice.verdict == "undecided"
    assert beyond.choice.reason.endswith(" run at only one, lower compute")
    assert beyond.experiment.endswith(" at 40 TFLOP"), "all were measured at the lower compute"
    # The others have all levels, and the third one.
    results = results[results["architecture"].ne("ViT-X") | results["level_flops"].eq(LEVELS[2])]
    assert recommended(results, 4 * LEVELS[-1]).choice.verdict == "undecided"


def test_a_cell_lower_by_chance_does_not_replace_the_law_of_its_curve() -> None:
    results = crossing(noise=0.02)
    lucky = (results["architecture"] == "ViT-M") & np.isclose(results["level_flops"], LEVELS[3])
    results.loc[lucky, "held-out/top1"] += 0.02
    assert not recommended(results, 6e12).candidates["measured"].any()


def over_training(training_set: str, *, largest: float = np.inf) -> pd.DataFrame:
    """Return the results of Gadre et al. 2024: one seed per run, each token seen once."""
    table = pd.read_csv(ROOT / "tests" / "data" / "over-training.csv")
    table = table[(table["training_set"] == training_set) & (table["parameters"] <= largest)]
    n, d = table["parameters"].to_numpy(np.float64), table["tokens"].to_numpy(np.float64)
    rows = trial_row((8192, "all", "ViT-X", "clip"), 2e11, 0, 0.5)
    return pd.DataFrame([rows] * len(table)).assign(
        trial=[f"{size:.0f}-{tokens:.0f}" for size, tokens in zip(n, d, strict=True)],
        architecture=[f"LM-{size / 1e6:.0f}M" for size in n], regime="one-epoch", level_flops=np.nan,
        subset_size=d, samples_seen=d, epochs=1.0, train_flops=6 * n * d, train_flops_per_sample=6 * n,
        parameters=n, **{"text/loss": table["c4_loss"].to_numpy(np.float64)},
    )  # fmt: skip


def test_a_larger_model_measured_at_the_budget_is_ahead_of_a_smaller_ones_law() -> None:
    draws = cell_draws(tidy(over_training("C4"), metric="text/loss"), question="laws")
    fitted = tuple(laws(draws, along="compute"))
    found = recommend(draws, fitted, holdout(draws, fitted), flops=9.95e20, pairs=1e15)
    first = found.candidates.iloc[0]
    assert (first["architecture"], first["measured"]) == ("LM-1440M", True)
    assert first["error"] == pytest.approx(2.472, abs=5e-4)
    assert "LM-412M" in set(found.candidates["architecture"])
    lines = recommendation_lines(found, flops=9.95e20, pairs=1e15, source="x", metric="text/loss")
    assert lines[1].startswith("  the data do not show what to train: ahead by ")


def test_single_cells_are_read_by_the_surface_of_their_family() -> None:
    results = sizes_of_one_law()
    lone = (results["architecture"] == "ViT-3") & (results["level_flops"] > 2e11)
    found = recommended(results[~lone].reset_index(drop=True), 5e12, pairs=1e8).candidates
    row = found[found["architecture"] == "ViT-3"].iloc[0]
    cost = float(np.geomspace(4e6, 1e8, 5)[3])
    assert row["read"] in SURFACES
    assert row["error"] == pytest.approx(0.1 + 60 * cost**-0.35 + 4 * (5e12 / cost) ** -0.3, abs=0.01)


def test_a_recommendation_by_loss_prints_losses() -> None:
    results = crossing().drop(columns=["held-out/top1", "style/top1"])
    results["text/loss"] = 3 * (1 - crossing()["held-out/top1"])
    draws = cell_draws(tidy(results, metric="text/loss"), question="laws")
    fitted = tuple(laws(draws, along="compute"))
    found = recommend(draws, fitted, holdout(draws, fitted), flops=8e12, pairs=POOL)
    lines = recommendation_lines(found, flops=8e12, pairs=POOL, source="x", metric="text/loss")
    assert lines[2].startswith(f"  predicted loss {3 * large(8e12):.2f}")
    (law,) = [line for line in lines if "held-out budgets" in line][:1]
    assert law.endswith(f"; it missed held-out budgets by {found.candidates['law_error'].iloc[0]:.5g}")
    assert "points" not in " ".join(lines)


def test_an_architecture_whose_cost_per_sample_varies_is_not_recommended() -> None:
    results = crossing()
    late = results["level_flops"] > LEVELS[2]
    results.loc[late, "train_flops_per_sample"] *= 2
    with pytest.raises(ValueError, match="varies, so it is not one configuration"):
        recommended(results, 8e12)


def sizes_of_one_law() -> pd.DataFrame:
    """Return five transformers of one surface at three budgets: too few for a law of each curve."""
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


def test_another_regime_in_the_study_does_not_change_the_law_that_forecasts() -> None:
    levels = [1e11 * 2**step for step in range(8)]

    def sizes(regime: str, *, floor: float) -> pd.DataFrame:
        # A floor and an exponent of its own for each size: their laws forecast better than a surface.
        rows = []
        for name, exponent in (("ViT-S", 0.3), ("ViT-M", 0.45), ("ViT-X", 0.6)):
            for level in levels:
                for seed in (0, 1):
                    error = floor * (0.5 + exponent) + 0.6 * (level / 1e11) ** -exponent
                    row = trial_row((8192, "all", name, "clip"), level, seed, error + 0.0005 * (seed - 0.5))
                    rows.append(row | {"trial": f"{regime}-{row['trial']}", "regime": regime})
        return pd.DataFrame(rows)

    alone, other = sizes("fixed-compute", floor=0.25), sizes("equal-samples", floor=0.0)
    *_, held = analysed(pd.concat([alone, other.assign(level_flops=np.nan)], ignore_index=True))
    assert held.choices["fixed-compute"].form.name == "power law with floor and shift"
    assert held.choices["equal-samples"].form.name in {"power law", "power law with shift"}
    assert not any("fixed-compute" in family for family in held.surfaces)


def test_the_lines_name_law_error_distance_and_runner_up() -> None:
    found = recommended(crossing(), 1.9e13)
    text = "\n".join(
        recommendation_lines(found, flops=1.9e13, pairs=POOL, source="made up", metric="held-out/top1")
    )
    assert text.startswith(
        "19 TFLOP and a pool of 8,192 pairs, from made up:\n  train ViT-M, CLIP, 8,192 pairs"
    )
    assert "1.9 times beyond the measured budgets" in text
    assert "it missed held-out budgets by" in text
    assert "runner-up: ViT-X" in text


def test_many_more_epochs_than_were_measured_are_not_clear() -> None:
    found = recommended(crossing(), 6e13)
    first = found.candidates.iloc[0]
    assert first["epochs"] == pytest.approx(6 * first["most_epochs"], rel=1e-3)
    assert first["epochs"] > 4
    assert found.choice.verdict == "undecided"
    assert found.choice.reason.endswith(
        f"but it would see its pairs {first['epochs']:.3g} times, and was measured up to "
        f"{first['most_epochs']:.3g}"
    )
    assert found.experiment == "run ViT-M, CLIP, 8,192 pairs, all at 60 TFLOP"


@pytest.mark.parametrize(
    ("quality", "pool"), [("top2.5", 39_961), ("top0.5", 199_801), ("top7", 14_272), ("all", 1000)]
)
def test_the_smallest_pool_of_a_fractional_quality_is_exact(quality: str, pool: int) -> None:
    assert smallest_pool(1000, quality) == pool


def test_a_loss_with_a_known_number_of_images_is_not_cut_at_one() -> None:
    results = crossing().drop(columns=["held-out/top1", "style/top1"])
    results["text/loss"], results["text/count"] = 5 * (1 - crossing()["held-out/top1"]), 1000
    draws = cell_draws(tidy(results, metric="text/loss"), question="laws")
    fitted = tuple(laws(draws, along="compute"))
    found = recommend(draws, fitted, holdout(draws, fitted), flops=1e13, pairs=POOL)
    assert found.candidates["error"].min() == pytest.approx(5 * large(1e13), abs=0.05)


def test_a_configuration_without_a_cell_at_the_compute_is_not_beaten_by_the_sag_of_its_curve() -> None:
    noise = np.random.default_rng(1).standard_normal((2, 3, 3))
    rows = []
    for which, architecture in enumerate(("ViT-X", "ViT-M")):
        for place, level in enumerate((1e12, 4e12, 16e12)):
            if architecture == "ViT-X" and place == 1:
                continue
            error = 0.2 + 0.5 * (level / 1e12) ** -0.4
            rows += [
                trial_row((8192, "all", architecture, "clip"), level, seed, error + 0.001 * float(shift))
                for seed, shift in enumerate(noise[which, place])
            ]
    found = recommended(pd.DataFrame(rows), 4e12)
    assert found.choice.verdict == "tie"


def at_levels(**errors: dict[float, float]) -> pd.DataFrame:
    """Return three seeds of each architecture at some levels, given their errors."""
    return pd.DataFrame([
        trial_row((8192, "all", name.replace("_", "-"), "clip"), level, seed, error + 0.003 * (seed - 1))
        for name, by_level in errors.items()
        for level, error in by_level.items()
        for seed in range(3)
    ])  # fmt: skip


def test_a_curve_that_ends_below_the_budget_may_fall_on_and_leaves_the_choice_undecided() -> None:
    results = at_levels(ViT_X={2e11: 0.5, 6e11: 0.42}, ViT_M={2e11: 0.8, 6e11: 0.46})
    found = recommended(results, 1.2e13)
    assert (found.choice.verdict, found.candidates["architecture"][0]) == ("undecided", "ViT-X")
    assert "ViT-M" in found.choice.reason
    assert "run at less compute only and might be lower here" in found.choice.reason
    assert found.experiment.endswith(
        " until each has 2 seeds, which show a gap of 4.0 points 80% of the time"
    )
    assert " at 12 TFLOP until " in found.experiment, "neither was measured at the budget"
    near = at_levels(ViT_X={2e11: 0.5, 6e11: 0.42}, ViT_M={2e11: 0.5, 6e11: 0.4201})
    wide = " at 12 TFLOP with two seeds each: the gap of 0.01 points was measured at less compute"
    assert recommended(near, 1.2e13).experiment.endswith(wide)
    assert " seeds each: take either of " in recommended(near, 6e11).experiment
    here = recommended(results, 6e11)
    assert (here.choice.verdict, here.experiment[:8]) == ("clear", "nothing:")


def test_one_that_led_at_the_only_level_at_which_it_was_run_leaves_the_choice_at_others_undecided() -> None:
    clip = {1e11: 0.4, 3e11: 0.3, 1e12: 0.25}
    for other, verdict in ((0.35, "undecided"), (0.5, "clear")):
        found = recommended(at_levels(**{"ViT-X": clip, "ViT-S": {1e11: other}}), flops=1e12)
        assert found.candidates["architecture"].iloc[0] == "ViT-X"
        assert found.choice.verdict == verdict
        assert "may have fallen" not in found.choice.reason
    assert "run at only one, lower compute" not in found.choice.reason


def test_a_tie_is_decided_by_runs_of_a_tied_configuration_and_not_of_a_lower_one_that_is_behind() -> None:
    levels = [1e11 * 2**step for step in range(6)]

    def errors(floor: float, scale: float, exponent: float) -> dict[float, float]:
        return {level: floor + scale * (level / 1e11) ** -exponent for level in levels}

    ends = {level: error for level, error in errors(0.35, 0.3, 0.5).items() if level < 1e12}
    curves = {"ViT-X": errors(0.22, 0.45, 0.3), "ViT-S": errors(0.24, 0.45, 0.3), "ViT-M": ends}
    found = recommended(at_levels(**curves), levels[-1])
    assert found.candidates["architecture"].tolist() == ["ViT-X", "ViT-S", "ViT-M"]
    assert (found.choice.verdict, found.choice.members) == ("tie", (0, 2))
    assert " and ViT-M, CLIP, 8,192 pairs, all at 3.2 TFLOP until " in found.experiment
    assert "tied as well" not in found.experiment


def test_a_measured_cell_is_recommended_however_much_cheaper_it_is() -> None:
    rising = at_levels(ViT_X={2e11: 0.40, 1e12: 0.45, 1e13: 0.50}, ViT_M={2e11: 0.45, 1e12: 0.50, 1e13: 0.55})
    for flops in (2e12, 1e13):
        row = recommended(rising, flops).candidates.iloc[0]
        assert (row["flops"], row["error"]) == (pytest.approx(2e11, rel=0.01), pytest.approx(0.40))


def test_a_cell_beyond_the_limit_is_read_only_if_it_is_the_lowest() -> None:
    later = {1e12: 0.40, 3e12: 0.35, 1e13: 0.30}
    low = recommended(at_levels(ViT_M={2e11: 0.2}, ViT_X=later), 1e13)
    assert (low.candidates["architecture"][0], len(low.left_out)) == ("ViT-M", 0)
    high = recommended(at_levels(ViT_M={2e11: 0.6}, ViT_X=later), 1e13)
    assert set(high.candidates["architecture"]) == {"ViT-X"}
    assert high.left_out["reason"].tolist() == ["measured budgets end more than 30 times from this one"]
