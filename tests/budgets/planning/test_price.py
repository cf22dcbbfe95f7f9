"""Prices are ranges of time and money, with their basis."""

import itertools
import json
import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.cost.architecture import load_architecture
from budgets.cost.flops import sample_cost
from budgets.cost.strategy import find_strategy
from budgets.declaration.recipe import Recipe
from budgets.declaration.rules import TrialResources
from budgets.declaration.sections import Cluster, GridBlock, Resources, Training
from budgets.devices import find_device, measured_samples_per_s
from budgets.planning.plan import Charge, Plan
from budgets.planning.price import (
    Range,
    device_hours,
    held_devices,
    kept_speed,
    makespan,
    price_plan,
    wall_s,
)
from tests.budgets.plans import declare, plan_of
from tests.root import ROOT


def big_plan(charges: tuple[Charge, ...] = (), *, gpus: int = 1) -> Plan:
    models = ("ViT-B-32", "ViT-B-16")
    block = GridBlock(
        architectures=models, strategies=("clip", "slip"), regime="equal-samples", samples=(13_000_000_000,)
    )
    training = Training(lr_peak=dict.fromkeys(models, 1e-3), batch_size=32_000)
    declaration = declare(block, levels=(), training=training, resources=Resources(gpus=gpus))
    return plan_of(declaration, pairs=2_000_000_000, charges=charges)


def test_every_device_and_measurement_has_a_source() -> None:
    table = json.loads((ROOT / "budgets" / "devices.json").read_text(encoding="utf-8"))
    assert all(entry["source"] for entry in (*table["devices"].values(), table["utilisation"]))
    assert find_device("H100").peak_flops == 989 * 10**12
    assert find_device("h100") is find_device("h100-sxm")


def test_every_measured_throughput_lies_within_the_peak() -> None:
    for (name, architecture, how), (low, high) in measured_samples_per_s().items():
        cost = sample_cost(load_architecture(architecture), find_strategy(how), batch_size=32_768).train_flops
        shares = [speed * cost / find_device(name).peak_flops for speed in (low, high)]

        assert 0.05 < shares[0] <= shares[1] < 0.2  # what the note in devices.json says of them


def test_time_is_flops_over_the_peak_at_a_range_of_utilisation() -> None:
    trial = big_plan().trials[0]
    cluster = Cluster(device="h100-sxm", utilisation=(0.2, 0.5))
    hours = device_hours(trial, cluster)
    at_peak = trial.train_flops / 989e12 / 3600

    assert (hours.low, hours.high) == pytest.approx((at_peak / 0.5, at_peak / 0.2), rel=1e-4)
    # Two declared cores decode 160 to 550 pictures a second each, fewer than the GPU trains on.
    hours = device_hours(replace(trial, resources=TrialResources(gpus=1, cpus=2)), cluster)
    assert (hours.low, hours.high) == pytest.approx((13e9 / 1100 / 3600, 13e9 / 320 / 3600), rel=1e-4)


def test_start_up_and_evaluation_are_part_of_the_time() -> None:
    trial = replace(
        big_plan(gpus=8).trials[0],
        samples_seen=0,
        evaluation_flops=8 * 989 * 10**12,
        recipe=Recipe(compile=True),
    )
    span = wall_s(trial, Cluster(device="h100-sxm", utilisation=(0.5,)))

    # A process, a group of GPUs, compilation; evaluation takes two seconds on eight GPUs at half the peak.
    assert span == Range(low=20 + 10 + 120 + 2, high=20 + 10 + 120 + 2)


def test_measured_throughput_is_used_with_its_spread() -> None:
    # 13 B samples of ViT-B-32 at 411.9 and at 850.3 samples/s of an A100.
    hours = device_hours(big_plan().trials[0], Cluster(device="a100-sxm-40gb"))

    assert hours.low == pytest.approx(13e9 / 850.3 / 3600, rel=1e-4)
    assert hours.high == pytest.approx(13e9 / 411.9 / 3600, rel=1e-4)


def test_users_measurement_takes_precedence_over_the_table() -> None:
    cluster = Cluster(device="a100-sxm-40gb")
    speeds = {("ViT-B-32", "clip", 1): 1000.0}
    hours = device_hours(big_plan().trials[0], cluster, speeds)

    assert hours.low == hours.high == pytest.approx(13e9 / 1000 / 3600, rel=1e-4)
    assert price_plan(big_plan(), cluster, own_speeds={("ViT-B-32", "slip", 1): 1.0}).measured == 3


def test_scaling_is_measured_up_to_the_widest_run_and_assumed_beyond() -> None:
    cluster = Cluster(device="h100-sxm", count=64, scaling=0.9)
    pair = ("ViT-B-32", "clip")
    speeds = {(*pair, 1): 1000.0, (*pair, 2): 1900.0, (*pair, 4): 3200.0}

    assert [kept_speed(pair, gpus, cluster, speeds) for gpus in (1, 2, 4, 8, 16)] == pytest.approx(
        [1, 0.95, 0.8, 0.72, 0.648]
    )
    assert kept_speed(pair, 6, cluster, speeds) == pytest.approx(0.8 * 0.9 ** math.log2(6 / 4))
    assert kept_speed(("RN50", "clip"), 4, cluster, speeds) == pytest.approx(0.81)
    four = big_plan(gpus=4).trials[0]
    assert device_hours(four, cluster, speeds).high == pytest.approx(13e9 / 800 / 3600, rel=1e-4)


def test_price_includes_evaluation_and_charges_and_counts_measured_trials() -> None:
    charge = Charge(what="scorer", flops=11 * 10**21)
    cluster = Cluster(device="a100-sxm-40gb", count=256, price_per_hour=1.5)
    cost = price_plan(big_plan((charge,), gpus=64), cluster)
    without = price_plan(big_plan(gpus=64), cluster)

    assert (cost.measured, cost.assumed) == (2, 2)
    assert cost.device_hours.high - without.device_hours.high == pytest.approx(1.1e22 / 312e12 / 3600 / 0.1)
    assert cost.money == Range(low=1.5 * cost.device_hours.low, high=1.5 * cost.device_hours.high)
    # Four trials side by side: the longest decides.
    longest = max(device_hours(trial, cluster).high for trial in big_plan(gpus=64).trials)
    assert without.makespan_hours.high == pytest.approx(longest / 64)


def test_trial_on_all_devices_of_the_cluster_runs_alone() -> None:
    cluster = Cluster(device="h100-sxm", count=64)
    cost = price_plan(big_plan(gpus=64), cluster)

    assert cost.makespan_hours.low == pytest.approx(cost.device_hours.low / 64)


@pytest.mark.parametrize(
    ("gpus", "cpus", "nodes", "held"),
    [(1, 12, 1, 1), (5, 60, 1, 8), (3, 3, 1, 4), (1, 48, 1, 4), (16, 16, 2, 16), (2, 32, 1, Fraction(8, 3))],
)
def test_trials_share_nodes_only_where_their_devices_and_cores_have_room(
    gpus: int, cpus: int, nodes: int, held: float
) -> None:
    cluster = Cluster(device="h100-sxm", count=16, node_cpus=96)
    resources = TrialResources(gpus=gpus, cpus=cpus, nodes=nodes)
    assert held_devices([resources] * 3, cluster) == [held] * 3
    # A last node that is not full; trials of other kinds fill gaps.
    assert held_devices([TrialResources(gpus=5)], replace(cluster, count=14)) == [7]
    assert held_devices([TrialResources(gpus=5), TrialResources(gpus=1)], cluster) == [5, 1]


def test_longest_first_needs_eleven_in_grahams_example_with_optimum_nine() -> None:
    # Longest first is within 4/3 - 1/(3 slots) of the best: 5 5 4 4 3 3 3 on three slots (Graham 1969).
    assert makespan([5, 5, 4, 4, 3, 3, 3], [1] * 7, 3) == 11
    assert makespan([], [], 3) == 0


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(1, 3))
def test_longest_first_is_within_four_thirds_of_the_best(durations: list[int], slots: int) -> None:
    best = min(
        max(sum(d for d, s in zip(durations, choice, strict=True) if s == slot) for slot in range(slots))
        for choice in itertools.product(range(slots), repeat=len(durations))
    )

    assert best <= makespan(durations, [1] * len(durations), slots) <= best * 4 / 3


def test_higher_utilisation_never_costs_more() -> None:
    cluster = Cluster(device="h100-sxm", count=64, utilisation=(0.2, 0.3))
    dear = price_plan(big_plan(gpus=8), cluster)
    cheap = price_plan(big_plan(gpus=8), replace(cluster, utilisation=(0.3, 0.4)))

    assert cheap.device_hours.high == pytest.approx(dear.device_hours.low)
