"""Recommendations: what takes part, how it is read, the verdict, and the run that would decide."""

import numpy as np
import pandas as pd
import pytest

from analysis.answers.best import best_at_budgets
from analysis.answers.options import smallest_pool
from analysis.answers.recommendation import Recommendation, recommend
from analysis.answers.recommendation_text import recommendation_lines
from analysis.belief.cell_draws import CellDraws, cell_draws
from analysis.belief.verdict import CLEAR
from analysis.cells.study_frames import as_planned
from analysis.cells.table import records, tidy
from budgets.quality import count_available
from tests.analysis.synthetic import METRIC, study, table_of, trial_row
from tests.root import ROOT

LEVELS = tuple(np.geomspace(2e11, 1e13, 6))
POOL = 90_000.0


def small(level: float) -> float:
    return float(0.42 + 0.3 * (level / 2e11) ** -0.5)


def large(level: float) -> float:
    return float(0.30 + 0.5 * (level / 2e11) ** -0.4)


def crossing(*, seeds: int = 3, noise: float = 0.003, size: int = int(POOL)) -> pd.DataFrame:
    """Return two architectures on the whole pool; the larger one is better from 6e11 FLOPs on."""
    lines = {
        (size, "all", name, "clip"): [law(level) for level in LEVELS]
        for name, law in (("ViT-X", small), ("ViT-M", large))
    }
    return table_of(lines, LEVELS, seeds=seeds, noise=noise, seed=11)


def at_levels(**errors: dict[float, float]) -> pd.DataFrame:
    """Return three seeds of each architecture at some levels, given their errors."""
    return pd.DataFrame([
        trial_row((int(POOL), "all", name.replace("_", "-"), "clip"), level, seed, error + 0.003 * (seed - 1))
        for name, by_level in errors.items()
        for level, error in by_level.items()
        for seed in range(3)
    ])  # fmt: skip


def with_a_third() -> pd.DataFrame:
    """Return two architectures that cross, and a third one that is worse throughout."""
    results = crossing()
    third = results[results["architecture"].eq("ViT-M")].assign(architecture="ConvNeXt-C")
    third = third.assign(trial=third["trial"] + "-c", **{METRIC: third[METRIC] - 0.1})
    return pd.concat([results, third], ignore_index=True)


def drawn(results: pd.DataFrame, plan: pd.DataFrame | None = None, metric: str = METRIC) -> CellDraws:
    return cell_draws(tidy(results, metric=metric), plan, draws=400)


def recommended(
    results: pd.DataFrame, flops: float, pairs: float = POOL, *, limit: float = 30.0
) -> Recommendation:
    return recommend(drawn(results), flops=flops, pairs=pairs, limit=limit)


def lines_of(found: Recommendation, *, why: bool = True) -> list[str]:
    return [*recommendation_lines(found, source="made up", why=why)]


def test_the_small_model_is_recommended_early_and_the_large_one_late() -> None:
    results = crossing()
    early, late = recommended(results, 2.5e11), recommended(results, 8e12)
    assert (early.candidates["architecture"][0], late.candidates["architecture"][0]) == ("ViT-X", "ViT-M")
    assert (early.verdict.kind, late.verdict.kind) == ("clear", "clear")
    assert (late.candidates["distance"] == 1).all()
    assert late.experiment.startswith("to confirm, run ViT-M")


def shipped(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = ROOT / "results" / name
    return pd.read_parquet(folder / "results.parquet"), pd.read_parquet(folder / "plan.parquet")


@pytest.mark.parametrize("name", ["small", "small-trunk", "small-full"])
def test_at_every_level_the_report_and_the_recommendation_agree_to_the_digit(name: str) -> None:
    draws = drawn(*shipped(name))
    for row in records(best_at_budgets(draws)):
        found = recommend(draws, flops=row["flops"], pairs=32_768)
        first = records(found.candidates)[0]
        assert (found.verdict.kind, found.verdict.reason) == (row["verdict"], row["reason"])
        for column in ("architecture", "strategy", "subset_size", "error", "low", "high", "probability"):
            assert first[column] == row[column], column


@pytest.mark.parametrize("flops", [3e11, 5.4e12, 1e13, 5e13])
def test_every_point_is_inside_its_interval_and_the_candidates_share_the_draws(flops: float) -> None:
    found = recommend(drawn(*shipped("small")), flops=flops, pairs=1e6)
    rows = found.candidates
    assert ((rows["low"] <= rows["error"]) & (rows["error"] <= rows["high"])).all()
    assert rows["probability"].sum() == pytest.approx(1)
    assert rows["probability"].round(2).is_monotonic_decreasing


def test_a_forecast_beyond_the_data_holds_the_truth_and_is_wider_than_within() -> None:
    results = crossing()
    within, beyond = (recommended(results, flops).candidates.iloc[0] for flops in (9e12, 6e13))
    assert beyond["low"] < large(6e13) < beyond["high"]
    assert beyond["high"] - beyond["low"] > within["high"] - within["low"]
    assert beyond["distance"] == pytest.approx(6, rel=1e-3)


def test_the_limit_is_that_of_the_measured_compute_of_all() -> None:
    results = crossing()
    with pytest.raises(ValueError, match=r"at 400 TFLOP: .*: measured budgets end more than 30 times"):
        recommended(results, 4e14)
    assert len(recommended(results, 4e14, limit=50).candidates) == 2
    short = results[results["architecture"].ne("ViT-X") | results["level_flops"].eq(LEVELS[0])]
    assert len(recommended(short, 1e14).candidates) == 2, "its draws count, though it was run at 2e11 alone"


def test_below_all_budgets_nothing_is_read() -> None:
    with pytest.raises(ValueError, match="all its budgets are above 100 MFLOP"):
        recommended(crossing(), 1e8)


def test_a_size_that_the_pool_lacks_is_read_between_its_neighbours_or_by_the_law() -> None:
    draws = drawn(*shipped("small-full"))
    found = recommend(draws, flops=2e11, pairs=13_108)
    first = found.candidates.iloc[0]
    assert (first["architecture"], first["subset_size"]) == ("mini-ConvNeXt", 5244.0)
    assert first["sizes"] == "by the law from 13,108 pairs"
    assert (found.verdict.kind, found.experiment[:21]) == ("clear", "to confirm, run mini-")
    assert found.better is not None
    assert found.better["pool"] == 32_768

    def same(of: Recommendation) -> pd.Series:
        rows = of.candidates[
            of.candidates["architecture"].eq("mini-ViT-XS-8") & of.candidates["quality"].eq("top40")
        ]
        return rows[rows["strategy"].eq("clip")].set_index("subset_size")["error"]

    smaller, larger = same(found), same(recommend(draws, flops=2e11, pairs=32_768))
    assert larger[13_108.0] < smaller[5244.0] < smaller[4096.0]
    assert any("between 4,096 and 13,108 pairs" in place for place in found.candidates["sizes"])


def test_the_law_of_a_size_read_with_fewer_pairs_holds_what_was_measured_with_them() -> None:
    family = drawn(*shipped("small-full")).families["fixed-compute"]
    place = {name: curve for curve, name in enumerate(family.names)}
    curves = [place[f"mini-ViT-XS-8, CLIP, {size} pairs, top 40 %"] for size in ("13,108", "1,024", "4,096")]
    held = []
    for curve, pairs in zip(curves[1:], (1024.0, 4096.0), strict=True):
        read = family.read(np.array(curves[:1]), family.x[curves[:1]], np.array([pairs]))[:, 0]
        low, high = np.quantile(read, [0.05, 0.95], axis=0)
        held += ((low <= family.measured.mean[curve]) & (family.measured.mean[curve] <= high)).tolist()
    assert np.mean(held) >= 0.75


def test_a_pool_below_all_sizes_is_refused_with_the_smallest_that_would_do() -> None:
    with pytest.raises(ValueError, match="the smallest pool that holds one has 90,000 pairs"):
        recommended(crossing(), 8e12, pairs=1000)


def test_a_subset_that_the_pool_does_not_hold_is_not_recommended() -> None:
    results = study(levels=LEVELS).results
    assert recommended(results, 5e12, pairs=8192).left_out.empty
    less = recommended(results, 5e12, pairs=2600)
    assert set(less.candidates["subset_size"]) == {512.0, 520.0, 1024.0, 1040.0, 2600.0}
    assert (less.left_out["reason"] == "needs a pool of 8,192 pairs").sum() > 0


@pytest.mark.parametrize("quality", ["all", "top7", "top29", "top57 by clip"])
def test_the_smallest_pool_of_a_subset_holds_it_and_one_pair_less_does_not(quality: str) -> None:
    for size in range(1, 400):
        pool = smallest_pool(size, quality)
        assert count_available(pool - 1, quality) < size <= count_available(pool, quality)


@pytest.mark.parametrize(
    ("quality", "pool"), [("top2.5", 39_961), ("top0.5", 199_801), ("top7", 14_272), ("all", 1000)]
)
def test_the_smallest_pool_of_a_fractional_quality_is_exact(quality: str, pool: int) -> None:
    assert smallest_pool(1000, quality) == pool


def one_epoch() -> pd.DataFrame:
    results = crossing()
    return results.assign(
        regime="one-epoch", subset_size=results["samples_seen"], epochs=1.0, level_flops=np.nan
    )


def test_in_one_epoch_the_pairs_limit_the_compute_of_a_model() -> None:
    found = recommended(one_epoch(), 1e13, pairs=100_000)
    row = found.candidates.iloc[0]
    assert row["subset_size"] == pytest.approx(100_000)
    assert row["flops"] < 1e13
    assert any("its data are used up at" in line for line in lines_of(found))
    with pytest.raises(ValueError, match=r": all its budgets are above .+, one epoch of the pool"):
        recommended(one_epoch(), 1e13, pairs=10)


def test_in_one_epoch_a_pool_a_little_smaller_than_a_measured_one_is_read_like_it() -> None:
    one = one_epoch()
    pairs = float(one.loc[one["architecture"] == "ViT-M", "subset_size"].max())
    draws = drawn(one)
    errors = [
        recommend(draws, flops=1e13, pairs=share * pairs).candidates.set_index("architecture")["error"]
        for share in (0.95, 0.98, 1.0)
    ]
    assert errors[0].min() == pytest.approx(errors[1].min(), abs=0.005)
    assert errors[1].min() == pytest.approx(errors[2].min(), abs=0.003)


def test_configurations_of_two_regimes_are_compared_and_distinguished() -> None:
    results = crossing()
    again = results.assign(regime="equal-samples", level_flops=np.nan, trial=results["trial"] + "-again")
    found = recommended(pd.concat([results, again], ignore_index=True), 1e13)
    assert set(found.candidates["regime"]) == {"fixed-compute", "equal-samples"}
    assert found.candidates["name"].is_unique
    assert found.candidates["probability"].sum() == pytest.approx(1)
    said = " ".join(lines_of(found))
    assert "(fixed compute)" in said
    assert "(equal samples)" in said


@pytest.mark.parametrize("planned", [False, True])
def test_what_lost_all_of_its_runs_is_not_recommended_from_there_on(planned: bool) -> None:  # noqa: FBT001
    results = with_a_third()
    gone = results["architecture"].eq("ViT-M") & results["level_flops"].eq(LEVELS[-1])
    status = np.where(gone, "diverged", "finished")
    lost = results.assign(status=status, **{METRIC: results[METRIC].mask(gone)})
    plan = results if planned else pd.DataFrame()
    trials = tidy(as_planned(lost, plan), metric=METRIC)
    draws = cell_draws(trials, plan, draws=400)
    assert recommend(draws, flops=8e12, pairs=POOL).candidates["architecture"][0] == "ViT-M"
    for flops in (LEVELS[-1], 1.1 * LEVELS[-1]):
        found = recommend(draws, flops=flops, pairs=POOL)
        assert "ViT-M" not in set(found.candidates["architecture"])
        assert found.left_out["reason"].item() == "lost 3 of 3 runs at 10 TFLOP"
        assert found.verdict.kind == "undecided"
        said = "ViT-M, CLIP, 90,000 pairs, all (lost 3 of 3 runs at 10 TFLOP)"
        assert found.verdict.reason.endswith(f"not ranked: {said}")
        assert found.experiment == f"find why runs were lost: {said}"


def test_epochs_beyond_those_measured_are_said_with_the_leader_which_is_clear_by_forecast() -> None:
    results = crossing(size=8192)
    results.loc[results["architecture"] == "ViT-X", METRIC] -= 0.15
    draws = drawn(results)
    for flops, verdict in ((1.8e13, "clear"), (6e13, "clear by forecast (6 ×)")):
        found = recommend(draws, flops=flops, pairs=8192)
        first = found.candidates.iloc[0]
        assert first["architecture"] == "ViT-M"
        assert first["epochs"] == pytest.approx(flops / 72e6 / 8192)
        assert first["own_epochs"] == pytest.approx(LEVELS[-1] / 72e6 / 8192, rel=0.01)
        line = lines_of(found)[0]
        assert f" (sees its pairs {first['epochs']:.3g} times, its runs at most 17.0 times): " in line
        assert line.endswith(f"], {verdict}")
    assert found.verdict.reason.endswith(", 6 × from its own runs")


def test_configurations_within_the_noise_are_a_tie_and_the_experiment_has_its_seeds() -> None:
    found = recommended(crossing(noise=0.02), 6e11)
    assert found.verdict.kind == "tie"
    assert " seeds each" in found.experiment or "until each has " in found.experiment


def test_two_forecasts_that_hardly_differ_are_decided_by_runs() -> None:
    results = crossing(noise=0.01)
    ones = results[results["architecture"] == "ViT-X"]
    twins = ones.assign(architecture="ViT-Y", trial=ones["trial"] + "-y")
    found = recommended(pd.concat([ones, twins], ignore_index=True), 3e13)
    assert found.verdict.kind == "tie"
    assert found.experiment.startswith("run ViT-")
    assert found.experiment.endswith(" points is a forecast")


def test_with_one_seed_the_next_experiment_is_more_seeds() -> None:
    found = recommended(crossing(seeds=1, noise=0.02), 6e11)
    assert found.verdict.kind == "tie"
    assert "three seeds each: the noise between seeds was not measured" in found.experiment


def test_without_any_noise_the_measured_errors_stand_alone() -> None:
    results = crossing(seeds=1)
    found = recommended(results[results["level_flops"] < LEVELS[1]], LEVELS[0])
    assert (found.verdict.kind, found.candidates["architecture"][0]) == ("undecided", "ViT-X")
    assert found.candidates[["low", "high", "probability"]].isna().all(axis=None)
    assert "[" not in lines_of(found)[0]


def test_a_cheaper_cell_that_is_lower_is_named_and_nothing_is_clear() -> None:
    rising = at_levels(ViT_X={2e11: 0.40, 1e12: 0.45, 1e13: 0.50}, ViT_M={2e11: 0.55, 1e12: 0.60, 1e13: 0.65})
    found = recommended(rising, 1e13)
    assert "ViT-X, CLIP, 90,000 pairs, all at 200 GFLOP has 40.0 %, lower at a lower cost" in found.cheaper
    assert found.verdict.kind == "undecided"
    assert recommended(crossing(), 1e13).cheaper == ""


def test_an_architecture_whose_cost_per_sample_varies_is_not_recommended() -> None:
    results = crossing()
    results.loc[results["level_flops"] > LEVELS[2], "train_flops_per_sample"] *= 2
    with pytest.raises(ValueError, match="varies, so it is not one configuration"):
        recommended(results, 8e12)


def test_what_the_grid_ends_before_a_budget_takes_part_if_nothing_else_fits() -> None:
    few = crossing().assign(subset_size=4096, trial=lambda rows: rows["trial"] + "-few")
    few = few[few["level_flops"] < LEVELS[3]]
    plan = pd.concat([crossing(), few], ignore_index=True)
    draws = drawn(plan, plan)
    found = recommend(draws, flops=LEVELS[-1], pairs=POOL)
    assert set(found.left_out["reason"]) == {"its grid ends before this budget"}
    assert set(recommend(draws, flops=LEVELS[-1], pairs=4096).candidates["subset_size"]) == {4096.0}


def test_a_recommendation_by_loss_prints_losses_that_are_not_cut_at_one() -> None:
    results = crossing().drop(columns=[METRIC, "style/top1"])
    results["text/loss"], results["text/count"] = 5 * (1 - crossing()[METRIC]), 1000
    found = recommend(drawn(results, metric="text/loss"), flops=8e12, pairs=POOL)
    assert found.candidates["error"].min() == pytest.approx(5 * large(8e12), abs=0.05)
    lines = lines_of(found)
    assert ": predicted loss 2.0" in lines[0]
    assert "points" not in " ".join(lines)


def over_training(training_set: str) -> pd.DataFrame:
    """Return the results of Gadre et al. 2024: one seed per run, each token seen once."""
    table = pd.read_csv(ROOT / "tests" / "data" / "over-training.csv")
    table = table[table["training_set"] == training_set]
    n, d = table["parameters"].to_numpy(np.float64), table["tokens"].to_numpy(np.float64)
    rows = trial_row((8192, "all", "ViT-X", "clip"), 2e11, 0, 0.5)
    return pd.DataFrame([rows] * len(table)).assign(
        trial=[f"{size:.0f}-{tokens:.0f}" for size, tokens in zip(n, d, strict=True)],
        architecture=[f"LM-{size / 1e6:.0f}M" for size in n], regime="one-epoch", level_flops=np.nan,
        subset_size=d, samples_seen=d, epochs=1.0, train_flops=6 * n * d, train_flops_per_sample=6 * n,
        parameters=n, **{"text/loss": table["c4_loss"].to_numpy(np.float64)},
    )  # fmt: skip


def test_a_larger_model_measured_at_the_budget_is_ahead_of_a_smaller_one_read_by_the_law() -> None:
    found = recommend(drawn(over_training("C4"), metric="text/loss"), flops=9.95e20, pairs=1e15)
    first = found.candidates.iloc[0]
    assert (first["architecture"], first["measured"]) == ("LM-1440M", True)
    assert first["error"] == pytest.approx(2.472, abs=0.03)
    assert "LM-412M" in set(found.candidates["architecture"])


def test_the_lines_name_what_to_train_the_run_that_decides_three_others_and_the_source() -> None:
    results = study(levels=LEVELS).results
    found = recommended(results, 1.9e13)
    first, *others = records(found.candidates)
    lines, reasons = (lines_of(found, why=why) for why in (False, True))
    ends = f"[{100 * first['low']:.1f}, {100 * first['high']:.1f}]"
    seen = f" (sees its pairs {first['epochs']:.0f} times, its runs at most {first['own_epochs']:.0f} times)"
    error = f"predicted error {100 * first['error']:.1f} % {ends}"
    assert lines[0] == f"19 TFLOP: {first['name']}{seen}: {error}, clear"
    assert lines[1] == f"  next: to confirm, run {first['name']} at 19 TFLOP"
    assert found.verdict.probability[0] > CLEAR
    assert any(line.startswith(f"  {len(others)} others, each lowest in less than 5 %") for line in lines)
    assert not any(line.startswith("  or ") for line in lines)
    assert lines[-1] == "  from made up, for a pool of 90,000 pairs"
    assert set(reasons) >= {lines[0], f"  {found.verdict.reason}", "  1.9 × from its own runs"}
