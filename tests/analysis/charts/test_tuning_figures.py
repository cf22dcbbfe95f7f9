"""Figures and table of a tuning: values tried, winners, winners at an edge, and undecided cases."""

import numpy as np
import pandas as pd
import pytest

from analysis.charts.tuning_figures import Tuned, figures
from analysis.report.tables import tables
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


SCORES = {
    (2.5e-4, 0.1): 0.2, (1e-3, 0.1): 0.34, (4e-3, 0.1): 0.36, (1.6e-2, 0.1): np.nan,
    (1e-3, 0.2): 0.3, (4e-3, 0.2): 0.31,
}  # fmt: skip


def test_each_field_has_a_curve_through_the_winner_whose_star_shows_a_tie() -> None:
    rate, warmup = figures(Tuned(tried=tried(SCORES), metric="validation/top1", winners=[WON]))

    points = rate.frame[rate.frame["mark"] == "point"]
    assert points["x"].tolist() == [2.5e-4, 1e-3, 4e-3], "what diverged has no error"
    assert points["y"].tolist() == pytest.approx([80, 66, 64])
    assert (points["high"] - points["y"]).tolist() == pytest.approx([1.645] * 3, abs=1e-3)
    (star,) = rate.frame[rate.frame["mark"] == "best, not clear"].to_dict("records")
    assert (star["x"], star["y"]) == (4e-3, pytest.approx(64))
    assert star["text"].endswith("1 run; won at the edge of the values tried, a tie")
    assert "ViT-X: 0.004, a tie at the edge of the values tried." in rate.caption
    assert "1 value not drawn: training diverged." in rate.caption
    assert rate.x_scale == "log"
    assert warmup.frame.loc[warmup.frame["mark"] == "point", "y"].tolist() == pytest.approx([64, 69])
    assert warmup.x_scale == "linear"


def test_an_undecided_tuning_has_no_star_and_the_caption_says_so() -> None:
    rate, _ = figures(Tuned(tried=tried(SCORES), metric="validation/top1", winners=[]))

    assert set(rate.frame["mark"]) == {"line", "point"}
    assert "ViT-X: not decided yet" in rate.caption
    assert tables.tuning(Tuned(tried=tried(SCORES), metric="validation/top1", winners=[])).frame.empty


def test_the_table_shows_winner_runner_up_and_edge() -> None:
    found = tables.tuning(Tuned(tried=tried(SCORES), metric="validation/top1", winners=[WON])).frame.iloc[0]

    assert found["Winner"] == "lr_peak 0.004, warmup 0.1"
    assert (found["Error (%)"], found["Its error (%)"], found["Verdict"]) == ("64.0", "66.0", "tie")
    assert found["Note"].startswith("peak learning rate: the best value lies at the edge of those tried")
