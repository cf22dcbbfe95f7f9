"""Runs without a result belong to the cell that they were planned for."""

import numpy as np

from analysis.cells.study_frames import as_planned, lost_cells
from analysis.cells.table import CELL, tidy
from tests.analysis.synthetic import study

METRIC = "held-out/top1"


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

    lost = trials.frame.set_index("trial")["diverged"]
    assert set(lost[whole["trial"][cell == 0].iloc[1:]]) == {1.0}
    assert set(lost[whole["trial"][cell > 1]]) == {0.0}
    cells = lost_cells(trials)
    assert cells["runs"].tolist() == [len(gone)]
    assert (
        cells[[*CELL]].to_numpy().tolist() == whole[cell == 1][[*CELL]].drop_duplicates().to_numpy().tolist()
    )
