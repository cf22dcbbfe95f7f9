"""The sentence of the answer, and the rows that are listed with it."""

import pandas as pd

from analysis.answers.best import turns
from analysis.report.first_screen import answer


def test_configurations_that_tie_in_their_strategy_share_their_other_parts() -> None:
    parts = {"architecture": "EVA-CLIP-B", "subset_size": 1e6, "quality": "all"}
    leaders = [parts | {"strategy": "clip"}, parts | {"strategy": "slip"}]
    row = {"at": "1 TFLOP", "verdict": "tie", "leaders": leaders, "scope": "2 of 2 tried; more"}
    row["regime"] = "equal-samples"
    assert answer(row, "error") == (
        "At 1 TFLOP train EVA-CLIP-B with CLIP or SLIP on 1M pairs (all); the data can't tell them apart; "
        "2 of 2 tried."
    )
    row["regime"] = "one-epoch"
    assert "with CLIP or SLIP on one epoch of new pairs (all); " in answer(row, "error")


def test_a_leader_on_other_pairs_is_another_leader_except_in_one_epoch() -> None:
    best = pd.DataFrame({
        "regime": "equal-samples", "architecture": "ViT-X", "strategy": "clip", "quality": "all",
        "subset_size": [1e6, 2e6, 2e6, 4e6, 2e6, 2e6],
    })  # fmt: skip
    shown, more = turns(best)
    assert (shown.index.tolist(), more) == (
        [0, 1, 3, 4, 5],
        "1 further compute with the same leaders in the table",
    )
    shown, _ = turns(best.assign(regime="one-epoch"))
    assert shown.index.tolist() == [0, 5]
