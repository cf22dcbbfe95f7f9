"""The rows that are listed with the answer, and the time that they say a run takes."""

import pandas as pd
import pytest

from analysis.answers.best import turns
from analysis.answers.cost import run_hours


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


def test_a_branch_takes_as_long_as_a_run_of_its_own_which_trains_the_trunk_too() -> None:
    results = pd.DataFrame({
        "trial": ["long", "short", "middle", "alone", "failed"], "trunk": ["t", "t", "t", "", "t"],
        "train_flops": [900.0, 100.0, 300.0, 900.0, 0.0], "paid_flops": [660.0, 100.0, 220.0, 900.0, 99.0],
    })  # fmt: skip
    took = {"short": 1.0, "middle": 4.4, "long": 6.6, "alone": 9.0}
    events = pd.DataFrame([
        {"time": 1.0, "event": "study-started"},
        *({"event": "trial-finished", "trial": name, "wall_s": 3600 * hours, "time": 2.0}
          for name, hours in took.items()),
    ])  # fmt: skip
    # The middle one leaves the trunk of the short one at 80, the long one that of the middle one at 240.
    assert run_hours(results, events) == pytest.approx(
        {"short": 1.0, "middle": 0.8 + 4.4, "long": 0.8 + 160 * 4.4 / 220 + 6.6, "alone": 9.0}
    )
    assert run_hours(results.drop(columns="trunk"), events) == took

    # The trunk is trained by trials of its own to 80 and 95; branches only cool down.
    trunks = results.assign(
        phase=["trunk", "", "trunk", "", ""], train_flops=[95.0, 100.0, 80.0, 118.0, 0.0],
        paid_flops=[15.0, 20.0, 80.0, 23.0, 9.0], trunk=["t", "t", "t", "t", "t"],
    )  # fmt: skip
    took = {"middle": 8.0, "long": 1.5, "short": 4.0, "alone": 5.0}
    assert run_hours(trunks, events.assign(wall_s=3600 * events["trial"].map(took))) == pytest.approx(
        {"middle": 8.0, "long": 8.0 + 1.5, "short": 8.0 + 4.0, "alone": 8.0 + 1.5 + 5.0}
    )
