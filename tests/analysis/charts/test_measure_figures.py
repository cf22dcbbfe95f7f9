"""Figures of other regimes and metrics, of accuracy under shift and of the worth of a strategy."""

import numpy as np
import pandas as pd
import pytest

from analysis.answers.crossing import comparisons
from analysis.cells.study_frames import StudyFrames
from analysis.charts.bar_figures import quality_bars, strategy_bars
from analysis.charts.compute_figures import over_compute_of
from analysis.charts.size_figures import over_data, over_epochs, over_pairs
from analysis.charts.worth_figures import equivalence, shift
from analysis.drawing.draw import draw
from analysis.laws.laws import measure
from tests.analysis.synthetic import METRIC, cells_of, figure_of, study


@pytest.fixture(scope="module")
def regimes(frames: StudyFrames) -> pd.DataFrame:
    """Return two architectures over three sizes at fixed budgets, at equal samples and in one epoch."""
    first = frames.results.query(
        "architecture == 'ViT-X' and strategy == 'clip' and level_flops == level_flops.min()"
    )
    other = first.assign(architecture="ViT-S", trial=first["trial"] + "-s")
    other[METRIC] = 0.9 * first[METRIC]
    both = pd.concat([first, other])
    equal = both.assign(
        regime="equal-samples", level_flops=np.nan, samples_seen=65_536, trial=both["trial"] + "-equal"
    )
    once = both.assign(
        regime="one-epoch", level_flops=np.nan, samples_seen=both["subset_size"],
        train_flops=1.0 * both["subset_size"] * both["train_flops_per_sample"],
        trial=both["trial"] + "-once",
    )  # fmt: skip
    return pd.concat([frames.results, equal, once], ignore_index=True)


def test_error_over_data_has_a_panel_for_equal_samples_and_one_for_one_epoch(regimes: pd.DataFrame) -> None:
    data = figure_of(over_pairs([measure(regimes, METRIC)], axis="architecture"))
    points = data.frame[data.frame["mark"] == "point"]
    assert set(points["panel"]) == {"equal samples", "one epoch"}
    assert "at 65,536 samples" in data.caption
    assert set(points["series"]) == {"ViT-X", "ViT-S"}
    assert set(points["x"]) == {512.0, 1024.0, 3276.0}
    # A law of one epoch is drawn over pairs, within those that were measured.
    once = data.frame[(data.frame["panel"] == "one epoch") & data.frame["mark"].str.contains("law")]
    assert once["x"].between(511, 3277).all()


def test_curves_of_two_regimes_are_told_apart(frames: StudyFrames) -> None:
    fixed = frames.results[frames.results["strategy"].isin(["clip", "slip"])]
    seen = fixed["level_flops"] / 1e7
    equal = fixed.assign(
        regime="equal-samples", level_flops=np.nan, batch_size=1, trial=fixed["trial"] + "-equal",
        samples_seen=seen, train_flops=seen * fixed["train_flops_per_sample"],
    )  # fmt: skip
    mine = measure(pd.concat([fixed, equal], ignore_index=True), METRIC)

    held = comparisons(mine.draws)["held"]
    assert {text.rpartition(" (")[2] for text in held} == {"fixed compute)", "equal samples)"}
    panels = {f"ViT-X, top 40 %, CLIP ({regime})" for regime in ("fixed compute", "equal samples")}
    assert set(figure_of(over_data(mine)).frame["panel"]) == panels


def test_error_over_epochs_has_a_curve_for_each_data_size(frames: StudyFrames) -> None:
    data = figure_of(over_epochs([measure(frames.results, METRIC)]))
    points = data.frame[data.frame["mark"] == "point"]
    assert list(dict.fromkeys(points["series"])) == ["512 pairs", "1,024 pairs", "3,276 pairs"]
    smallest = points[points["series"] == "512 pairs"]
    samples = frames.results.loc[frames.results["subset_size"] == 512, "samples_seen"]
    assert set(smallest["x"]) == set(samples / 512)


def test_cells_without_a_law_are_joined_by_a_thin_line_and_the_caption_says_so() -> None:
    results = study(seeds=3, noise=0.001).results
    rising = results["subset_size"] == 512
    results.loc[rising, METRIC] = 1 - results.loc[rising, METRIC]
    data = figure_of(over_epochs([measure(results, METRIC)]))
    points = data.frame[data.frame["mark"] == "point"]
    assert set(points.loc[points["line"] == "joined", "series"]) == {"512 pairs"}
    assert "512 pairs" not in set(data.frame.loc[data.frame["mark"].str.contains("law"), "series"])
    assert "1 curve without one (no decrease)" in data.caption


def test_quality_is_bars_in_groups_of_one_budget_with_a_panel_for_each_regime(regimes: pd.DataFrame) -> None:
    one_size = regimes[regimes["subset_size"].eq(3276) | regimes["quality"].ne("top40")]
    once = one_size.query("regime == 'fixed-compute' and architecture == 'ViT-X' and strategy == 'clip'")
    once = once.sort_values("train_flops").drop_duplicates(["subset_size", "seed"])
    once = once.assign(
        regime="one-epoch", level_flops=np.nan, samples_seen=once["subset_size"],
        trial=once["trial"] + "-again",
    )  # fmt: skip
    both = pd.concat([regimes[regimes["regime"] == "fixed-compute"], once])
    data = figure_of(quality_bars([measure(both, METRIC)]))
    bars = data.frame[data.frame["mark"] == "column"]
    assert list(dict.fromkeys(bars["panel"])) == ["fixed compute", "one epoch"]
    fixed = bars[bars["panel"] == "fixed compute"]
    assert list(dict.fromkeys(fixed["label"])) == ["200 GFLOP", "900 GFLOP", "3.6 TFLOP"]
    assert list(fixed["series"].iloc[:3]) == ["top 20 %", "top 40 %", "all"]
    assert fixed["x"].round(6).is_unique
    assert (fixed["low"] < fixed["y"]).all()
    assert (fixed["y"] < fixed["high"]).all()
    assert set(bars.loc[bars["panel"] == "one epoch", "label"]) == {"largest subset of each quality"}
    assert draw(data).axes[0].get_ylim()[0] == 0


@pytest.mark.slow
def test_every_quality_that_ties_has_a_hollow_star_and_the_caption_names_the_tie() -> None:
    results = study().results
    best = results.groupby(["architecture", "strategy", "level_flops", "seed"])[METRIC].transform("max")
    pure = results["quality"].isin(["top20", "top40"]) & (results["subset_size"] > 1024)
    results.loc[pure, METRIC] = best[pure] + results.loc[pure, "seed"] / 100
    results.loc[pure & (results["quality"] == "top40"), METRIC] -= 1e-4  # a tie that is not exact
    data = figure_of(quality_bars([measure(results, METRIC)]))
    stars = data.frame[data.frame["mark"].str.startswith("best")]
    assert set(stars["mark"]) == {"best, not clear"}
    assert set(stars.loc[stars["label"] == "200 GFLOP", "series"]) == {"top 20 %", "top 40 %"}
    assert "200 GFLOP: tie of top 20 % and top 40 %" in data.caption


@pytest.mark.slow
def test_no_quality_is_clear_before_all_planned_trials_have_run() -> None:
    results = study().results
    results.loc[results["quality"] == "top20", METRIC] += 0.2
    mine = measure(results, METRIC)
    waits = results[results["quality"] == "all"].assign(budget=results["level_flops"], reason="not run yet")
    before, after, lost = (
        figure_of(quality_bars([mine], waiting=rows))
        for rows in (waits, None, waits.assign(reason="diverged: NaN"))
    )
    assert "best" in set(after.frame["mark"]) & set(lost.frame["mark"])
    assert "best" not in set(before.frame["mark"])
    assert "top 20 % so far" in before.caption


def test_strategies_are_compared_on_each_number_of_pairs(frames: StudyFrames) -> None:
    data = figure_of(strategy_bars([measure(frames.results, METRIC)]))
    assert set(data.frame["label"]) == {"3,276 pairs"}
    assert {"CLIP", "SLIP", "FLIP (50 %)"} <= set(data.frame["series"])


def test_other_measures_are_drawn_one_panel_each_with_laws_where_supported(frames: StudyFrames) -> None:
    results = frames.results.assign(**{"pairs/count": 512.0})
    results["pairs/image_to_text_r1"] = 0.6 * results[METRIC]
    results["pairs/text_to_image_r1"] = 0.5 * results[METRIC]
    endings = ("image_to_text_r1", "text_to_image_r1")
    data = figure_of(over_compute_of(results, name="retrieval", title="Retrieval", endings=endings))
    assert [panel.partition(" ")[0] for panel in dict.fromkeys(data.frame["panel"])] == [
        "image-to-text", "text-to-image"
    ]  # fmt: skip
    assert {"point", "law"} <= set(data.frame["mark"])
    assert "best" not in set(data.frame["mark"])


def test_cells_under_shift_are_drawn_with_the_line_of_plain_clip(frames: StudyFrames) -> None:
    data = figure_of(shift(frames.results, metric=METRIC, draws=cells_of(frames.results)))
    points = data.frame[data.frame["mark"] == "point"]
    # The made-up shift takes half of every accuracy.
    np.testing.assert_allclose(points["y"], points["x"] / 2)
    reference = data.frame[data.frame["mark"] == "reference"]
    equal = reference[reference["line"].str.endswith(": equal")]
    assert len(equal) == 2
    assert (equal["x"] == equal["y"]).all()
    line = reference.drop(equal.index)
    x, y = (np.log(line[axis] / (100 - line[axis])) for axis in ("x", "y"))
    np.testing.assert_allclose(np.diff(y) / np.diff(x), np.diff(y)[0] / np.diff(x)[0])
    assert set(points["series"]) >= {"ViT-X", "SLIP", "FLIP (50 %)"}


def test_a_ratio_beyond_the_measured_range_of_clip_is_drawn_as_a_bound(frames: StudyFrames) -> None:
    draws = cells_of(frames.results)
    data = figure_of(equivalence(draws, comparisons(draws), along="compute"))
    bounds = data.frame[data.frame["mark"] == "bound"]
    assert len(bounds)
    measured = data.frame[data.frame["mark"].isin(["point", "undecided"])]
    there = measured.set_index(["series", "x"]).loc[list(zip(bounds["series"], bounds["x"], strict=True))]
    assert there["text"].str.contains("at most|at least").all()
    decided = ~there["text"].str.endswith("undecided")
    assert decided.any()
    assert (there["mark"] == decided.map({True: "point", False: "undecided"})).all()
    assert np.isfinite(measured[["x", "y"]].to_numpy(float)).all()
    assert (measured["low"] <= measured["y"] + 1e-9).all()
    assert (measured["y"] <= measured["high"] + 1e-9).all()
