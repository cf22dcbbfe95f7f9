"""The schedule never loses a trial and never exceeds the budget."""

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from runners.scheduling.instructions import Done, EndBranches, GiveUp, Retry, SetBack, Start
from runners.scheduling.nodes import Amounts
from runners.scheduling.schedule import Schedule, ScheduledTrial, State

ONE_SLOT = {"here": {"cpus": 1.0}}


def task(trial: str, predicted_s: float, gpus: int = 0, **more: Any) -> ScheduledTrial:  # noqa: ANN401
    resources: Amounts = {"cpus": 1, "gpus": gpus} if gpus else {"cpus": 1}
    return ScheduledTrial(trial=trial, predicted_s=predicted_s, resources=resources, **more)


def schedule_of(
    *tasks: ScheduledTrial, nodes: Mapping[str, Amounts] = ONE_SLOT, retries: int = 0
) -> Schedule:
    schedule = Schedule(tasks, retries=retries)
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


def test_a_trunk_that_ends_before_its_milestone_ends_its_branches_once() -> None:
    chain = task("a", 4, paid_flops=5), task("b", 4, after="a", paid_flops=5), task("c", 4, after="b")
    schedule = schedule_of(*chain)
    starts(schedule)
    schedule.finish("a", milestone=False)
    assert schedule.instructions(None) == [EndBranches(trial="a", branches=("b", "c")), Done()]

    schedule = schedule_of(*chain)
    starts(schedule)
    schedule.milestone("a")
    schedule.fail("a")  # b goes on from its milestone
    assert schedule.instructions(None) == [
        GiveUp(trial="a", cause="failed"),
        Start(trial="b", nodes=("here",)),
    ]
    schedule.crash("b")
    assert schedule.instructions(None) == [
        GiveUp(trial="b", cause="crashed"),
        EndBranches(trial="b", branches=("c",)),
        Done(),
    ]

    schedule = schedule_of(*chain)
    assert schedule.instructions(4) == [*(GiveUp(trial=each, cause="budget") for each in "abc"), Done()]


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


def test_crashed_trial_keeps_its_priority_until_retries_are_used_up() -> None:
    schedule = schedule_of(task("long", 9), task("short", 1), task("tiny", 0.1), retries=1)
    assert starts(schedule) == [("long", "here")]

    schedule.crash("long")
    assert schedule.instructions(None) == [
        Retry(trial="long", attempt=1),
        Start(trial="short", nodes=("here",)),
    ]
    schedule.retry("long")
    schedule.finish("short")
    assert starts(schedule) == [("long", "here")]
    schedule.crash("long")
    assert schedule.instructions(None) == [
        GiveUp(trial="long", cause="crashed"),
        Start(trial="tiny", nodes=("here",)),
    ]


def test_progress_resets_the_crash_count() -> None:
    schedule = schedule_of(task("x", 9), retries=2)

    for progressed, attempt in ((False, 1), (False, 2), (True, 1), (False, 2)):
        assert starts(schedule) == [("x", "here")]
        schedule.crash("x", progressed=progressed)
        assert schedule.instructions(None) == [Retry(trial="x", attempt=attempt)]
        schedule.retry("x")


def test_failed_trial_is_not_retried() -> None:
    schedule = schedule_of(task("only", 1), retries=5)
    schedule.instructions(None)

    schedule.fail("only")

    assert schedule.instructions(None) == [GiveUp(trial="only", cause="failed"), Done()]


def test_dead_node_gets_no_trial_until_the_cluster_drops_it() -> None:
    nodes = {"a": {"cpus": 1}, "b": {"cpus": 1}}
    schedule = schedule_of(task("x", 3), task("y", 2), task("z", 1), nodes=nodes, retries=3)
    assert starts(schedule) == [("x", "a"), ("y", "b")]

    schedule.crash("x", dead_nodes=["a"])
    schedule.retry("x")
    schedule.see_nodes(nodes)  # still listed
    assert starts(schedule) == []
    schedule.left("y", dead_nodes=["b"])
    assert starts(schedule) == []
    schedule.see_nodes({"b": {"cpus": 1}})
    schedule.see_nodes({"b": {"cpus": 1}, "a": {"cpus": 1}})  # another one of that name
    assert starts(schedule) == [("x", "a")]


def test_trial_that_left_restarts_without_a_crash_counted() -> None:
    schedule = schedule_of(task("x", 3), task("y", 1))
    schedule.instructions(None)

    schedule.left("x")
    assert starts(schedule) == [("x", "here")]


def test_drained_schedule_ends_after_its_running_trials() -> None:
    schedule = schedule_of(task("x", 3), task("y", 1))
    schedule.instructions(None)

    schedule.drain()
    assert schedule.instructions(None) == []
    schedule.finish("x")
    assert schedule.instructions(None) == [Done()]
    assert [each.trial for each in schedule.waiting()] == ["y"]


def test_trial_without_budget_waits_and_is_given_up_when_no_room_can_come() -> None:
    tasks = task("large", 9, paid_flops=60), task("medium", 5, paid_flops=50), task("x", 1, paid_flops=10)
    schedule = schedule_of(*tasks, nodes={"n": {"cpus": 3}})

    assert [trial for trial, _ in starts(schedule, 100)] == ["large", "x"]
    assert schedule.instructions(30) == []
    schedule.finish("large")
    schedule.finish("x")
    assert schedule.instructions(30) == [GiveUp(trial="medium", cause="budget"), Done()]


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
    assert schedule.instructions(-20) == [Retry(trial="x", attempt=1)]
    schedule.retry("x")
    assert schedule.instructions(-20) == []
    return schedule


def test_crashed_trial_that_exceeds_the_budget_goes_on_where_it_was_if_another_leaves_room() -> None:
    schedule = crashed_beside_another()
    schedule.finish("y")  # it diverged and paid 20 of its 50
    assert [trial for trial, _ in starts(schedule, 10)] == ["x"]


def test_crashed_trial_that_exceeds_the_budget_is_given_up_if_none_leaves_room() -> None:
    schedule = crashed_beside_another()
    schedule.finish("y")
    assert schedule.instructions(-20) == [SetBack(trial="x")]
    assert schedule.promised_flops == 60
    assert schedule.instructions(40) == [GiveUp(trial="x", cause="budget"), Done()]


def test_shortest_trial_is_set_back_for_the_others_and_starts_again_if_they_leave_room() -> None:
    schedule = crashed_beside_another()
    schedule.crash("y")
    assert schedule.instructions(-30) == [Retry(trial="y", attempt=1), SetBack(trial="y")]
    assert [trial for trial, _ in starts(schedule, 20)] == ["x"]
    schedule.finish("x")  # it diverged and paid 10 of its 60
    assert [trial for trial, _ in starts(schedule, 70)] == ["y"]
    schedule.finish("y")
    assert schedule.instructions(20) == [Done()]


def test_stopped_run_sets_no_trial_back() -> None:
    schedule = crashed_beside_another()
    schedule.drain()
    schedule.finish("y")
    assert schedule.instructions(-20) == [Done()], "a later run may have a larger budget"


def test_impossible_event_raises_with_the_trials_history() -> None:
    schedule = schedule_of(task("only", 1), retries=5)
    schedule.instructions(None)
    schedule.crash("only")
    schedule.retry("only")
    schedule.instructions(None)
    schedule.finish("only")

    story = "started on here, crashed, retried, started on here, finished"
    with pytest.raises(ValueError, match=f"only is done, not running; so far: {story}"):
        schedule.finish("only")
    with pytest.raises(ValueError, match="no trial other in this schedule"):
        schedule.finish("other")


class Chance:
    """A cluster and a ledger on which events happen in a random order."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.nodes = {f"n{number}": self._node() for number in range(self.draw.randint(1, 3))}
        self.tasks = {f"t{number}": self._task(f"t{number}") for number in range(self.draw.randint(1, 9))}
        self.retries = self.draw.randint(0, 3)
        self.schedule = Schedule(self.tasks.values(), retries=self.retries)
        total = sum(each.paid_flops for each in self.tasks.values())
        self.cap = self.draw.choice([None, total, self.draw.randint(0, 2 * total)])
        self.joined = self.gone = 0
        self.held: dict[str, int] = {}
        self.running: dict[str, tuple[str, ...]] = {}
        self.delayed: list[str] = []
        self.crashes = Counter[str]()
        self.ended = Counter[str]()

    def _node(self) -> Amounts:
        return {"cpus": 4.0, "gpus": float(self.draw.randint(0, 4))}

    def _task(self, name: str) -> ScheduledTrial:
        gpus, nodes = self.draw.choice([(0, 1), (0, 2), (1, 1), (4, 1)])
        return ScheduledTrial(
            trial=name,
            predicted_s=self.draw.random(),
            resources={"cpus": 1, "gpus": gpus},
            nodes=nodes,
            paid_flops=self.draw.randint(1, 100),
        )

    @property
    def room(self) -> int | None:
        return None if self.cap is None else self.cap - self.gone - sum(self.held.values())

    def obey(self) -> bool:
        """Carry out the schedule's instructions; return whether it is done."""
        for each in self.schedule.instructions(self.room):
            match each:
                case Start():
                    assert each.trial not in self.running
                    assert not self.ended[each.trial]
                    self.running[each.trial] = each.nodes
                    self.held.setdefault(each.trial, self.tasks[each.trial].paid_flops)
                    assert self.room is None or self.room >= 0
                case Retry():
                    assert each.attempt == self.crashes[each.trial] <= self.retries
                    self.delayed.append(each.trial)
                case SetBack():
                    assert each.trial not in self.running
                    self.held.pop(each.trial)
                    self.crashes[each.trial] = 0
                    if each.trial in self.delayed:
                        self.delayed.remove(each.trial)
                case GiveUp():
                    assert each.trial not in self.running
                    waits = self.held.keys() - {each.trial}
                    assert each.cause != "budget" or not waits, "another may yet leave room"
                    self.ended[each.trial] += 1
                    self.held.pop(each.trial, None)
                case Done():
                    return True
        for node, has in self.nodes.items():
            here = [self.tasks[trial].resources for trial, nodes in self.running.items() if node in nodes]
            assert all(sum(needs[name] for needs in here) <= has[name] for name in has)
        return False

    def happen(self) -> None:
        """Make one random event happen."""
        if self.delayed and (not self.running or self.draw.random() < 0.5):
            trial = self.delayed.pop(self.draw.randrange(len(self.delayed)))
            self.schedule.retry(trial)
            return
        if not self.running:  # what waits fits nowhere: a larger node joins
            self.joined += 1
            self.nodes[f"m{self.joined}"] = {"cpus": 8.0, "gpus": 4.0}
            self.schedule.see_nodes(self.nodes)
            return
        trial = self.draw.choice(sorted(self.running))
        nodes = self.running.pop(trial)
        what = self.draw.choice(["finish", "fail", "crash", "die", "leave"])
        if what == "finish":
            self.schedule.finish(trial)
            self.ended[trial] += 1
            self.gone += self.draw.randint(0, self.held.pop(trial))
        elif what == "fail":
            self.schedule.fail(trial)
        elif what == "leave":
            self.schedule.left(trial)
        else:
            self.crashes[trial] += 1
            self.gone += self.draw.randint(0, 30)  # work that the crash lost
            dead = nodes[:1] if what == "die" else ()
            self.schedule.crash(trial, dead_nodes=dead)
            for node in dead:
                self.nodes.pop(node, None)
                if self.draw.random() < 0.5:
                    self.schedule.see_nodes(self.nodes)


@pytest.mark.slow
def test_random_events_end_every_trial_once_within_the_budget() -> None:
    for seed in range(4000):
        chance = Chance(seed)
        chance.schedule.see_nodes(chance.nodes)
        for _ in range(1000):
            if chance.obey():
                break
            chance.happen()
        else:
            pytest.fail(f"seed {seed} does not end")
        assert chance.ended == dict.fromkeys(chance.tasks, 1), seed
        assert not chance.running, seed
        assert chance.schedule.count(State.DONE) + chance.schedule.count(State.GIVEN_UP) == len(chance.tasks)
