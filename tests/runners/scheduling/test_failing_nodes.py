"""Nodes on which trials fail are left out, trials start elsewhere, and nodes are kept for those that wait."""

import random
from typing import Literal

import pytest

from benchmarks.simulated_schedule import Fate, mixed_widths, on_gpus, share_of_bound, simulate
from runners.scheduling.instructions import GiveUp, Retry, ScheduledTrial, Start
from runners.scheduling.schedule import Schedule

HOUR = 3600.0


@pytest.mark.parametrize("after_s", [20.0, 60.0])
@pytest.mark.parametrize(("how", "progressed"), [("crashed", False), ("crashed", True), ("failed", False)])
@pytest.mark.parametrize("gpus", [1, 8])
def test_a_node_that_fails_fast_takes_those_that_ran_there_and_one_more_at_each_try(
    after_s: float,
    how: Literal["crashed", "failed"],
    progressed: bool,  # noqa: FBT001
    gpus: int,
) -> None:
    tasks = mixed_widths(0, 100, gpus, unit_s=450)

    run = simulate(
        tasks, 8, lambda _trial, on, _start: (after_s, how) if "node0" in on else None, progressed=progressed
    )

    assert not run.given_up
    assert {each.node for each in run.left_out} == {"node0"}
    at_once = 8 // gpus
    assert len(run.retried) <= max(at_once, 2) + len(run.left_out)
    waits = [round(each.wait_s / 60) for each in run.left_out]
    assert waits[:3] == [pytest.approx(minutes, abs=3) for minutes in (10, 40, 160)][: len(waits)]


def test_no_node_is_left_out_for_trials_that_fail_everywhere_and_each_costs_two_starts() -> None:
    tasks = mixed_widths(0, 100, 1, 2, 4, 8, unit_s=450)
    run = simulate(tasks, 8, lambda *_: (60.0, "failed"))
    assert (len(run.given_up), run.left_out, set(run.retried.values())) == (100, [], {1})

    bad = {task.trial for task in tasks[::3]}
    run = simulate(tasks, 8, lambda trial, *_: (15.0, "failed") if trial in bad else None)
    assert (set(run.given_up), set(run.retried), set(run.retried.values())) == (bad, bad, {1})


def test_a_node_that_lets_trials_over_several_nodes_crash_is_found() -> None:
    tasks = [on_gpus(f"wide{number:02}", HOUR, 16) for number in range(40)]
    run = simulate(tasks, 8, lambda _trial, on, _start: (60.0, "crashed") if "node3" in on else None)
    assert not run.given_up
    assert {each.node for each in run.left_out} == {"node3"}
    assert sum(run.retried.values()) <= 8


def test_a_node_that_was_left_out_is_used_again_once_a_trial_gets_on_there() -> None:
    there: list[str] = []

    def fate(trial: str, on: tuple[str, ...], _start: int) -> Fate | None:
        there.extend([trial] if "node0" in on else [])
        return (20.0, "crashed") if "node0" in on and len(there) <= 3 else None

    run = simulate([on_gpus(f"t{number:02}", HOUR / 2, 8) for number in range(40)], 3, fate)

    assert [(each.node, each.failures) for each in run.left_out] == [("node0", 2), ("node0", 3), ("node0", 0)]
    assert len(there) > 9
    assert set(run.retried.values()) == {1}


def test_a_failed_trial_starts_on_another_node_or_waits_for_it_and_is_then_given_up() -> None:
    tasks = on_gpus("x", 9, 8), on_gpus("y", 99, 8), on_gpus("z", 1, 8)
    schedule = Schedule(tasks, retries=0)
    schedule.see_nodes({name: {"cpus": 8, "gpus": 8} for name in "ab"})
    assert schedule.instructions(None) == [Start(trial="y", nodes=("a",)), Start(trial="x", nodes=("b",))]

    schedule.fail("x")
    assert schedule.instructions(None) == [Retry(trial="x"), Start(trial="z", nodes=("b",))]
    schedule.finish("z")
    assert schedule.instructions(None) == [], "it was tried there"
    schedule.finish("y")
    assert schedule.instructions(None) == [Start(trial="x", nodes=("a",))]
    schedule.crash("x")
    assert schedule.instructions(None) == [GiveUp(trial="x", cause="crashed")]


def test_a_failed_trial_is_given_up_at_once_if_no_other_node_could_hold_it_or_its_gpu_is_full() -> None:
    nodes = {"large": {"cpus": 8, "gpus": 8}, "small": {"cpus": 4, "gpus": 4}}
    for gpus, full in ((8, False), (4, True)):
        schedule = Schedule([on_gpus("x", 9, gpus)], retries=3)
        schedule.see_nodes(nodes)
        schedule.instructions(None)
        schedule.fail("x", full=full)
        assert schedule.instructions(None) == [GiveUp(trial="x", cause="full" if full else "failed")]


@pytest.mark.parametrize("progressed", [True, False])
def test_a_wide_trial_that_crashes_starts_again_beside_narrow_ones_within_the_lost_time(
    progressed: bool,  # noqa: FBT001
) -> None:
    tasks = [*mixed_widths(1, 120, 1, 2, 4, 8, unit_s=2160), on_gpus("wide", 6 * HOUR, 32)]

    run = simulate(
        tasks, 8,
        lambda trial, _on, start: (0.8 * HOUR, "crashed") if (trial, start) == ("wide", 1) else None,
        progressed=progressed,
    )  # fmt: skip

    assert [time_s / HOUR for time_s, _ in run.starts["wide"]] == pytest.approx([0, 0.8], abs=0.01)
    assert run.makespan_s <= 1.05 * (simulate(tasks, 8).makespan_s + 0.8 * HOUR)


def test_nodes_are_kept_for_a_wide_trial_once_the_others_take_hardly_longer() -> None:
    narrow = [on_gpus(f"n{number}", hours * HOUR, 8) for number, hours in enumerate((6, 5))]
    schedule = Schedule(narrow, retries=0)
    schedule.see_nodes({name: {"cpus": 8, "gpus": 8} for name in "ab"})
    assert len(schedule.instructions(None)) == 2
    schedule.add(
        [on_gpus("wide", 12 * HOUR, 16), on_gpus("short", HOUR / 2, 8), on_gpus("long", 2 * HOUR, 8)]
    )
    schedule.now_s = 5 * HOUR
    schedule.finish("n1")
    assert schedule.instructions(None) == [Start(trial="short", nodes=("b",))], "it ends before n0 does"
    schedule.now_s = 6 * HOUR
    schedule.finish("n0")
    schedule.finish("short")
    assert schedule.instructions(None) == [Start(trial="wide", nodes=("a", "b"))]


def test_trials_of_mixed_widths_keep_nodes_busy() -> None:
    assert share_of_bound(mixed_widths(0, 200, 1, 2, 4, 8, 16), 4) > 0.99


def test_a_trial_that_fits_only_on_a_failing_node_stays_there() -> None:
    licensed = ScheduledTrial(trial="x", predicted_s=9, resources={"cpus": 1, "licence": 1})
    schedule = Schedule([licensed, on_gpus("y", 9, 8)], retries=3)
    schedule.see_nodes({"a": {"cpus": 9, "gpus": 8}, "b": {"cpus": 8, "licence": 1}})
    for seconds in range(0, 400, 100):
        schedule.now_s = seconds
        assert Start(trial="x", nodes=("b",)) in schedule.instructions(None)
        schedule.now_s = seconds + 50
        schedule.crash("x")
    assert schedule.instructions(None) == [GiveUp(trial="x", cause="crashed")]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["crashed", "failed"])
@pytest.mark.parametrize("after_s", [2.0, 20.0, 60.0])
@pytest.mark.parametrize(
    ("nodes", "bad"), [(4, 1), (4, 2), (4, 3), (8, 2), (8, 3), (16, 4), (64, 3), (64, 16)]
)
def test_sound_trials_survive_any_number_of_bad_nodes_short_of_all(
    nodes: int, bad: int, after_s: float, how: Literal["crashed", "failed"]
) -> None:
    tasks = [on_gpus(f"t{number:03}", HOUR, 8) for number in range(12 * nodes)]
    failing = {f"node{number}" for number in range(bad)}

    run = simulate(tasks, nodes, lambda _trial, on, _start: (after_s, how) if failing & {*on} else None)

    assert not run.given_up
    assert {each.node for each in run.left_out} <= failing
    busy_s = sum(task.predicted_s for task in tasks) / (nodes - bad)
    assert run.makespan_s < 1.05 * busy_s


@pytest.mark.slow
# A trial's own error is retried once: where half of the starts fail, two in a row are a chance in sixteen.
@pytest.mark.parametrize(
    ("how", "share"),
    [(how, share) for how in ("crashed", "failed") for share in (0.05, 0.1)] + [("crashed", 0.5)],
)
@pytest.mark.parametrize(("nodes", "flaky"), [(4, 2), (8, 3), (32, 8)])
def test_nodes_that_fail_some_starts_cost_hardly_a_sound_trial(
    nodes: int, flaky: int, share: float, how: Literal["crashed", "failed"]
) -> None:
    tasks = [on_gpus(f"t{number:03}", HOUR, 8) for number in range(12 * nodes)]
    draw, failing = random.Random(0), {f"node{number}" for number in range(flaky)}

    run = simulate(
        tasks, nodes,
        lambda _trial, on, _start: (20.0, how) if failing & {*on} and draw.random() < share else None,
    )  # fmt: skip

    assert len(run.given_up) <= max(0.01 * len(tasks), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "widths"),
    [(how, widths) for how in ("crashed", "failed") for widths in ((8,), (1, 2, 4, 8), (1, 2, 4, 8, 16))]
    + [
        ("crashed", (8, 16))
    ],  # an error of wide trials on both pairs of four nodes, half of them bad, tells nothing
)
@pytest.mark.parametrize(("nodes", "bad"), [(4, 2), (8, 3), (16, 4)])
def test_trials_at_fault_are_found_among_bad_nodes_and_only_they_are_given_up(
    nodes: int, bad: int, widths: tuple[int, ...], how: Literal["crashed", "failed"]
) -> None:
    tasks = mixed_widths(0, 25 * nodes, *widths, unit_s=450)
    faulty = {task.trial for task in random.Random(1).sample(tasks, nodes)}
    failing = {f"node{number}" for number in range(bad)}

    def fate(trial: str, on: tuple[str, ...], _start: int) -> Fate | None:
        return (20.0, how) if trial in faulty or failing & {*on} else None

    run = simulate(tasks, nodes, fate)

    assert faulty <= {*run.given_up}
    assert len(run.given_up) - len(faulty) <= 0.01 * len(tasks)
