"""Random events end every trial of a schedule once, within the budget."""

import random
from collections import Counter

import pytest

from runners.scheduling.instructions import GiveUp, Retry, ScheduledTrial, SetBack, Start
from runners.scheduling.nodes import Amounts
from runners.scheduling.schedule import Schedule
from runners.scheduling.trial_record import State


class Chance:
    """A cluster and a budget on which events happen in a random order."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.nodes = {f"n{number}": self._node() for number in range(self.draw.randint(1, 3))}
        self.tasks = {f"t{number}": self._task(f"t{number}") for number in range(self.draw.randint(1, 9))}
        self.retries = self.draw.randint(0, 3)
        self.schedule = Schedule(self.tasks.values(), retries=self.retries, backoff_s=5)
        total = sum(each.paid_flops for each in self.tasks.values())
        self.cap = self.draw.choice([None, total, self.draw.randint(0, 2 * total)])
        self.joined = self.gone = 0
        self.held: dict[str, int] = {}
        self.running: dict[str, tuple[str, ...]] = {}
        self.ends = Counter[str]()  # early ones
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

    def obey(self) -> None:
        """Carry out the schedule's instructions."""
        for each in self.schedule.instructions(self.room):
            match each:
                case Start():
                    assert each.trial not in self.running
                    assert not self.ended[each.trial]
                    self.running[each.trial] = each.nodes
                    self.held.setdefault(each.trial, self.tasks[each.trial].paid_flops)
                    assert self.room is None or self.room >= 0
                case Retry():
                    assert self.ends[each.trial] <= self.retries + 1 + self.joined, "one more elsewhere"
                case SetBack():
                    assert each.trial not in self.running
                    self.held.pop(each.trial)
                    self.ends[each.trial] = 0
                case GiveUp():
                    assert each.trial not in self.running
                    waits = self.held.keys() - {each.trial}
                    assert each.cause != "budget" or not waits, "another may yet leave room"
                    self.ended[each.trial] += 1
                    self.held.pop(each.trial, None)
        for node, has in self.nodes.items():
            here = [self.tasks[trial].resources for trial, nodes in self.running.items() if node in nodes]
            assert all(sum(needs[name] for needs in here) <= has[name] for name in has)

    def happen(self) -> None:
        """Make one random event happen."""
        self.schedule.now_s += self.draw.choice([0, 1, 30, 1000])
        if self.schedule.delayed() and (not self.running or self.draw.random() < 0.5):
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
            self.ends[trial] += 1
            self.schedule.fail(trial)
        elif what == "leave":
            self.schedule.left(trial)
        else:
            self.ends[trial] += 1
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
            chance.obey()
            if chance.schedule.over:
                break
            chance.happen()
        else:
            pytest.fail(f"seed {seed} does not end")
        assert chance.ended == dict.fromkeys(chance.tasks, 1), seed
        assert not chance.running, seed
        assert chance.schedule.count(State.DONE) + chance.schedule.count(State.GIVEN_UP) == len(chance.tasks)
