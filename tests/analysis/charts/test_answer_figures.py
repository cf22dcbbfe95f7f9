"""Figures of the answers show the numbers of the verdicts, and no more than the draws support."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.cells.study_frames import StudyFrames
from analysis.charts.answer_figures import cells_against, hero, matters
from analysis.charts.figure_data import finding
from analysis.error_unit import PERCENT
from analysis.laws.laws import Measure
from analysis.report.analyse import Analysis
from tests.analysis.synthetic import METRIC, figure_of


def hero_frame(found: Analysis, **options: float) -> pd.DataFrame:
    measured = Measure(metric=METRIC, draws=found.draws, laws=found.laws)
    return figure_of(hero(found.trials, measured, found.best, **options)).frame


def test_the_hero_has_all_trials_the_best_with_their_intervals_and_the_frontier_with_its_forecast(
    frames: StudyFrames, analysed: Analysis
) -> None:
    frame = hero_frame(analysed)
    marks = {str(mark): rows for mark, rows in frame.groupby("mark")}
    assert len(marks["other"]) == len(frames.results)
    assert set(marks["other"]["x"]) == set(frames.results["level_flops"]), "not at whole batches below it"
    stars = frame[frame["mark"].str.startswith("best")]
    kept = analysed.best[analysed.best["verdict"] != "beaten"]
    for ours, theirs in (("x", "flops"), ("y", "error"), ("low", "low"), ("high", "high")):
        factor = 1 if ours == "x" else 100
        assert stars[ours].tolist() == pytest.approx((factor * kept[theirs]).tolist())
    assert ((stars["mark"] == "best") == (kept["verdict"] == "clear").to_numpy()).all()
    law, beyond = marks["law"], marks["extrapolation"]
    below = np.interp(np.log(stars["x"]), np.log(law["x"]), law["low"]) - stars["y"]
    assert (below < 1).all(), "a star is no lower than the frontier"
    assert beyond["x"].iloc[-1] == pytest.approx(10 * law["x"].iloc[-1])
    assert np.ptp(beyond.iloc[-1][["low", "high"]]) > np.ptp(law.iloc[-1][["low", "high"]])
    assert hero_frame(analysed, target_flops=1e14)["x"].max() == pytest.approx(1e14)


def test_a_label_stands_where_another_configuration_leads(analysed: Analysis) -> None:
    frame = hero_frame(analysed)
    labels = frame.loc[frame["mark"].str.startswith("best"), "label"]
    names = (analysed.best["architecture"] + analysed.best["strategy"])[analysed.best["verdict"] != "beaten"]
    assert (labels != "").tolist() == (names != names.shift()).tolist()
    assert labels.iloc[0].startswith(f"{analysed.best['architecture'].iloc[0]}, ")


def test_the_finding_names_the_last_clear_winner_and_what_holds_elsewhere() -> None:
    one = {
        "at": "1 TFLOP", "best": "SLIP", "verdict": "clear", "gap": 0.021, "gap_low": 0.009,
        "gap_high": 0.033, "runner_up": "CLIP",
    }  # fmt: skip
    tie: dict[str, Any] = one | {"at": "3 TFLOP", "verdict": "tie", "gap": 0.001, "gap_low": -0.01}
    lead = "SLIP is ahead by 2.1 points [0.9, 3.3] at 1 TFLOP"
    assert finding([one, tie], PERCENT) == f"{lead}; elsewhere ties."
    assert finding([one | {"at": "200 GFLOP"}, one], PERCENT) == f"{lead} and at every smaller budget."
    other = one | {"at": "200 GFLOP", "best": "CLIP"}
    assert finding([other, one, tie | {"verdict": "undecided"}], PERCENT) == (
        f"{lead}; clear also at 200 GFLOP; elsewhere nothing is decided."
    )
    assert finding([tie], PERCENT) == (
        "No budget has a clear winner; at 3 TFLOP SLIP leads by 0.1 points [-1.0, 3.3]."
    )
    assert finding([], PERCENT) == ""


def test_cells_of_two_studies_lie_beside_the_line_of_equality_by_their_difference() -> None:
    cell = {
        "first": "a", "study": "b", "regime": "fixed-compute", "budget": 2e11, "subset_size": 4096.0,
        "quality": "all", "architecture": "ViT-X", "strategy": "clip", "error": 0.5,
    }  # fmt: skip
    cells = pd.DataFrame(
        [
            cell | {"its": 0.45, "low": -0.08, "high": -0.02, "verdict": "lower"},
            cell | {"budget": 6e11, "its": 0.51, "low": -0.02, "high": 0.04, "verdict": "no difference seen"},
        ]
    )
    figure = figure_of(cells_against(cells, metric=METRIC))
    line, points = figure.frame.iloc[:2], figure.frame.iloc[2:]
    assert line[["x", "y"]].to_numpy().tolist() == [[45, 45], [51, 51]]
    assert points["mark"].tolist() == ["point", "undecided"]
    at = points[["x", "y", "low", "high"]].to_numpy(np.float64)
    np.testing.assert_allclose(at, [[50, 45, 42, 48], [50, 51, 48, 54]])
    assert figure.finding == (
        "1 of 2 shared cells differ by more than the noise; on average the error in b is 2.0 points lower."
    )
    several = pd.concat([cells, cells.assign(study="c")])
    assert set(figure_of(cells_against(several, metric=METRIC)).frame["panel"]) == {"b", "c"}


def test_shares_of_variance_are_drawn_at_each_budget_and_the_largest_is_named(analysed: Analysis) -> None:
    figure = figure_of(matters(analysed.shares, word="error"))
    known = analysed.shares.dropna(subset="share")
    assert figure.frame["y"].tolist() == pytest.approx((100 * known["share"]).tolist())
    last = known[known["budget"] == known["budget"].max()]
    top = last.loc[last["share"].idxmax()]
    name = {"architecture": "architecture", "subset_size": "data size"}[top["part"]]
    assert f"{name} explains {100 * top['share']:.0f} % [" in figure.finding
    assert set(figure.frame["line"]) == {"joined"}
    other = analysed.shares.assign(cells=analysed.shares["budget"])
    assert set(figure_of(matters(other, word="error")).frame["line"]) == {""}, "budgets have other cells"
