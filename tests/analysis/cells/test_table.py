"""Validation of results tables: rows used, rows excluded, planned cells of lost runs, and errors."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.cells.study_frames import StudyFrames, as_planned, by_phase, missing
from analysis.cells.table import CELL, levels, repeated, tidy, used_attempts, with_budgets
from tests.analysis.synthetic import METRIC, study


def column(results: pd.DataFrame, name: str) -> "pd.Series[float]":
    """Return a column of the validated table by trial."""
    return tidy(results, metric=METRIC).frame.set_index("trial")[name]


def test_error_is_one_minus_the_declared_metric(frames: StudyFrames) -> None:
    error = column(frames.results, "error")
    given = frames.results.set_index("trial")[METRIC]
    assert len(error) == len(given) == 99
    np.testing.assert_allclose(error, 1 - given[error.index])


def test_images_are_those_of_the_metrics_own_evaluation_set(frames: StudyFrames) -> None:
    assert set(tidy(frames.results, metric=METRIC).frame["images"]) == {1600}
    assert set(tidy(frames.results, metric="style/top1").frame["images"]) == {800}


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        ("diverged", "loss is not finite", "diverged: loss is not finite"),
        ("finished", "", "the metric held-out/top1 is not a finite number"),
    ],
)
def test_a_trial_without_a_number_is_excluded_and_its_reason_kept(
    status: str, reason: str, told: str, frames: StudyFrames
) -> None:
    results = frames.results.copy()
    results.loc[5, ["status", "reason", METRIC]] = status, reason, np.nan
    trials = tidy(results, metric=METRIC)
    assert len(trials.frame) == 98
    assert trials.excluded.to_dict("records") == [
        {"trial": results["trial"][5], "status": status, "reason": told}
    ]


def test_of_several_attempts_the_newest_with_a_result_has_the_place_of_the_first(frames: StudyFrames) -> None:
    first = frames.results.assign(attempt=1)
    one, two, three = (first.iloc[[row]] for row in range(3))

    def attempt(row: pd.DataFrame, number: int, **values: float | str) -> pd.DataFrame:
        return row.assign(trial=f"{row['trial'].item()}-{number}", attempt=number, **values)

    again = [
        attempt(one, 2, **{METRIC: 0.9}), attempt(one, 3, status="failed", **{METRIC: np.nan}),
        attempt(two, 2, status="diverged", **{METRIC: np.nan}), attempt(three, 10, **{METRIC: 0.8}),
        attempt(three, 2),
    ]  # fmt: skip
    results = pd.concat([first, *again], ignore_index=True)

    used = {name: rows[-1]["trial"] for name, rows in repeated(results).items()}
    names = [row["trial"].item() for row in (one, two, three)]
    assert used == dict(zip(names, (f"{names[0]}-2", f"{names[1]}-2", f"{names[2]}-10"), strict=True))
    trials = tidy(as_planned(results, frames.plan), metric=METRIC)
    error = trials.frame.set_index("trial")["error"]
    assert error[[names[0], names[2]]].tolist() == pytest.approx([0.1, 0.2])
    assert trials.lost["trial"].tolist() == [names[1]]
    assert len(trials.frame) + len(trials.excluded) == len(first)
    assert used_attempts(first, first) is first
    assert used_attempts(imported := first.drop(columns="attempt"), imported) is imported


def test_rows_of_trunks_are_apart_from_those_of_their_cells_and_count_in_costs(frames: StudyFrames) -> None:
    states = [f"{trial}-trunk" for trial in frames.results["trial"]]
    own: dict[str, Any] = {"phase": "trunk", "train_flops": frames.results["train_flops"] * 0.8}
    trunks = frames.results.assign(trial=states, **{METRIC: frames.results[METRIC] * 0.9}, **own)
    results = pd.concat([frames.results.assign(phase=""), trunks], ignore_index=True)
    planned = pd.concat([frames.plan.assign(phase=""), frames.plan.assign(trial=states, **own)])

    both = replace(frames, **by_phase(results=results.iloc[:-2], plan=planned))
    assert both.results["trial"].tolist() == frames.results["trial"].tolist()
    assert len(both.every("plan")) == 2 * len(both.plan) == 2 * len(frames.plan)
    trials = both.trials
    pd.testing.assert_frame_equal(trials.frame, frames.trials.frame)
    assert trials.trunks["trial"].isin(states[:-2]).sum() == len(states) - 2
    lacking = missing(with_budgets(both.every("plan"), trials), trials, {})
    assert lacking["seeds"].tolist() == ["1 (trunk), 2 (trunk)"]
    assert by_phase(results=frames.results) == {"results": frames.results}


def test_a_study_whose_trials_all_failed_has_reasons_and_no_metric(frames: StudyFrames) -> None:
    failed = frames.results.drop(columns=METRIC).assign(status="failed", reason="out of memory")
    trials = tidy(failed, metric=METRIC)
    assert trials.frame.empty
    assert set(trials.excluded["reason"]) == {"failed: out of memory"}


def test_a_run_without_a_number_counts_as_lost_in_its_cell(frames: StudyFrames) -> None:
    results = frames.results.copy()
    lost = tidy(results, metric=METRIC).frame.iloc[0]
    results.loc[results["trial"] == lost["trial"], METRIC] = np.nan
    frame = tidy(results, metric=METRIC).frame
    same_cell = (frame[[*CELL]] == lost[[*CELL]]).all(axis=1)
    assert frame["lost"][same_cell].tolist() == [1] * same_cell.sum()
    assert not frame["lost"][~same_cell].any()


def test_a_run_that_diverged_early_outside_fixed_compute_counts_as_lost_by_its_planned_cell() -> None:
    plan = study(levels=(2e11, 9e11)).results.assign(regime="equal-samples")
    whole = tidy(plan, metric=METRIC).frame
    cell = whole.groupby([*CELL]).ngroup()
    one, gone = whole["trial"][cell == 0].iloc[0], whole["trial"][cell == 1]
    early = plan["trial"].isin([one, *gone])
    share = np.where(early, 0.25, 1.0)
    results = plan.assign(
        status=np.where(early, "diverged", "finished"), samples_seen=plan["samples_seen"] * share,
        train_flops=plan["train_flops"] * share, **{METRIC: plan[METRIC].mask(early)},
    )  # fmt: skip

    trials = tidy(as_planned(results, plan), metric=METRIC)

    lost = trials.frame.set_index("trial")["lost"]
    assert set(lost[whole["trial"][cell == 0].iloc[1:]]) == {1.0}
    assert set(lost[whole["trial"][cell > 1]]) == {0.0}
    cells = trials.lost[trials.lost["trial"].isin(gone)]
    assert len(cells) == len(gone)
    assert cells[[*CELL]].iloc[0].to_dict() == whole[cell == 1].iloc[0][[*CELL]].to_dict()


def close_budgets(results: pd.DataFrame) -> pd.DataFrame:
    """Return two trials without level or batch size whose compute differs by 2 %."""
    first = results.iloc[[0]].drop(columns="batch_size").assign(level_flops=np.nan)
    return pd.concat([first, first.assign(trial="close", train_flops=0.98 * first["train_flops"])])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: pd.concat([rows, rows.iloc[[0]]]), "each trial once; found 'vit-x-clip-"),
        (lambda rows: pd.concat([rows, rows.iloc[[0]].assign(trial="again")]),
         "'again'.* same cell and seed"),
        (close_budgets, "give level_flops or batch_size"),
        (lambda rows: rows.rename(columns={METRIC: "held-outs/top1"}), "did you mean 'held-outs/top1'"),
        (lambda rows: rows.drop(columns="train_flops"), "no column 'train_flops'"),
        (lambda rows: rows.assign(quality=rows["quality"].mask(rows.index == 4)),
         "'quality' has no value in trial 'vit-x-clip-top40-3276-900g-s1'"),
        (lambda rows: rows.assign(**{METRIC: 100 * rows[METRIC]}), r"'held-out/top1' .*\[0, 1\]"),
        (lambda rows: rows.assign(regime="fixed_compute"), "did you mean 'fixed-compute'"),
    ],
    ids=["trial twice", "cell and seed twice", "two budgets as one", "unknown metric", "missing column",
         "no quality", "percent", "unknown regime"],
)  # fmt: skip
def test_a_wrong_table_is_refused_with_what_is_wrong_and_allowed(
    change: Callable[[pd.DataFrame], pd.DataFrame], message: str, frames: StudyFrames
) -> None:
    with pytest.raises(ValueError, match=message):
        tidy(change(frames.results), metric=METRIC)


def test_an_empty_table_is_a_study_without_finished_trials() -> None:
    trials = tidy(pd.DataFrame(), metric=METRIC)
    assert trials.frame.empty
    assert trials.excluded.empty


def test_outside_fixed_compute_the_budget_is_the_samples_seen(frames: StudyFrames) -> None:
    results = frames.results.assign(regime="equal-samples", level_flops=np.nan)
    tidied = tidy(results, metric=METRIC).frame
    assert (tidied["budget"] == tidied["samples_seen"]).all()


def test_equal_samples_that_differ_by_less_than_a_batch_are_one_budget(frames: StudyFrames) -> None:
    results = frames.results.iloc[:3].assign(
        regime="equal-samples", level_flops=np.nan,
        samples_seen=[10_048, 9_984, 20_032], batch_size=[64, 128, 64],
    )  # fmt: skip
    assert column(results, "budget")[results["trial"]].tolist() == [10_048, 10_048, 20_032]


def test_close_values_do_not_chain_into_one_level() -> None:
    near = np.geomspace(1.0, 2.0, 100)
    found = levels(near, np.full(100, np.nan))
    assert (near >= 0.97 * found - 1e-12).all()
    assert len(np.unique(found)) == 20  # five values within 2.8 % in each
    assert levels(near, np.full(100, 1e-9)).tolist() == near.tolist()


def test_under_fixed_compute_a_missing_level_follows_from_the_flops(frames: StudyFrames) -> None:
    given = column(frames.results, "budget")
    found = column(frames.results.assign(level_flops=np.nan), "budget")
    assert found.nunique() == given.nunique()
    assert len(pd.DataFrame({"found": found, "given": given}).drop_duplicates()) == given.nunique()


def test_a_trial_without_a_level_joins_a_given_one_that_it_may_be_rounded_down_from(
    frames: StudyFrames,
) -> None:
    lacking = frames.results["architecture"] == "ViT-S"
    results = frames.results.assign(level_flops=frames.results["level_flops"].mask(lacking))
    assert results["level_flops"].isna().any()
    pd.testing.assert_series_equal(column(results, "budget"), column(frames.results, "budget"))
