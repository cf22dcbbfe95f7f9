"""Shares of the variance of error: known ones are found in whole grids and in grids with holes."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from analysis.answers.variance import TOGETHER, shares, variance_shares
from analysis.cells.table import CONFIGURATION, records
from analysis.report.analyse import Analysis
from tests.analysis.made_up.forty import forty_configurations, true_error
from tests.analysis.synthetic import METRIC, cells_of, study

GRID = np.array(list(product(range(3), range(2), range(2)))).T
FIRST, SECOND = np.array([-2.0, 0.0, 2.0]), np.array([-1.0, 1.0])


def test_shares_of_a_whole_grid_are_those_of_its_effects_and_of_their_interaction() -> None:
    errors = FIRST[GRID[0]] + SECOND[GRID[1]]
    apart = 0.5 * np.sign(GRID[1] - 0.5) * np.sign(GRID[2] - 0.5)
    total = 8 / 3 + 1 + 0.25
    found = shares(np.array([errors + apart, errors]), GRID)
    np.testing.assert_allclose(found[0], [8 / 3 / total, 1 / total, 0, 0.25 / total], atol=1e-12)
    np.testing.assert_allclose(found[1], [8 / 11, 3 / 11, 0, 0], atol=1e-12)


def test_shares_of_a_grid_with_holes_are_means_over_the_orders_of_its_parts() -> None:
    codes = np.array([[0, 0, 0, 1], [0, 0, 1, 1]])
    errors = np.array([0.0, 0.0, 1.0, 3.0])
    # Alone: means 1/3 and 3, or 0 and 2; together they fit all cells.
    total = 6.0
    alone = (3 * (1 / 3 - 1) ** 2 + (3 - 1) ** 2) / total, 4 * 1.0 / total
    first, second, rest = shares(errors[None, :], codes)[0]
    assert first == pytest.approx((alone[0] + 1 - alone[1]) / 2)
    assert second == pytest.approx((alone[1] + 1 - alone[0]) / 2)
    assert rest == pytest.approx(0, abs=1e-12)


def test_one_part_explains_all_and_leaves_nothing_to_know_of_interactions() -> None:
    assert shares(np.array([[0.1, 0.2, 0.4]]), np.array([[0, 1, 2]])).tolist() == [
        [pytest.approx(1), pytest.approx(np.nan, nan_ok=True)]
    ]


def test_each_budget_has_shares_whose_intervals_hold_the_truth() -> None:
    results = forty_configurations().results
    table = variance_shares(cells_of(results))
    held = []
    for budget, rows in table.groupby("budget"):
        here = results[(results["level_flops"] == budget) & (results["seed"] == 0)]
        errors = np.array([[
            true_error(row["subset_size"], row["quality"], row["train_flops_per_sample"], row["samples_seen"])
            for row in records(here)
        ]])  # fmt: skip
        codes = np.array([pd.factorize(here[part])[0] for part in rows["part"][:-1]])
        truth = shares(errors, codes)[0]
        held += ((rows["low"] <= truth) & (truth <= rows["high"])).tolist()
        assert rows["share"].tolist() == pytest.approx(truth.tolist(), abs=0.05)
        assert np.isclose(rows["deviation"], errors.std(), atol=0.005).all()
    assert len(held) == 4 * 5
    assert np.mean(held) > 0.7


def test_interactions_are_unknown_where_one_part_varies_at_a_time(analysed: Analysis) -> None:
    table = variance_shares(analysed.draws)
    assert set(table["part"]) == {*CONFIGURATION, TOGETHER}
    assert (table["low"] <= table["share"]).sum() == len(table) - table["share"].isna().sum()
    single = variance_shares(cells_of(study(seeds=1).results))
    assert single[["low", "high"]].isna().all(axis=None)


def test_equal_errors_have_no_variance_to_share() -> None:
    assert variance_shares(cells_of(study(seeds=1).results.assign(**{METRIC: 0.02}))).empty
