"""Figures and table of a tuning: values tried, winners, winners at an edge, and undecided cases."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.cells.study_frames import Tuned
from analysis.charts.tuning_figures import figures
from analysis.report.tuning_tables import tuning_tables
from tests.analysis.synthetic import trial_row

CELL = (1024, "top40", "ViT-X", "clip")
WON = {
    "architecture": "ViT-X", "strategy": "clip", "values": {"lr_peak": 4e-3, "warmup": 0.1}, "score": 0.36,
    "runner_up": {"lr_peak": 1e-3, "warmup": 0.1}, "runner_up_score": 0.34, "tie": True, "widened": [],
    "at_edge": ["lr_peak"],
}  # fmt: skip


def tried(values: dict[tuple[float, float], float]) -> pd.DataFrame:
    """Return one trial per learning rate and warm-up; a score of NaN is a diverged trial."""
    rows = [
        trial_row(CELL, 2e11, 9, 0.5)
        | {"trial": f"t{place}", "validation/top1": score, "validation/top1_se": 0.01,
           "tuned_lr_peak": lr, "tuned_warmup": warmup}
        for place, ((lr, warmup), score) in enumerate(values.items())
    ]  # fmt: skip
    return pd.DataFrame(rows)


def tuned(values: dict[tuple[float, float], float], *winners: dict[str, Any], seeds: int = 1) -> Tuned:
    """Return a tuning with the trials of its values."""
    table = pd.concat([tried(values).assign(seed=seed) for seed in range(seeds)])
    return Tuned(tried=table, metric="validation/top1", winners=winners)


SCORES = {
    (2.5e-4, 0.1): 0.2, (1e-3, 0.1): 0.34, (4e-3, 0.1): 0.36, (1.6e-2, 0.1): np.nan,
    (1e-3, 0.2): 0.3, (4e-3, 0.2): 0.31,
}  # fmt: skip


def test_each_field_has_a_curve_through_the_winner_whose_star_shows_a_tie() -> None:
    rate, warmup = figures(tuned(SCORES, WON))

    points = rate.frame[rate.frame["mark"] == "point"]
    assert points["x"].tolist() == [2.5e-4, 1e-3, 4e-3], "what diverged has no error"
    assert points["y"].tolist() == pytest.approx([80, 66, 64])
    assert (points["high"] - points["y"]).tolist() == pytest.approx([1.645] * 3, abs=1e-3)
    (star,) = rate.frame[rate.frame["mark"] == "best, not clear"].to_dict("records")
    assert (star["x"], star["y"]) == (4e-3, pytest.approx(64))
    assert star["text"].endswith("1 run; won at the edge of the values tried, a tie")
    assert "1 value not drawn" in rate.caption
    assert rate.x_scale == "log"
    assert warmup.frame.loc[warmup.frame["mark"] == "point", "y"].tolist() == pytest.approx([64, 69])
    assert warmup.x_scale == "linear"


def test_an_undecided_tuning_has_no_star_and_the_finding_says_so() -> None:
    rate, _ = figures(tuned(SCORES))

    assert set(rate.frame["mark"]) == {"line", "point"}
    assert "ViT-X: none chosen" in rate.finding
    assert next(tuning_tables(tuned(SCORES))).frame.empty


def test_a_tuning_whose_trials_all_diverged_is_drawn_without_points() -> None:
    rate, _ = figures(tuned(dict.fromkeys(SCORES, np.nan)))

    assert rate.frame.empty
    assert "2 values not drawn" in rate.caption


def test_the_table_shows_winner_runner_up_and_edge() -> None:
    found = next(tuning_tables(tuned(SCORES, WON))).frame.iloc[0]

    assert found["Winner"] == "lr_peak 0.004, warmup 0.1"
    assert (found["Error (%)"], found["Its error (%)"], found["Verdict"]) == ("64.0", "66.0", "tie")
    assert found["Note"].startswith("peak learning rate: the best value lies at the edge of those tried")


@pytest.mark.parametrize(
    ("seeds", "verdict", "noise"),
    [(1, "ahead", "noise of counting (that between seeds"), (2, "clear", "noise of seeds and counting")],
)
def test_a_winner_with_one_seed_is_ahead_and_not_clear(seeds: int, verdict: str, noise: str) -> None:
    table = next(tuning_tables(tuned(SCORES, WON | {"tie": False}, seeds=seeds)))
    assert table.frame["Verdict"].tolist() == [verdict]
    assert noise in table.note


def test_rates_that_move_have_a_curve_at_each_level_and_tables_of_lines_and_checks() -> None:
    low, high = (tried(SCORES).assign(level_flops=level) for level in (1e9, 4e9))
    cell = {"level_flops": 1e9}
    won = WON | {"cell": cell, "values": {"lr_peak": 4e-3, "warmup": 0.1}}
    above = won | {"cell": {"level_flops": 4e9}, "values": {"lr_peak": 1e-3, "warmup": 0.1}}
    rate = {"architecture": "ViT-X", "level_flops": int(16e9), "lr_peak": 2.5e-4, "low": 1e-4, "high": 6e-4}
    line = {
        "strategy": "clip", "along": "levels", "exponent": -1.0, "low": -1.5, "high": -0.5,
        "rates": [rate | {"tuned": False}],
    }  # fmt: skip
    place = {"architecture": "ViT-X", "strategy": "clip", "level_flops": 4e9}
    check = {"cell": place, "winner": above, "lr_peak": 4e-3, "score": 0.3, "moved": True}
    lost = check | {"cell": place | {"strategy": "slip"}, "winner": None, "lr_peak": 1e-2, "score": None}
    moving = Tuned(
        tried=pd.concat([low, high], ignore_index=True), metric="validation/top1", winners=[won],
        carried=[line], checks=[check, lost], check_flops=10**12, check_paid=3 * 10**11,
        left_out=["ViT-Y with clip: no room"],
    )  # fmt: skip

    found, _ = figures(moving)
    _, carried, checked = tuning_tables(moving)

    stars = found.frame[found.frame["mark"].str.startswith("best")]
    assert stars["x"].to_list() == [4e-3, 1e-3]
    assert stars["series"].to_list() == ["ViT-X at 1 GFLOP", "ViT-X at 4 GFLOP"]
    assert found.order["ViT-X at 1 GFLOP"] < found.order["ViT-X at 4 GFLOP"]
    assert carried.frame.iloc[0].tolist()[2:] == [
        "16 GFLOP", "0.00025", "[0.0001, 0.0006]", "no", "-1.00", "[-1.50, -0.50]"
    ]  # fmt: skip
    assert checked.frame.iloc[0][["Tuned", "Its error (%)", "Best of three", "Verdict"]].tolist() == [
        "0.004", "70.0", "0.001", "moved"
    ]  # fmt: skip
    assert checked.frame["Verdict"].tolist() == ["moved", "diverged"]
    assert "300 GFLOP of 1 TFLOP" in checked.note
    assert "not checked: ViT-Y with clip: no room" in checked.note
    assert moving.rates == {("ViT-X", "clip"): 4e9}
