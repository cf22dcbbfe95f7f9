"""The verdicts of an adaptive study count configurations that were not run."""

import pandas as pd
import pytest

from analysis.design.course import by_design, is_clear_at

ROW = {"regime": "fixed-compute", "flops": 1e10, "verdict": "clear", "reason": "ahead"}


def events(*verdicts: str) -> pd.DataFrame:
    """Return the events of a design whose last decision answered 10 GFLOP, or nothing."""
    answers = [
        {"kind": "best", "regime": "fixed-compute", "flops": 1e10, "verdict": verdict, "leader": "A",
         "probability": 0.93, "dropped": []}
        for verdict in verdicts
    ]  # fmt: skip
    return pd.DataFrame([{"event": "study-started"}, {"event": "design", "answers": answers, "stop": ""}])


@pytest.mark.parametrize(
    ("grid", "measured", "answered", "verdict", "reason"),
    [
        (3, 3, (), "clear", "ahead"),
        (4, 3, (), "undecided", "ahead; 1 configuration of the grid's 4 not run here"),
        (4, 3, ("clear",), "clear", "ahead"),
        (4, 3, ("tie",), "undecided",
         "ahead; with configurations that were not run, A is best with probability 93%"),
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


def test_only_a_clear_answer_at_the_same_compute_is_one() -> None:
    assert is_clear_at(events("clear"), 1.001e10)
    assert not is_clear_at(events("clear"), 2e10)
    assert not is_clear_at(events("tie"), 1e10)
    assert not is_clear_at(pd.DataFrame(), 1e10)
