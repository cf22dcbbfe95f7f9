"""The levels of a trunk share noise: they are drawn and left out together."""

from collections import defaultdict

import numpy as np
import pytest

from analysis.cells.bootstrap import curve_numbers
from tests.analysis.made_up.coverage import Held, ask, study
from tests.analysis.made_up.valleys import KINDS
from tests.analysis.synthetic import cells_of

pytestmark = pytest.mark.slow


def test_trunks_are_resampled_whole_and_left_out_whole() -> None:
    made = study("floor", 3, shared=0.9).results
    alone, whole = (cells_of(rows, draws=4000) for rows in (made.assign(trunk=""), made))

    assert alone.shared == 0
    assert 0.6 < whole.shared <= 1
    assert whole.freedom < 0.6 * alone.freedom
    trunks = made.groupby("trunk")["level_flops"].nunique()
    assert len(whole.stacked()) == 1 + whole.refits + len(trunks)
    assert len(alone.stacked()) == 1 + alone.refits + len(made)
    # Without a trunk every level of its curve moves; the other curves stay.
    rows = whole.stacked()[1 + whole.refits :] != whole.cells["error"].to_numpy()
    assert sorted(rows.sum(axis=1)) == sorted(trunks)
    numbers = curve_numbers(whole.cells)
    curve = np.flatnonzero(numbers == numbers[0])
    assert np.corrcoef(whole.draws[:, curve[0]], whole.draws[:, curve[-1]])[0, 1] > 0.5
    assert abs(np.corrcoef(alone.draws[:, curve[0]], alone.draws[:, curve[-1]])[0, 1]) < 0.3


def test_levels_of_a_trunk_without_residuals_of_their_own_are_drawn_apart() -> None:
    made = study("floor", 3, shared=0.3).results
    lowest = made["level_flops"] == made["level_flops"].min()
    thin = made[lowest | (made["seed"] == 0)]

    drawn = cells_of(thin, draws=4000)

    numbers = curve_numbers(drawn.cells)
    for number in np.unique(numbers):
        levels = drawn.draws[:, numbers == number]
        assert np.abs(np.corrcoef(levels.T) - np.eye(levels.shape[1])).max() < 0.3


def test_intervals_of_studies_with_trunks_cover_the_truth_at_their_nominal_rate() -> None:
    held: Held = defaultdict(list)
    for kind in KINDS:
        for number in range(12):
            for name, answers in ask(kind, number, draws=200, shared=0.8).items():
                held[name] += answers
    assert np.mean(held["clear but wrong"]) <= 0.1
    for name in ("band", "worth", "forecast", "recommendation"):
        assert np.mean(held[name]) >= 0.82
