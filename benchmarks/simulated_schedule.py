"""The schedule on a simulated clock: trials of 1 to 32 GPUs on nodes of 8, some of which fail."""

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from runners.scheduling.instructions import GiveUp, LeaveOut, Retry, ScheduledTrial, Start
from runners.scheduling.schedule import Schedule

NODE_GPUS = 8
SPREAD = 30.0  # between the lengths of trials
_LOOK_S, _RETRY_LOOK_S = 60.0, 1.0

Fate = tuple[float, Literal["finished", "crashed", "failed"]]
"""Seconds until a trial ends, and how."""


@dataclass
class Run:
    """What happened in a simulated run."""

    makespan_s: float = 0.0
    retried: Counter[str] = field(default_factory=Counter)
    given_up: list[str] = field(default_factory=list)
    left_out: list[LeaveOut] = field(default_factory=list)
    starts: dict[str, list[tuple[float, tuple[str, ...]]]] = field(default_factory=dict)


def simulate(
    tasks: Iterable[ScheduledTrial],
    nodes: int,
    fate: Callable[[str, tuple[str, ...], int], Fate | None] = lambda _trial, _nodes, _start: None,
    *,
    progressed: bool = False,
) -> Run:
    """Run trials for as long as predicted, or to an earlier fate by trial, nodes and number of the start."""
    schedule, run = Schedule(tasks, retries=3, backoff_s=5.0), Run()
    schedule.see_nodes({f"node{number}": {"cpus": 64, "gpus": NODE_GPUS} for number in range(nodes)})
    end: dict[str, Callable[[str], None]] = {
        "finished": schedule.finish,
        "crashed": lambda trial: schedule.crash(trial, kept=next(more) if progressed else 0),
        "failed": schedule.fail,
    }
    more = count(1)
    ends: list[tuple[float, str, str]] = []
    while True:
        for instruction in schedule.instructions(None):
            match instruction:
                case Start(trial=trial, nodes=on):
                    run.starts.setdefault(trial, []).append((schedule.now_s, on))
                    finished: Fate = schedule.task(trial).predicted_s, "finished"
                    seconds, how = min(finished, fate(trial, on, len(run.starts[trial])) or finished)
                    heapq.heappush(ends, (schedule.now_s + seconds, trial, how))
                case Retry(trial=trial):
                    run.retried[trial] += 1
                case GiveUp(trial=trial):
                    run.given_up.append(trial)
                case LeaveOut():
                    run.left_out.append(instruction)
        if schedule.over:
            return run
        look_s = schedule.now_s + (_RETRY_LOOK_S if schedule.delayed() else _LOOK_S)
        schedule.now_s = min([look_s, *(end[0] for end in ends[:1])])
        while ends and ends[0][0] <= schedule.now_s:
            _, trial, ended = heapq.heappop(ends)
            if ended == "finished":
                run.makespan_s = schedule.now_s
            end[ended](trial)


def on_gpus(name: str, seconds: float, gpus: int) -> ScheduledTrial:
    """Return a trial, over several nodes if it needs more than one has."""
    nodes = -(-gpus // NODE_GPUS)
    needs = dict.fromkeys(("cpus", "gpus"), gpus / nodes)
    return ScheduledTrial(trial=name, predicted_s=seconds, resources=needs, nodes=nodes)


def mixed_widths(seed: int, count: int, *gpus: int, unit_s: float = 1.0) -> list[ScheduledTrial]:
    """Draw trials of some widths, up to `SPREAD` times as long as ``unit_s``."""
    draw = random.Random(seed)  # noqa: S311 - widths and lengths
    widths = [(draw.choice(gpus), math.exp(draw.random() * math.log(SPREAD))) for _ in range(count)]
    return [on_gpus(f"mixed{number:03}", s * unit_s, wide) for number, (wide, s) in enumerate(widths)]


def share_of_bound(tasks: list[ScheduledTrial], nodes: int) -> float:
    """Return the lower bound of the makespan (all GPUs busy, or the longest trial) over that of our order."""
    busy = sum(task.slot_s for task in tasks) / (nodes * NODE_GPUS)
    return max(busy, *(task.predicted_s for task in tasks)) / simulate(tasks, nodes).makespan_s
