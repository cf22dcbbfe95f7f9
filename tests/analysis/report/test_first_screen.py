"""The sentence of the answer, and the rows that are listed with it."""

import pandas as pd

from analysis.answers.best import turns


def test_a_leader_on_other_pairs_is_another_leader_except_in_one_epoch() -> None:
    best = pd.DataFrame({
        "regime": "equal-samples", "architecture": "ViT-X", "strategy": "clip", "quality": "all",
        "subset_size": [1e6, 2e6, 2e6, 4e6, 2e6, 2e6],
    })  # fmt: skip
    shown, more = turns(best)
    assert (shown.index.tolist(), more) == (
        [0, 1, 3, 4, 5],
        "1 more budget with the same leaders",
    )
    shown, _ = turns(best.assign(regime="one-epoch"))
    assert shown.index.tolist() == [0, 5]
