"""The schedule never loses a trial and never exceeds the budget."""

from collections.abc import Mapping
from typing import Any

import pytest

from runners.scheduling.instructions import GiveUp, Retry, ScheduledTrial, SetBack, Start
from runners.scheduling.nodes import Amounts
from runners.scheduling.schedule import Schedule

ONE_SLOT = {"here": {"cpus": 1.0}}


def task(trial: str, predicted_s: float, gpus: int = 0, **more: Any) -> ScheduledTrial:  # noqa: ANN401
    resources: Amounts = {"cpus": 1, "gpus": gpus} if gpus else {"cpus": 1}
    return ScheduledTrial(trial=trial, predicted_s=predicted_s, resources=resources, **more)


def schedule_of(
    *tasks: ScheduledTrial, nodes: Mapping[str, Amounts] = ONE_SLOT, retries: int = 0, backoff_s: float = 0
) -> Schedule:
    schedule = Schedule(tasks, retries=retries, backoff_s=backoff_s)
    schedule.see_nodes(nodes)
    return schedule


def starts(schedule: Schedule, room_flops: int | None = None) -> list[tuple[str, str]]:
    given = schedule.instructions(room_flops)
    return [(each.trial, " ".join(each.nodes)) for each in given if isinstance(each, Start)]


def test_the_longest_trials_start_first_and_equal_ones_by_name() -> None:
    tasks = task("short", 1), task("long", 9), task("b", 5), task("a", 5)
    schedule = schedule_of(*tasks, nodes={"n": {"cpus": 3}})

    assert [trial for trial, _ in starts(schedule)] == ["long", "a", "b"]
    schedule.finish("a")
    assert [trial for trial, _ in starts(schedule)] == ["short"]
    assert starts(schedule) == []


def test_a_trunk_goes_before_longer_trials_and_its_branches_start_at_their_milestones() -> None:
    chain = task("a", 4), task("b", 4, after="a"), task("c", 4, after="b")
    schedule = schedule_of(task("long", 9), *chain, nodes={"n": {"cpus": 3}})

    assert [trial for trial, _ in starts(schedule)] == ["a", "long"]  # 12 s with what waits for it
    assert starts(schedule) == []
    schedule.milestone("a")
    schedule.milestone("a")
    assert [trial for trial, _ in starts(schedule)] == ["b"]  # beside a
    schedule.finish("a")
    schedule.finish("long")
    assert starts(schedule) == []
    schedule.finish("b")
    assert [trial for trial, _ in starts(schedule)] == ["c"]
    schedule.finish("c")
    assert schedule.over


def test_a_trunk_that_ends_before_its_milestone_lets_the_next_trial_go_on_in_another_way() -> None:
    chain = task("a", 4, paid_flops=5), task("b", 4, after="a", paid_flops=5), task("c", 4, after="b")
    schedule = schedule_of(*chain)
    assert schedule.promised_flops == 10, "also those of one that waits for a milestone"
    starts(schedule)
    assert schedule.promised_flops == 5
    schedule.finish("a", milestone=False)
    assert starts(schedule, 8) == []
    schedule.replace(task("b", 4, paid_flops=9))  # from its first step
    assert schedule.promised_flops == 9
    assert starts(schedule, 9) == [("b", "here")]
    schedule.fail("b")
    assert schedule.instructions(None) == [GiveUp(trial="b", cause="failed")]
    schedule.replace(task("c", 4))
    assert starts(schedule) == [("c", "here")]

    schedule = schedule_of(*chain)
    starts(schedule)
    schedule.milestone("a")
    schedule.fail("a")  # b goes on from its milestone
    assert schedule.instructions(None) == [
        GiveUp(trial="a", cause="failed"),
        Start(trial="b", nodes=("here",)),
    ]

    schedule = schedule_of(*chain)
    assert schedule.instructions(4) == [*(GiveUp(trial=each, cause="budget") for each in "abc")]
    assert schedule.over


def test_a_branch_and_a_longer_trunk_both_wait_for_a_milestone() -> None:
    tree = task("a", 4), task("branch", 1, after="a"), task("b", 4, after="a"), task("c", 4, after="b")
    schedule = schedule_of(*tree, nodes={"n": {"cpus": 2}})
    assert [trial for trial, _ in starts(schedule)] == ["a"]
    schedule.finish("a")
    assert [trial for trial, _ in starts(schedule)] == ["b", "branch"]

    schedule = schedule_of(*tree)
    starts(schedule)
    schedule.finish("a", milestone=False)
    schedule.replace(task("branch", 5))
    schedule.replace(task("b", 8))
    assert schedule.blocked() == [tree[-1]]


def test_wide_trial_ranks_by_time_times_gpus_and_takes_the_best_fit() -> None:
    nodes = {"large": {"cpus": 8, "gpus": 8}, "small": {"cpus": 4, "gpus": 4}}
    tasks = task("narrow", 10, 1), task("wide", 4, 4), task("wider", 1, 8)
    schedule = schedule_of(*tasks, nodes=nodes)

    assert starts(schedule) == [("wide", "small"), ("narrow", "large")]
    schedule.finish("narrow")
    assert starts(schedule) == [("wider", "large")]


def test_trial_that_fits_nowhere_does_not_block_others() -> None:
    tasks = task("first", 20, 2), task("wide", 9, 4), task("narrow", 1, 1)
    schedule = schedule_of(*tasks, nodes={"n": {"cpus": 8, "gpus": 4}})

    assert [trial for trial, _ in starts(schedule)] == ["first", "narrow"]
    schedule.finish("first")
    assert starts(schedule) == []
    schedule.finish("narrow")
    assert [trial for trial, _ in starts(schedule)] == ["wide"]


def test_custom_resources_and_multi_node_trials_are_placed() -> None:
    nodes = {name: {"cpus": 2.0, "gpus": 0.0, "licence": float(name == "b")} for name in "abc"}
    licensed = ScheduledTrial(trial="licensed", predicted_s=1, resources={"cpus": 1, "licence": 1})
    across = ScheduledTrial(trial="across", predicted_s=9, resources={"cpus": 2}, nodes=2)
    schedule = schedule_of(licensed, across, nodes=nodes)

    assert starts(schedule) == [("across", "a c"), ("licensed", "b")]
    assert schedule.could_run({"cpus": 2}, nodes=3)
    assert not schedule.could_run({"cpus": 3}, nodes=1)
    assert not schedule.could_run({"cpus": 2}, nodes=4)


def test_crashed_trial_is_the_first_after_its_pause_until_its_retries_are_used_up() -> None:
    tasks = task("long", 99), task("short", 9), task("tiny", 1)
    schedule = schedule_of(*tasks, retries=2, backoff_s=5)
    assert starts(schedule) == [("long", "here")]

    schedule.crash("long")
    assert schedule.instructions(None) == [Retry(trial="long"), Start(trial="tiny", nodes=("here",))]
    schedule.now_s = 1
    schedule.finish("tiny")
    assert starts(schedule) == [], "the other would hold it up"
    schedule.now_s = 5
    assert starts(schedule) == [("long", "here")]
    schedule.crash("long")
    schedule.now_s = 24
    assert schedule.instructions(None) == [Retry(trial="long")]
    schedule.now_s = 25
    assert starts(schedule) == [("long", "here")]
    schedule.crash("long")
    assert schedule.instructions(None) == [
        GiveUp(trial="long", cause="crashed"),
        Start(trial="short", nodes=("here",)),
    ]


def test_progress_resets_the_crash_count_and_a_failure_is_not_retried_on_the_only_node() -> None:
    schedule = schedule_of(task("x", 9), retries=2)

    for kept in (0, 0, 5, 5):
        assert starts(schedule) == [("x", "here")]
        schedule.crash("x", kept=kept)
    assert starts(schedule) == [("x", "here")]
    schedule.fail("x")
    assert schedule.instructions(None) == [GiveUp(trial="x", cause="failed")]
    assert schedule.over


def test_dead_node_gets_no_trial_until_the_cluster_drops_it() -> None:
    nodes = {"a": {"cpus": 1}, "b": {"cpus": 1}}
    schedule = schedule_of(task("x", 3), task("y", 2), task("z", 1), nodes=nodes, retries=3)
    assert starts(schedule) == [("x", "a"), ("y", "b")]

    schedule.crash("x", dead_nodes=["a"])
    schedule.see_nodes(nodes)  # still listed
    assert starts(schedule) == []
    schedule.left("y", dead_nodes=["b"])
    assert starts(schedule) == []
    schedule.see_nodes({"b": {"cpus": 1}})
    schedule.see_nodes({"b": {"cpus": 1}, "a": {"cpus": 1}})  # another one of that name
    assert starts(schedule) == [("x", "a")]


def test_trial_that_left_restarts_and_a_drained_schedule_ends_after_its_running_trials() -> None:
    schedule = schedule_of(task("x", 3), task("y", 1))
    schedule.instructions(None)
    schedule.left("x")
    assert starts(schedule) == [("x", "here")], "leaving is no crash, of which this schedule allows none"

    schedule.drain()
    assert schedule.instructions(None) == []
    schedule.finish("x")
    assert schedule.instructions(None) == []
    assert schedule.over
    assert [each.trial for each in schedule.waiting()] == ["y"]


def test_trial_without_budget_waits_and_is_given_up_when_no_room_can_come() -> None:
    tasks = task("large", 9, paid_flops=60), task("medium", 5, paid_flops=50), task("x", 1, paid_flops=10)
    schedule = schedule_of(*tasks, nodes={"n": {"cpus": 3}})

    assert [trial for trial, _ in starts(schedule, 100)] == ["large", "x"]
    assert schedule.instructions(30) == []
    schedule.finish("large")
    schedule.finish("x")
    assert schedule.instructions(30) == [GiveUp(trial="medium", cause="budget")]
    assert schedule.over


def test_trial_that_an_earlier_run_reserved_needs_no_room() -> None:
    schedule = schedule_of(task("x", 3, paid_flops=60, reserved=True), task("y", 2, paid_flops=50))
    assert schedule.promised_flops == 50
    assert [trial for trial, _ in starts(schedule, 0)] == ["x"]
    schedule.finish("x")
    assert [trial for trial, _ in starts(schedule, 50)] == ["y"], (
        "y was not given up while x could leave room"
    )


def crashed_beside_another() -> Schedule:
    """Return a schedule of a budget of 110: x (60) has crashed and lost 20, y (50) is running."""
    tasks = task("x", 3, paid_flops=60), task("y", 2, paid_flops=50)
    schedule = schedule_of(*tasks, nodes={"n": {"cpus": 2}}, retries=5)
    assert [trial for trial, _ in starts(schedule, 110)] == ["x", "y"]
    schedule.crash("x")
    assert schedule.instructions(-20) == [Retry(trial="x")]
    assert schedule.instructions(-20) == []
    return schedule


def test_crashed_trial_that_exceeds_the_budget_goes_on_if_another_leaves_room_and_is_else_given_up() -> None:
    schedule = crashed_beside_another()
    schedule.finish("y")  # it diverged and paid 20 of its 50
    assert starts(schedule, 10) == [("x", "n")]

    schedule = crashed_beside_another()
    schedule.finish("y")
    assert schedule.instructions(-20) == [SetBack(trial="x")]
    assert schedule.promised_flops == 60
    assert schedule.instructions(40) == [GiveUp(trial="x", cause="budget")]
    assert schedule.over

    schedule = crashed_beside_another()
    schedule.drain()
    schedule.finish("y")
    assert schedule.instructions(-20) == []
    assert schedule.over, "a later run may have a larger budget"


def test_shortest_trial_is_set_back_for_the_others_and_starts_again_if_they_leave_room() -> None:
    schedule = crashed_beside_another()
    schedule.crash("y")
    assert schedule.instructions(-30) == [Retry(trial="y"), SetBack(trial="y")]
    assert [trial for trial, _ in starts(schedule, 20)] == ["x"]
    schedule.finish("x")  # it diverged and paid 10 of its 60
    assert [trial for trial, _ in starts(schedule, 70)] == ["y"]
    schedule.finish("y")
    assert schedule.instructions(20) == []
    assert schedule.over


def test_impossible_event_raises_with_the_trials_history() -> None:
    schedule = schedule_of(task("only", 1), retries=5)
    schedule.instructions(None)
    schedule.crash("only")
    schedule.instructions(None)
    schedule.finish("only")

    story = "started on here, crashed, retried, started on here, finished"
    with pytest.raises(ValueError, match=f"only is done, not running; so far: {story}"):
        schedule.finish("only")
    with pytest.raises(ValueError, match="no trial other in this schedule"):
        schedule.finish("other")
