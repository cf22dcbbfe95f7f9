"""Designs that choose among trunks, evaluated at their milestones, and their branches."""

import numpy as np
import pandas as pd
import pytest

from analysis.cells.table import of_trunks, tidy
from analysis.design.adaptive import FIRST_ROUND, decide, rehearse
from analysis.design.prices import Prices
from analysis.design.questions import Ask
from benchmarks.design import replay
from runners.results import TRUNK
from tests.analysis.made_up.designs import grid as made_up
from tests.analysis.made_up.trunk_states import TrueMap, with_trunk_states
from tests.analysis.synthetic import METRIC

pytestmark = pytest.mark.slow

FIRST, SECOND, THIRD = 2e11, 6e11, 1.8e12


@pytest.fixture(scope="module")
def grid() -> pd.DataFrame:
    made = made_up(1, shared=0.5)
    few = made.results[made.results["architecture"].isin(["ViT-0", "ViT-1", "ViT-2", "ViT-3"])]
    few = few[(few["level_flops"] < 2e12) & (few["seed"] < 2)]
    return with_trunk_states(
        few,
        lambda row: made.truth[row["architecture"]](row["level_flops"]),
        TrueMap(),
        np.random.default_rng(0),
    )


def test_a_branch_pays_for_its_trunk_and_for_no_other_branch(grid: pd.DataFrame) -> None:
    prices = Prices.of(grid)
    one = grid[(grid["architecture"] == "ViT-0") & (grid["seed"] == 0)]
    rows = {key: int(np.flatnonzero(grid["trial"] == trial)[0])
            for key, trial in one.set_index(["phase", "level_flops"])["trial"].items()}  # fmt: skip
    nothing = np.zeros(len(grid), dtype=bool)

    assert prices.brought(rows["", THIRD], nothing) == [
        rows[TRUNK, FIRST], rows[TRUNK, SECOND], rows[TRUNK, THIRD], rows["", THIRD]
    ]  # fmt: skip
    now = prices.now(nothing)
    assert now[rows["", THIRD]] == pytest.approx(THIRD)
    assert now[rows[TRUNK, THIRD]] == pytest.approx(0.8 * THIRD)
    trained = nothing.copy()
    trained[[rows[TRUNK, FIRST], rows[TRUNK, SECOND], rows["", SECOND]]] = True
    assert prices.brought(rows["", THIRD], trained) == [rows[TRUNK, THIRD], rows["", THIRD]]
    assert prices.now(trained)[rows["", THIRD]] == pytest.approx(THIRD - 0.8 * SECOND)


def test_first_round_trains_trunks_and_cools_the_smallest(grid: pd.DataFrame) -> None:
    decision = decide(tidy(grid[:0], metric=METRIC), grid, ask=Ask(), slots=1000)

    chosen = grid.set_index("trial").loc[[pick.trial for pick in decision.picks]]
    assert chosen.groupby(["phase", "level_flops", "seed"]).size().to_dict() == {
        ("", FIRST, 0): 4, (TRUNK, FIRST, 0): 4, (TRUNK, FIRST, 1): 4, (TRUNK, SECOND, 0): 4,
    }  # fmt: skip
    assert {pick.reason for pick in decision.picks} == {FIRST_ROUND}


def test_options_are_told_apart_and_running_ones_are_not_chosen_again(grid: pd.DataFrame) -> None:
    seen = (grid["level_flops"] == FIRST) | (
        of_trunks(grid) & (grid["level_flops"] == SECOND) & (grid["seed"] == 0)
    )
    known = tidy(grid[seen], metric=METRIC)

    first = decide(known, grid, ask=Ask(best=(THIRD,)), slots=8)
    more = decide(known, grid, ask=Ask(best=(THIRD,)), slots=8, running=[pick.trial for pick in first.picks])

    phase = grid.set_index("trial")["phase"]
    for pick in first.picks:
        assert any(text in pick.reason for text in (" its trunk to ", " cooled at "))
        if phase[pick.trial] != TRUNK:
            assert " cooled at " in pick.reason
    assert not {pick.trial for pick in first.picks} & {pick.trial for pick in more.picks}


def test_a_replay_ends_long_before_the_grid_and_says_what_it_dropped(grid: pd.DataFrame) -> None:
    decision, share, chosen = replay(grid, metric=METRIC, ask=Ask(), slots=4)

    assert share < 0.5
    assert [answer.flops for answer in decision.answers] == [FIRST, SECOND, THIRD]
    assert any(answer.dropped for answer in decision.answers)
    assert of_trunks(chosen).any()
    trunks = chosen[of_trunks(chosen)].set_index(["architecture", "seed", "level_flops"]).index
    cooled = chosen[~of_trunks(chosen)].set_index(["architecture", "seed", "level_flops"]).index
    assert set(cooled) <= set(trunks), "each branch has its trunk"
    for answer in decision.answers:
        assert len(answer.dropped) == len(answer.returns)
        assert all(chance < 0.005 for chance in answer.returns)


def test_rehearsals_know_trunks_that_are_evaluated(grid: pd.DataFrame) -> None:
    plan = grid.drop(columns=[name for name in grid.columns if "/" in str(name)])

    cost = rehearse(plan, metric=METRIC, ask=Ask(), repeats=1)

    assert 0.2 * SECOND * 4 < cost[0] < plan["paid_flops"].sum()
