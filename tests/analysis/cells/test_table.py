"""Validation of results tables: rows used, rows excluded, and errors."""

import numpy as np
import pandas as pd
import pytest

from analysis.cells.study_frames import StudyFrames
from analysis.cells.table import CELL, levels, tidy


def test_error_is_one_minus_the_declared_metric(frames: StudyFrames) -> None:
    tidied = tidy(frames.results, metric="held-out/top1").frame.set_index("trial")["error"]
    given = frames.results.set_index("trial")["held-out/top1"]
    assert len(tidied) == len(given) == 99
    np.testing.assert_allclose(tidied, 1 - given[tidied.index])


def test_images_are_those_of_the_metrics_own_evaluation_set(frames: StudyFrames) -> None:
    assert set(tidy(frames.results, metric="held-out/top1").frame["images"]) == {1600}
    assert set(tidy(frames.results, metric="style/top1").frame["images"]) == {800}


def test_a_trial_that_did_not_finish_is_excluded_and_its_reason_kept(frames: StudyFrames) -> None:
    results = frames.results.copy()
    first = results.index[0]
    for column, value in (
        ("status", "diverged"),
        ("reason", "loss is not finite"),
        ("held-out/top1", np.nan),
    ):
        results.loc[first, column] = value
    trials = tidy(results, metric="held-out/top1")
    assert len(trials.frame) == 98
    trial = results["trial"].iloc[0]
    assert trials.excluded.to_dict("records") == [
        {"trial": trial, "status": "diverged", "reason": "diverged: loss is not finite"}
    ]


def test_a_finished_trial_without_the_metric_is_excluded(frames: StudyFrames) -> None:
    results = frames.results.copy()
    results.loc[results.index[5], "held-out/top1"] = np.nan
    trials = tidy(results, metric="held-out/top1")
    assert len(trials.frame) == 98
    assert trials.excluded["reason"].tolist() == ["the metric held-out/top1 is not a finite number"]


def test_a_study_whose_trials_all_failed_has_reasons_and_no_metric(frames: StudyFrames) -> None:
    failed = frames.results.drop(columns="held-out/top1").assign(status="failed", reason="out of memory")
    trials = tidy(failed, metric="held-out/top1")
    assert trials.frame.empty
    assert set(trials.excluded["reason"]) == {"failed: out of memory"}


def test_a_run_without_a_number_counts_as_lost_in_its_cell(frames: StudyFrames) -> None:
    results = frames.results.copy()
    whole = tidy(results, metric="held-out/top1").frame
    cell = whole[[*CELL]].iloc[0]
    trial = whole["trial"].iloc[0]
    results.loc[results["trial"] == trial, "held-out/top1"] = np.nan
    frame = tidy(results, metric="held-out/top1").frame
    here = (frame[[*CELL]] == cell).all(axis=1)
    assert frame["diverged"][here].tolist() == [1] * here.sum()
    assert not frame["diverged"][~here].any()


def test_the_same_trial_twice_is_refused(frames: StudyFrames) -> None:
    with pytest.raises(ValueError, match="name each trial once; found 'vit-x-clip-"):
        tidy(pd.concat([frames.results, frames.results.iloc[[0]]]), metric="held-out/top1")


def test_two_trials_of_one_cell_and_seed_are_refused(frames: StudyFrames) -> None:
    copy = frames.results.iloc[[0]].assign(trial="again")
    with pytest.raises(ValueError, match=r"'again'.* have the same cell and seed"):
        tidy(pd.concat([frames.results, copy]), metric="held-out/top1")


def test_two_budgets_that_count_as_one_are_named_with_the_remedy(frames: StudyFrames) -> None:
    results = frames.results.drop(columns="batch_size", errors="ignore").assign(level_flops=np.nan)
    first = results.iloc[[0]]
    close = first.assign(trial="close", train_flops=first["train_flops"] * 0.98)
    with pytest.raises(ValueError, match=r"FLOPs count as one budget, .*: give level_flops or batch_size"):
        tidy(pd.concat([first, close]), metric="held-out/top1")


def test_an_unknown_metric_is_answered_with_the_nearest(frames: StudyFrames) -> None:
    with pytest.raises(ValueError, match=r"unknown metric 'heldout/top1'; did you mean 'held-out/top1'\?"):
        tidy(frames.results, metric="heldout/top1")


def test_a_missing_column_is_named_with_those_needed(frames: StudyFrames) -> None:
    with pytest.raises(ValueError, match="results have no column 'train_flops'; needed: trial, regime"):
        tidy(frames.results.drop(columns="train_flops"), metric="held-out/top1")


def test_a_finished_trial_without_a_setting_is_named(frames: StudyFrames) -> None:
    results = frames.results.copy()
    results.loc[results.index[4], "quality"] = None
    with pytest.raises(ValueError, match=f"'quality' has no value in trial '{results['trial'].iloc[4]}'"):
        tidy(results, metric="held-out/top1")


def test_percentages_are_refused_where_fractions_are_due(frames: StudyFrames) -> None:
    results = frames.results.assign(**{"held-out/top1": 100 * frames.results["held-out/top1"]})
    with pytest.raises(ValueError, match=r"'held-out/top1' must hold fractions in \[0, 1\]; found"):
        tidy(results, metric="held-out/top1")


def test_an_unknown_regime_is_answered_with_the_allowed(frames: StudyFrames) -> None:
    with pytest.raises(ValueError, match="did you mean 'fixed-compute'"):
        tidy(frames.results.assign(regime="fixed_compute"), metric="held-out/top1")


def test_outside_fixed_compute_the_budget_is_the_samples_seen(frames: StudyFrames) -> None:
    results = frames.results.assign(regime="equal-samples", level_flops=np.nan)
    tidied = tidy(results, metric="held-out/top1").frame
    assert (tidied["budget"] == tidied["samples_seen"]).all()


def test_an_empty_table_is_a_study_without_finished_trials() -> None:
    trials = tidy(pd.DataFrame(), metric="held-out/top1")
    assert trials.frame.empty
    assert trials.excluded.empty


def test_equal_samples_that_differ_by_less_than_a_batch_are_one_budget(frames: StudyFrames) -> None:
    results = frames.results.iloc[:3].copy()
    results["regime"], results["level_flops"] = "equal-samples", np.nan
    results["samples_seen"], results["batch_size"] = [10_048, 9_984, 20_032], [64, 128, 64]

    budgets = tidy(results, metric="held-out/top1").frame.set_index("trial")["budget"]

    assert budgets[results["trial"]].tolist() == [10_048, 10_048, 20_032]


def test_close_values_do_not_chain_into_one_level() -> None:
    near = np.geomspace(1.0, 2.0, 100)
    found = levels(near, np.full(100, np.nan))
    assert (near >= 0.97 * found - 1e-12).all()
    assert len(np.unique(found)) == 20  # five values within 2.8 % in each
    assert levels(near, np.full(100, 1e-9)).tolist() == near.tolist()


def test_under_fixed_compute_a_missing_level_follows_from_the_flops(frames: StudyFrames) -> None:
    given = tidy(frames.results, metric="held-out/top1").frame.set_index("trial")["budget"]
    results = frames.results.assign(level_flops=np.nan)
    found = tidy(results, metric="held-out/top1").frame.set_index("trial")["budget"]
    assert found.nunique() == given.nunique()
    assert len(pd.DataFrame({"found": found, "given": given}).drop_duplicates()) == given.nunique()


def test_a_trial_without_a_level_joins_a_given_one_that_it_may_be_rounded_down_from(
    frames: StudyFrames,
) -> None:
    given = tidy(frames.results, metric="held-out/top1").frame.set_index("trial")["budget"]
    lacking = frames.results["architecture"] == "ViT-S"
    assert lacking.any()
    results = frames.results.assign(level_flops=frames.results["level_flops"].mask(lacking))
    found = tidy(results, metric="held-out/top1").frame.set_index("trial")["budget"]
    pd.testing.assert_series_equal(found, given)
