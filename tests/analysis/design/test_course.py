"""The verdicts of an adaptive study count configurations that were not run."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from analysis.design.course import by_design, unsettled
from analysis.labels import configuration_text
from tests.analysis.synthetic import trial_row

ROW = {"regime": "fixed-compute", "flops": 1e10, "verdict": "clear", "reason": "ahead"}


def events(*verdicts: str, dropped: Sequence[str] = (), regime: str = "fixed-compute") -> pd.DataFrame:
    """Return the events of a design whose last decision answered 10 GFLOP, or nothing."""
    answers = [
        {"kind": "best", "regime": regime, "flops": 1e10, "verdict": verdict, "leader": "A",
         "probability": 0.93, "dropped": list(dropped)}
        for verdict in verdicts
    ]  # fmt: skip
    return pd.DataFrame([{"event": "study-started"}, {"event": "design", "answers": answers, "stop": ""}])


def test_an_answer_holds_at_its_compute_whatever_the_rounding() -> None:
    above = float(np.nextafter(1e10, np.inf))
    best = pd.DataFrame([ROW | {"flops": above, "grid": 4, "planned": 3, "configurations": 3}])

    assert by_design(best, events("clear"))["verdict"].tolist() == ["clear"]


@pytest.mark.parametrize(
    ("grid", "measured", "answered", "verdict", "reason"),
    [
        (3, 3, (), "clear", "ahead"),
        (4, 3, (), "undecided", "ahead; 1 configuration of the grid's 4 not run here"),
        (4, 3, ("clear",), "clear", "ahead"),
        (4, 3, ("tie",), "undecided",
         "ahead; with configurations that were not run, A is best with probability 93%"),
        (4, 4, ("tie",), "undecided", "ahead; by the draws of the design, A is best with probability 93%"),
        (4, 1, ("clear",), "clear",
         "ahead; by the curves of those that the design did not run here, A is best with probability 93%"),
    ],
)  # fmt: skip
def test_a_leader_is_clear_only_against_all_configurations_of_the_grid(
    grid: int, measured: int, answered: tuple[str, ...], verdict: str, reason: str
) -> None:
    best = pd.DataFrame([ROW | {"grid": grid, "planned": measured, "configurations": measured}])

    (found,) = by_design(best, events(*answered)).to_dict("records")

    assert (found["verdict"], found["reason"]) == (verdict, reason)


def test_what_the_design_left_out_counts_where_it_might_still_be_the_best() -> None:
    cells = [
        trial_row((8192, "all", name, "clip"), level, 0, 0.5)
        for name in ("ViT-X", "ViT-S")
        for level in (1e10, 2e10)
    ]
    left = pd.DataFrame(cells).assign(train_flops=[1e10, 2e10] * 2)
    names = [configuration_text(cell) for cell in cells]

    def found(table: pd.DataFrame, flops: float) -> list[str]:
        return unsettled(left, table, flops)["architecture"].tolist()

    assert found(events("tie"), 1.001e10) == ["ViT-X", "ViT-S"]
    assert found(events("tie", dropped=[names[2]]), 1e10) == ["ViT-X"]
    assert found(events("clear"), 1e10) == []
    assert found(events("clear"), 2e10) == ["ViT-X", "ViT-S"], "another compute"
    assert found(events("clear", regime="one-epoch"), 1e10) == ["ViT-X", "ViT-S"]
    assert found(pd.DataFrame(), 9e10) == []
