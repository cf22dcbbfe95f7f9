"""Figures of other regimes and metrics, of accuracy under shift and of the worth of a strategy."""

import numpy as np
import pandas as pd
import pytest

from analysis.answers.contrasts import contrasts
from analysis.answers.crossing import comparisons
from analysis.cells.study_frames import StudyFrames
from analysis.charts.curve_figures import over, over_compute, over_data
from analysis.charts.worth_figures import equivalence, shift
from analysis.laws.laws import measure
from tests.analysis.synthetic import METRIC, cells_of, figure_of, study, trial_row


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
    data = figure_of(over([measure(regimes, METRIC)], axis="architecture", x="subset_size"))
    points = data.frame[data.frame["mark"] == "point"]
    assert set(points["panel"]) == {"equal samples", "one epoch"}
    assert "top 40 % at 65,536 samples" in data.caption
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
    panels = set(figure_of(over([mine], axis="subset_size", x="epochs")).frame["panel"])
    assert panels == {"fixed compute", "equal samples"}


def test_error_over_data_has_a_curve_per_budget_and_a_dash_where_repetition_begins(
    frames: StudyFrames,
) -> None:
    mine = measure(frames.results, METRIC)
    data = figure_of(over_data(mine, contrasts(mine.draws)))
    points = data.frame[data.frame["mark"] == "point"]
    assert list(dict.fromkeys(points["series"])) == [*data.order] == ["200 GFLOP", "900 GFLOP", "3.6 TFLOP"]
    assert set(points["x"]) == {512.0, 1024.0, 3276.0}
    assert points["text"].str.endswith(" epochs").all()
    assert not (data.frame["mark"] == "reference").any(), "pairs are repeated at each budget"
    few = frames.results["level_flops"] == 2e11
    scarce = frames.results.assign(samples_seen=frames.results["samples_seen"].mask(few, 800))
    once = measure(scarce.assign(epochs=scarce["samples_seen"] / scarce["subset_size"]), METRIC)
    dash = figure_of(over_data(once, pd.DataFrame())).frame.query("mark == 'reference'")
    assert dash["x"].tolist() == [800.0, 800.0]
    assert dash["y"].is_monotonic_increasing


def test_error_over_epochs_has_a_curve_for_each_data_size(frames: StudyFrames) -> None:
    data = figure_of(over([measure(frames.results, METRIC)], axis="subset_size", x="epochs"))
    points = data.frame[data.frame["mark"] == "point"]
    assert list(dict.fromkeys(points["series"])) == ["512 pairs", "1,024 pairs", "3,276 pairs"]
    smallest = points[points["series"] == "512 pairs"]
    samples = frames.results.loc[frames.results["subset_size"] == 512, "samples_seen"]
    assert set(smallest["x"]) == set(samples / 512)


def test_cells_without_a_law_are_joined_by_a_thin_line() -> None:
    results = study(seeds=3, noise=0.001).results
    rising = results["subset_size"] == 512
    results.loc[rising, METRIC] = 1 - results.loc[rising, METRIC]
    data = figure_of(over([measure(results, METRIC)], axis="subset_size", x="epochs"))
    points = data.frame[data.frame["mark"] == "point"]
    assert set(points.loc[points["line"] == "joined", "series"]) == {"512 pairs"}
    assert "512 pairs" not in set(data.frame.loc[data.frame["mark"].str.contains("law"), "series"])


def test_qualities_are_compared_on_the_largest_subset_of_each_with_the_verdicts_of_the_table() -> None:
    results = study().results
    pool = results["quality"].map({"top20": 1638, "top40": 3276, "all": 8192})
    results = results[results["subset_size"] == pool]
    results.loc[results["quality"] == "top20", METRIC] += 0.2
    mine = measure(results, METRIC)
    table = contrasts(mine.draws)
    data = figure_of(over_compute(mine, table, axis="quality"))
    assert [*data.order] == ["top 20 %", "top 40 %", "all"]
    assert "largest subset of each quality" in data.caption
    stars = data.frame[data.frame["mark"].str.startswith("best")]
    rows = table[table["axis"] == "quality"].sort_values("budget")
    assert stars["series"].tolist() == rows["best"].tolist() == ["top 20 %"] * 3
    assert set(stars["mark"]) == {"best"}
    assert data.finding.startswith("top 20 % is ahead by ")
    assert data.finding.endswith(" at 3.6 TFLOP and at every smaller budget.")
    waits = figure_of(over_compute(mine, table.assign(lacking="3 of 9 runs missing"), axis="quality"))
    assert set(waits.frame["mark"][waits.frame["mark"].str.startswith("best")]) == {"best, not clear"}
    assert waits.finding.startswith("No budget has a clear winner")


def test_at_equal_samples_no_cell_is_starred_over_compute_which_differs_between_them(
    regimes: pd.DataFrame,
) -> None:
    mine = measure(regimes[regimes["regime"] == "equal-samples"], METRIC)
    data = figure_of(over_compute(mine, contrasts(mine.draws), axis="architecture"))
    assert set(data.frame["mark"]) <= {"point", "other", "law"}
    assert data.finding.startswith("Equal samples: ")


def test_many_architectures_are_grey_but_for_those_that_lead_or_have_most_cells() -> None:
    rows = [
        trial_row((1024, "all", "ViT-X", "clip"), 1e12 * level, seed, 0.5 - 0.01 * place - 0.02 * level)
        | {"architecture": f"ViT-{place}", "trial": f"{place}-{level}-{seed}"}
        for place in range(12)
        for level in ((1, 2, 4) if place in (3, 11) else (1, 2))
        for seed in range(2)
    ]
    mine = measure(pd.DataFrame(rows), METRIC)
    data = figure_of(over_compute(mine, contrasts(mine.draws), axis="architecture"))
    assert len(data.order) == 8
    assert {"ViT-11", "ViT-3"} < set(data.order)
    assert (data.frame["mark"] == "other").sum() == 4 * 2
    assert data.by == "architecture"


def test_other_measures_are_drawn_one_panel_each_with_laws_where_supported(frames: StudyFrames) -> None:
    results = frames.results.assign(**{"pairs/count": 512.0})
    results["pairs/image_to_text_r1"] = 0.6 * results[METRIC]
    results["pairs/text_to_image_r1"] = 0.5 * results[METRIC]
    measures = [measure(results, f"pairs/{name}_r1") for name in ("image_to_text", "text_to_image")]
    data = figure_of(over(measures, axis="architecture", x="train_flops"))
    assert [panel.partition(" ")[0] for panel in dict.fromkeys(data.frame["panel"])] == [
        "image-to-text", "text-to-image"
    ]  # fmt: skip
    assert {"point", "law"} <= set(data.frame["mark"])
    assert "best" not in set(data.frame["mark"])


def test_cells_under_shift_are_drawn_with_the_line_of_plain_clip(frames: StudyFrames) -> None:
    data = figure_of(shift(frames.results, metric=METRIC))
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


def test_a_ratio_beyond_the_measured_range_of_clip_is_not_drawn(frames: StudyFrames) -> None:
    table = comparisons(cells_of(frames.results))
    data = figure_of(equivalence(table, along="compute"))
    mine = table[(table["along"] == "compute") & (table["axis"] == "strategy") & (table["other"] == "CLIP")]
    bounds = (mine["factor"] == 0) | np.isinf(mine["factor"])
    assert bounds.any()
    measured = data.frame[data.frame["mark"].isin(["point", "undecided"])]
    assert len(measured) == (~bounds).sum()
    decided = ~measured["text"].str.endswith("undecided")
    assert decided.any()
    assert (measured["mark"] == decided.map({True: "point", False: "undecided"})).all()
    assert (measured["low"] <= measured["y"] + 1e-9).all()
    assert (measured["y"] <= measured["high"] + 1e-9).all()
