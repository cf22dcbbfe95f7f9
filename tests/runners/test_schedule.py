"""The schedule decides, and never loses a trial."""

import random

import pytest

from runners.schedule import Schedule, State, Task


def tasks(**seconds: float) -> list[Task]:
    return [Task(trial=name, predicted_s=length) for name, length in seconds.items()]


def test_the_longest_trials_start_first_and_equal_ones_by_name() -> None:
    schedule = Schedule(tasks(short=1, long=9, b=5, a=5), retries=0)

    assert schedule.start_next(3) == ["long", "a", "b"]
    assert schedule.start_next(3) == ["short"]
    assert schedule.start_next(3) == []


def test_a_crashed_trial_keeps_its_place_in_the_order_until_its_retries_are_used_up() -> None:
    schedule = Schedule(tasks(long=9, short=1, tiny=0.1), retries=1)
    schedule.start_next(1)

    assert schedule.crash("long")
    assert schedule.start_next(1) == ["long"]
    assert not schedule.crash("long")
    assert schedule.start_next(2) == ["short", "tiny"]


def test_a_trial_that_failed_by_itself_is_not_tried_again() -> None:
    schedule = Schedule(tasks(only=1), retries=5)
    schedule.start_next(1)

    schedule.fail("only")

    assert schedule.over
    assert schedule.start_next(1) == []


def test_an_impossible_event_tells_the_trials_story() -> None:
    schedule = Schedule(tasks(only=1), retries=5)
    schedule.start_next(1)
    schedule.crash("only")
    schedule.start_next(1)
    schedule.finish("only")

    with pytest.raises(
        ValueError, match="only is done, not running; so far: started, crashed, started, finished"
    ):
        schedule.finish("only")
    with pytest.raises(ValueError, match="no trial other in this schedule"):
        schedule.finish("other")


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_every_trial_ends_and_none_runs_twice_at_once(seed: int) -> None:
    draw = random.Random(seed)
    names = [f"t{number}" for number in range(draw.randint(1, 12))]
    retries = draw.randint(0, 3)
    schedule = Schedule((Task(trial=name, predicted_s=draw.random()) for name in names), retries=retries)
    slots, running, starts = draw.randint(1, 4), set[str](), dict.fromkeys(names, 0)

    while not schedule.over:
        for trial in schedule.start_next(slots - len(running)):
            assert trial not in running
            running.add(trial)
            starts[trial] += 1
        assert len(running) == min(slots, len(running) + schedule.count(State.WAITING))
        trial = draw.choice(sorted(running))
        running.remove(trial)
        draw.choice([schedule.finish, schedule.fail, schedule.crash, schedule.drop])(trial)

    assert schedule.count(State.DONE) + schedule.count(State.GIVEN_UP) == len(names)
    assert all(1 <= count <= 1 + retries for count in starts.values())
