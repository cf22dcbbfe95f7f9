"""Rehearsals of a design on made-up results say what a study will probably cost."""

import pandas as pd
import pytest

from analysis.design.adaptive import rehearse
from analysis.design.questions import Ask
from benchmarks.design import with_trunks
from tests.analysis.synthetic import METRIC

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def grid(small_full: pd.DataFrame) -> pd.DataFrame:
    return small_full.drop(columns=[name for name in small_full.columns if "/" in str(name)])


def test_rehearsals_cost_more_than_the_first_round_and_less_than_the_grid(grid: pd.DataFrame) -> None:
    costs = rehearse(grid, metric=METRIC, ask=Ask(), repeats=2)

    first_round = grid["train_flops"][(grid["level_flops"] < 1e12) & (grid["seed"] == 0)].sum()
    assert len(set(costs)) == 2
    assert first_round < costs.min()
    assert costs.max() < grid["train_flops"].sum()
    assert rehearse(grid, metric=METRIC, ask=Ask(), repeats=1) == costs[:1]


def test_rehearsals_know_trunks_and_the_budget(grid: pd.DataFrame) -> None:
    plain = rehearse(grid, metric=METRIC, ask=Ask(), repeats=1)

    trunks = rehearse(with_trunks(grid), metric=METRIC, ask=Ask(), repeats=1)
    capped = rehearse(grid, metric=METRIC, ask=Ask(), repeats=1, room_flops=20e12)

    assert trunks[0] < plain[0]
    assert 15e12 < capped[0] <= 20e12
