"""Sweeps of hyper-parameters: the best of n without its bias, the optimum, and cells that look undertuned."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.cells.imported_table import Column, import_sweeps
from analysis.cells.table import tidy
from tests.analysis.simulated_sweeps import HOW, STEP_LAW, missed, simulate, step_law

GRID = simulate(3, noise=0.3, grid=True, cells=20)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_bias_of_the_best_of_n_is_removed(noise: float) -> None:
    found = pd.concat([
        missed(simulate(seed, noise=noise, grid=seed % 2 == 0, edge=seed > 1, diverged=0.1 * (seed > 0)))
        for seed in range(4)
    ])  # fmt: skip
    assert found["best"].mean() < -0.6 * noise, "the best of n is too good"
    assert abs(found["corrected"].mean()) < 0.1
    within = found["corrected"].abs() < 1.645 * found["standard_error"]
    assert within.mean() == pytest.approx(0.9, abs=0.07)


@pytest.mark.slow
@pytest.mark.skipif(not STEP_LAW.exists(), reason=f"no {STEP_LAW}")
def test_held_out_optimum_of_step_law_is_closer_than_the_published_fit() -> None:
    assert step_law().mean() < 0.0009


def test_each_cell_becomes_its_best_run_without_the_bias_and_with_its_error() -> None:
    frame, tried = import_sweeps(GRID, HOW)
    trials = tidy(frame, metric=HOW.metric).frame
    assert len(trials) == len(tried) == 20
    assert tried["runs"].sum() == len(GRID)
    np.testing.assert_allclose(sorted(trials["error"]), sorted(tried["error"]))
    np.testing.assert_allclose(sorted(trials["reading_error"]), sorted(tried["standard_error"]))
    several = tried[tried["runs"] > 20]
    assert (several["error"] > several["best"]).mean() > 0.5
    assert set(frame.loc[frame["status"] == "failed", "reason"]) == {"not the best run of its sweep"}
    alone = tried[tried["runs"] == 1]
    np.testing.assert_allclose(alone["bias"], 0.0, atol=1e-9)


def test_optimum_is_shown_where_enough_runs_show_it() -> None:
    _, tried = import_sweeps(GRID, HOW)
    shown = tried[tried["lr_peak_optimum"].notna()]
    assert (shown["runs"] >= 4).all()
    assert (tried["runs"] > 40).sum() <= len(shown) < 20
    assert (shown["lr_peak_low"] < shown["lr_peak_optimum"]).all()
    true = GRID.loc[GRID.groupby(["size", "seen"])["true"].idxmin()].set_index("size")["lr"]
    ratio = shown["lr_peak_optimum"] / true.reindex(shown["architecture"].astype(float)).to_numpy()
    assert np.log2(ratio[shown["runs"] > 40]).abs().max() < 1.0, "within a step of the grid"


def test_cells_far_from_the_optimum_of_the_others_and_at_an_edge_are_flagged() -> None:
    size = GRID["size"].value_counts().index[0]
    cell = GRID["size"] == size
    low = cell & (GRID["lr"] < GRID.loc[cell, "lr"].quantile(0.3))
    _, tried = import_sweeps(GRID[~cell | low], HOW)
    flags = tried.set_index("architecture")["flag"]
    name = str(int(size))
    assert "the best lr_peak is the highest tried, and the error still falls there" in flags[name]
    one = GRID[~cell | (GRID.index == GRID.loc[cell, "lr"].idxmin())]
    flag = import_sweeps(one, HOW)[1].set_index("architecture")["flag"][name]
    assert "the optimum by all cells; expected loss" in flag
    assert (flags == "").mean() > 0.5


def test_runs_without_a_number_and_diverged_ones_are_counted_and_flagged() -> None:
    cell = GRID["size"] == GRID["size"].value_counts().index[2]
    rows = GRID.index[cell]
    wrong = GRID["acc"].mask(GRID.index.isin(rows[1:]), 0.03).mask(GRID.index == rows[-1])
    frame, tried = import_sweeps(GRID.assign(acc=wrong), HOW)
    found = tried.set_index("architecture").loc[str(int(GRID.loc[rows[0], "size"]))]
    assert (found["runs"], found["diverged"]) == (len(rows), len(rows) - 1)
    assert f"of its {len(rows) - 1} runs but one diverged" in found["flag"]
    assert "no number, in a sweep" in set(frame["reason"])
    assert tidy(frame, metric=HOW.metric).lost.empty, "a sweep is expected to have them"
    nothing = GRID["acc"].mask(cell)
    lost = tidy(import_sweeps(GRID.assign(acc=nothing), HOW)[0], metric=HOW.metric).lost
    assert len(lost) == 1


def test_mean_is_taken_if_the_map_says_so() -> None:
    frame, tried = import_sweeps(GRID, replace(HOW, mean=True))
    means = 1.0 - GRID.groupby(["size", "seen"])["acc"].mean()
    np.testing.assert_allclose(sorted(tidy(frame, metric=HOW.metric).frame["error"]), sorted(means))
    assert "flag" not in tried


def test_settings_of_several_seeds_are_compared_by_their_mean_and_keep_each() -> None:
    both = pd.concat([GRID.assign(seed=0), GRID.assign(seed=1, acc=GRID["acc"] - 0.001)], ignore_index=True)
    how = replace(HOW, columns={**HOW.columns, "seed": Column(source="seed")})
    frame, tried = import_sweeps(both, how)
    trials = tidy(frame, metric=HOW.metric).frame
    assert len(trials) == 2 * len(tried) == 40
    error = trials.sort_values(["architecture", "seed"])["error"].to_numpy().reshape(-1, 2)
    np.testing.assert_allclose(error[:, 1] - error[:, 0], 0.001)
    np.testing.assert_allclose(sorted(error.mean(axis=1)), sorted(tried["error"]))


def test_names_are_hyper_parameters_too_and_equal_results_no_duplicates() -> None:
    table = GRID.assign(
        optimizer=np.where(np.arange(len(GRID)) % 2, "lion", "adamw"), acc=GRID["acc"].round(1)
    )
    how = replace(HOW, sweep={**HOW.sweep, "optimizer": Column(source="optimizer")})
    frame, tried = import_sweeps(table, how)
    assert set(tried["tuned_optimizer"]) <= {"lion", "adamw"}
    assert "duplicate of an earlier row" not in set(frame["reason"])
    missing, _ = import_sweeps(table.assign(lr=table["lr"].where(table.index > 3)), how)
    assert missing["reason"].tolist()[:4] == ["no lr_peak"] * 4


def test_few_runs_are_not_corrected() -> None:
    _, tried = import_sweeps(GRID.groupby("size").head(1), HOW)
    assert tried["bias"].eq(0.0).all()
    assert tried["standard_error"].isna().all()
