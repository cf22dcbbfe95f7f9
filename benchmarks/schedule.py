"""Use of slots and overhead per trial of the scheduler, with Ray on a simulated cluster.

Without Ray, on a simulated clock (alone with ``--simulated``): 200 trials of 1 to 16 GPUs, 30× apart in
length, on 4 and on 8 nodes of 8 GPUs. Then Ray on a simulated cluster of two nodes of 4 GPUs: 100 trials
that sleep, 30× apart, a quarter of them on 4 GPUs, run in our order and first come, first served; then trials
that do nothing; then a call by a rank on each node, and the same with Ray Train. The last lines are name,
value, target, and pass or fail; the exit code is 1 when one fails. Seconds are wall time: run it on a quiet
machine.
``slots_busy`` and ``_over_ours`` must reach their target; the others must not exceed it.
"""

import argparse
import logging
import math
import os
import random
import resource
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ |= {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # all on loopback
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}

import ray
from ray.cluster_utils import Cluster as SimulatedCluster

from benchmarks.measured import Result, at_least, at_most, verdict
from benchmarks.simulated_schedule import mixed_widths, share_of_bound
from runners.scheduling.backend import Backend, Job
from runners.scheduling.cluster import LiveCluster
from runners.scheduling.instructions import ScheduledTrial, Start
from runners.scheduling.ray_backend.core import RayBackend
from runners.scheduling.schedule import Schedule

NODES, GPUS = 2, 4
SLEEPS, SPREAD, SEED = 100, 30.0, 0
LOWER_BOUND_S = 60.0
DO_NOTHING = partial(time.sleep, 0)
MIXED, MIXED_DRAWS = 200, 6


def sleeps() -> list[ScheduledTrial]:
    """Return the trials, scaled so that all slots together need `LOWER_BOUND_S`."""
    draw = random.Random(SEED)  # noqa: S311 - lengths of sleeps
    lengths = [math.exp(draw.random() * math.log(SPREAD)) for _ in range(SLEEPS)]
    widths = [GPUS if number % 4 == 0 else 1 for number in range(SLEEPS)]
    draw.shuffle(widths)
    unit = LOWER_BOUND_S * NODES * GPUS / sum(s * w for s, w in zip(lengths, widths, strict=True))
    return [
        ScheduledTrial(trial=f"sleep{number:03}", predicted_s=s * unit, resources={"cpus": 1, "gpus": w})
        for number, (s, w) in enumerate(zip(lengths, widths, strict=True))
    ]


def run(backend: Backend, tasks: list[ScheduledTrial]) -> float:
    """Run tasks in the schedule's order, as a study does, and return the seconds taken."""
    began = time.perf_counter()
    schedule = Schedule(tasks, retries=0)
    cluster = LiveCluster(backend, schedule, patience_s=0)
    while True:
        cluster.look()
        for instruction in schedule.instructions(None):
            match instruction:
                case Start(trial=trial, nodes=nodes):
                    task = schedule.task(trial)
                    call = partial(time.sleep, task.predicted_s) if task.predicted_s else DO_NOTHING
                    backend.start(Job(trial=trial, run=call, nodes=nodes, resources=task.resources))
        if schedule.over:
            return time.perf_counter() - began
        for ended in backend.wait(0.5):
            assert ended.how == "finished", ended.reason
            schedule.finish(ended.trial)


def run_first_come(backend: Backend, tasks: list[ScheduledTrial]) -> float:
    """Run tasks in their order, each after the one before it has started, and return the seconds taken."""
    began = time.perf_counter()
    free = {node: has.get("gpus", 0) for node, has in backend.nodes().items()}
    running: dict[str, tuple[str, float]] = {}
    waiting = list(reversed(tasks))
    while waiting or running:
        while waiting:
            task = waiting[-1]
            gpus = task.resources["gpus"]
            room = [node for node in free if free[node] >= gpus]
            if not room:
                break
            node = min(room, key=lambda node: free[node])
            free[node] -= gpus
            running[waiting.pop().trial] = node, gpus
            call = partial(time.sleep, task.predicted_s)
            backend.start(Job(trial=task.trial, run=call, nodes=(node,), resources=task.resources))
        for ended in backend.wait(0.5):
            node, gpus = running.pop(ended.trial)
            free[node] += gpus
    return time.perf_counter() - began


def nothing(count: int, name: str) -> list[ScheduledTrial]:
    """Return trials that do nothing."""
    needs = {"cpus": 1, "gpus": 1}
    return [
        ScheduledTrial(trial=f"{name}{number:05}", predicted_s=0, resources=needs, paid_flops=1)
        for number in range(count)
    ]


def in_warm_worker(count: int) -> float:
    """Return the seconds per plain Ray task, run one after the other in an existing worker."""
    task = ray.remote(num_cpus=0)(lambda: None)
    ray.get(task.remote())
    began = time.perf_counter()
    for _ in range(count):
        ray.get(task.remote())
    return (time.perf_counter() - began) / count


def in_fresh_process(backend: Backend, count: int) -> float:
    """Return the seconds per trial that does nothing, run one after the other, each in its own process."""
    node = next(name for name, has in backend.nodes().items() if has.get("gpus"))  # the head has none
    began = time.perf_counter()
    for number in range(count):
        backend.start(Job(trial=str(number), run=DO_NOTHING, nodes=(node,), resources={"cpus": 1, "gpus": 1}))
        while not (ended := backend.wait(5)):
            pass
        assert ended[0].how == "finished", ended[0].reason
    return (time.perf_counter() - began) / count


def memory_mib() -> float:
    """Return the driver's resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000, help="trials that do nothing (10,000)")
    parser.add_argument("--simulated", action="store_true", help="only what needs no Ray")
    options = parser.parse_args()
    mixed = []
    for nodes in (4, 8):
        draws = (mixed_widths(seed, MIXED, 1, 2, 4, 8, 16) for seed in range(MIXED_DRAWS))
        share = min(share_of_bound(tasks, nodes) for tasks in draws)
        mixed.append(at_least(f"slots_busy_mixed_widths_{nodes}_nodes", share, 0.97))
    return verdict(mixed if options.simulated else mixed + over_ray(options.trials))


def over_ray(trials: int) -> list[Result]:
    """Measure on a simulated cluster of Ray."""
    simulated = SimulatedCluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 80_000_000, "include_dashboard": False},
    )
    for _ in range(NODES):
        simulated.add_node(num_cpus=8, num_gpus=GPUS, object_store_memory=80_000_000)
    simulated.wait_for_nodes()
    # Without torch: the sleeps do not need it, and importing it for every node would distort the times.
    with RayBackend(simulated.address, modules=()) as backend:
        cold_s = run(backend, nothing(NODES * GPUS, "cold"))
        print(f"the first trial of each of {NODES * GPUS} slots: {cold_s:.1f} s until all have ended")
        tasks = sleeps()
        ours, theirs = run(backend, tasks), run_first_come(backend, tasks)
        print(f"{SLEEPS} sleeps on {NODES * GPUS} slots, at least {LOWER_BOUND_S:.0f} s: "
              f"{ours:.1f} s in our order, {theirs:.1f} s first come, first served")  # fmt: skip
        warm, fresh = in_warm_worker(200), in_fresh_process(backend, 100)
        print(
            f"a trial that does nothing: {warm * 1e3:.1f} ms in a warm worker, "
            f"{fresh * 1e3:.1f} ms in a fresh process"
        )
        before, cpu = memory_mib(), time.process_time()
        wall = run(backend, nothing(trials, "nothing"))
        cpu, grown = time.process_time() - cpu, memory_mib() - before
        print(f"{trials:,} of them: {wall:.0f} s; the driver takes {cpu:.1f} s of processor time and "
              f"{grown:.0f} MiB more memory")  # fmt: skip
    (cold, call), (train_cold, train) = over_nodes(simulated.address)
    print(f"call by a rank on each node: {call:.1f} s, the first {cold:.1f} s; with Ray Train {train:.1f} s, "
          f"the first {train_cold:.1f} s")  # fmt: skip
    simulated.shutdown()
    return [
        at_least("slots_busy_ours", LOWER_BOUND_S / ours, 0.97),
        at_least("slots_busy_ours_over_first_come", theirs / ours, 1.0),
        at_most("trial_fresh_process_ms", fresh * 1e3, 100.0),
        at_most("driver_cpu_ms_a_trial", cpu / trials * 1e3, 5.0),
        at_most("driver_kib_a_trial", grown * 1024 / trials, 20.0),
        at_least("call_over_nodes_ray_train_seconds_over_ours", train / call, 5.0),
    ]


def over_nodes(address: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the seconds of a first and a second call by a rank on each node, ours and Ray Train's."""
    # Here, because both load torch, whose memory is not the driver's.
    from ray.train import RunConfig, ScalingConfig  # noqa: PLC0415
    from ray.train.torch import TorchTrainer  # noqa: PLC0415

    from runners.training.ranks import rank_count  # noqa: PLC0415

    logging.getLogger("ray.train").setLevel(logging.CRITICAL)

    def ours() -> None:
        nodes = tuple(backend.nodes())
        backend.start(Job(trial="ranks", run=rank_count, nodes=nodes, resources={"cpus": 1}))
        while not (ended := backend.wait(1)):
            pass
        assert ended[0].value == NODES, ended

    def with_train() -> None:
        workers = ScalingConfig(num_workers=NODES, placement_strategy="STRICT_SPREAD")
        with tempfile.TemporaryDirectory() as folder:
            TorchTrainer(
                lambda: None, scaling_config=workers, run_config=RunConfig(storage_path=folder)
            ).fit()

    with RayBackend(address) as backend:
        first, second, third, fourth = (seconds(do) for do in (ours, ours, with_train, with_train))
    return (first, second), (third, fourth)


def seconds(do: Callable[[], None]) -> float:
    """Return the wall time of a call."""
    began = time.monotonic()
    do()
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
