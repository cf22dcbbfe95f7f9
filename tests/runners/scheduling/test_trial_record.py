"""What can happen to a trial in which state, and what of its crashes counts."""

import re
from itertools import product

import pytest

from runners.scheduling.instructions import ScheduledTrial
from runners.scheduling.trial_record import TRANSITIONS, Record, State


def record(state: State = State.WAITING) -> Record:
    task = ScheduledTrial(trial="x", predicted_s=1, resources={"cpus": 1})
    return Record(task=task, state=state, set_aside=False, ahead_s=1)


@pytest.mark.parametrize(("event", "state"), [*product(TRANSITIONS, State)])
def test_whatever_is_not_in_the_table_is_refused_with_the_trials_story(event: str, state: State) -> None:
    trial = record(state)
    trial.events = ["started on a", "left its nodes"]
    if state in TRANSITIONS[event]:
        trial.move(event, ": why")
        assert trial.state is TRANSITIONS[event][state]
        assert trial.events[-1] == f"{event}: why"
        return
    story = re.escape(f"x is {state}, not {' or '.join(TRANSITIONS[event])}; so far: started on a, left its")
    with pytest.raises(ValueError, match=story):
        trial.move(event)
    assert trial.state is state


def test_a_trial_that_has_ended_stays_ended_and_each_other_state_can_be_left() -> None:
    left = {state for changes in TRANSITIONS.values() for state, after in changes.items() if after != state}
    assert left == {*State} - {State.DONE, State.GIVEN_UP}


@pytest.mark.parametrize(
    ("kept", "counts", "pauses_s"),
    [
        ((0, 0, 0), (1, 2, 3), (5, 20, 80)),
        ((3, 3, 4), (1, 2, 1), (5, 20, 5)),
        ((3, 0, 2), (1, 2, 1), (5, 20, 5)),
    ],
)
def test_only_crashes_in_a_row_without_a_newer_checkpoint_count(
    kept: tuple[int, ...], counts: tuple[int, ...], pauses_s: tuple[int, ...]
) -> None:
    trial, counted, waited = record(), list[int](), list[float]()
    for steps in kept:
        trial.crash(steps)
        counted.append(trial.crashes)
        waited.append(trial.pause_s(5))
    assert (tuple(counted), tuple(waited)) == (counts, pauses_s)
