"""Choice of GPUs, parts and recomputation, with and without rules: the arithmetic by hand."""

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.cost.architecture import load_architecture
from budgets.cost.memory import memory_bytes
from budgets.cost.strategy import find_strategy
from budgets.declaration.declaration import Declaration
from budgets.declaration.recipe import Recipe
from budgets.declaration.rules import ResourceRule, TrainingRule, TrialResources
from budgets.declaration.sections import Cluster, GridBlock, Limits, Resources, Training
from budgets.devices import find_device
from budgets.planning.planned_trial import Trial
from budgets.planning.price import device_hours, makespan, price_plan, start_s, training_s, wall_s
from budgets.planning.resources import (
    MEMORY_SHARE,
    Kind,
    Option,
    choose_resources,
    estimated_memory,
    memory_limit,
    resource_options,
    widths,
)
from runners.scheduling.nodes import cores_per_gpu
from tests.budgets.plans import declare, plan_of

NAMES = ("ViT-B-32", "ViT-L-14", "RN50")
CLUSTER = Cluster(device="h100-sxm", count=64, node_cpus=128)


def declared(**changes: object) -> Declaration:
    values: dict[str, object] = {
        "levels": (10**17, 10**18),
        "training": Training(lr_peak=dict.fromkeys(NAMES, 1e-3), batch_size=4096),
        "resources": Resources(auto=True),
        "cluster": CLUSTER,
        "limits": Limits(min_steps=1),
    }
    return declare(GridBlock(architectures=NAMES), **values | changes)


def trials(declaration: Declaration) -> dict[str, Trial]:
    planned = plan_of(declaration, pairs=10_000_000).trials
    return {trial.cell.architecture: trial for trial in planned}


def ways(
    name: str, batch_size: int = 4096, cluster: Cluster = CLUSTER, too_large: int | None = None
) -> tuple[Option, ...]:
    kind = load_architecture(name), find_strategy("clip")
    declaration = declared(cluster=cluster)
    return resource_options(
        *kind,
        Recipe(),
        batch_size=batch_size,
        memory=partial(memory_bytes, *kind, batch_size=batch_size),
        amounts=[declaration.trial_resources({"gpus": gpus}) for gpus in widths(cluster, batch_size, {})],
        cluster=cluster,
        ruled={},
        limit=memory_limit(find_device(cluster.device).memory_bytes, too_large),
    )


def kind(alone: float, factor: float, widths_tried: int, trials: int = 1) -> Kind:
    """Return trials of some hours on one GPU; each doubling of the GPUs costs a factor of GPU hours."""
    options = tuple(
        Option(
            resources=TrialResources(gpus=2**k), recipe=Recipe(), memory_bytes=0, factor=factor**k,
            hours=alone * factor**k / 2**k,
        )
        for k in range(widths_tried)
    )  # fmt: skip
    return Kind(options=options, trials=trials)


def test_widths_are_powers_of_two_then_whole_nodes() -> None:
    assert [way.resources.gpus for way in ways("ViT-B-32")] == [1, 2, 4, 8, 16, 32, 64]
    assert [way.resources.nodes for way in ways("ViT-B-32")] == [1, 1, 1, 1, 2, 4, 8]
    # Six GPUs a node: 12 and 24 do not divide the batch.
    six = ways("ViT-B-32", cluster=replace(CLUSTER, node_gpus=6))
    assert [way.resources.gpus for way in six] == [1, 2, 4]
    # 256 pairs fill four GPUs of 64.
    assert [way.resources.gpus for way in ways("ViT-B-32", 256)] == [1, 2, 4]


def test_each_width_takes_the_quickest_settings_that_fit() -> None:
    limit = MEMORY_SHARE * find_device("h100-sxm").memory_bytes
    by_gpus = {way.resources.gpus: way for way in ways("ViT-L-14", 8192)}

    assert all(way.memory_bytes <= limit for way in by_gpus.values())
    assert {gpus: way.recipe.passes for gpus, way in by_gpus.items()} == {
        1: 4, 2: 4, 4: 4, 8: 4, 16: 4, 32: 3, 64: 3
    }  # fmt: skip
    for gpus, way in by_gpus.items():
        quicker = memory_bytes(
            load_architecture("ViT-L-14"), find_strategy("clip"), Recipe(), batch_size=8192, devices=gpus
        )
        assert (quicker <= limit) == (way.recipe.passes == 3)
        assert way.factor == pytest.approx(way.recipe.passes / 3 / 0.97 ** (gpus.bit_length() - 1))


def test_settings_after_too_large_ones_need_less_memory() -> None:
    first = ways("ViT-L-14", 8192)
    failed = first[-1].memory_bytes
    after = ways("ViT-L-14", 8192, too_large=failed)

    assert all(way.memory_bytes < failed for way in after)
    assert (first[-1].recipe.passes, after[-1].recipe.passes) == (3, 4)
    declaration = declared(resources=Resources(gpus=32))
    plain, changed = (
        plan_of(declaration, pairs=10_000_000, too_large=too_large).trials
        for too_large in ({}, {("ViT-L-14", "clip", 4096): 10**10})
    )
    assert [trial.trial_id for trial in changed] == [trial.trial_id for trial in plain]
    assert [trial.resources for trial in changed] == [trial.resources for trial in plain]
    assert {trial.cell.architecture for trial in changed if trial.recipe.passes > 3} == {"ViT-L-14"}


def test_cores_are_a_share_of_the_node() -> None:
    assert [way.resources.cpus for way in ways("ViT-B-32")][:5] == [16, 32, 64, 128, 256]
    unknown = ways("ViT-B-32", cluster=replace(CLUSTER, node_cpus=None))
    assert [way.resources.cpus for way in unknown][:2] == [6, 12]
    fixed = declared(resources=Resources(gpus=4))
    assert trials(fixed)["ViT-B-32"].resources == TrialResources(gpus=4, cpus=64)


def test_batch_norm_is_never_computed_in_parts() -> None:
    recipes = {way.recipe for way in ways("RN50", 4096)}

    plain = [recipe for recipe in recipes if recipe.passes == 3]
    assert {(recipe.accumulation, recipe.gradient_checkpointing) for recipe in plain} == {(1, False)}
    assert trials(declared())["RN50"].recipe.accumulation == 1


def test_a_rule_holds_whatever_is_chosen() -> None:
    rules = (ResourceRule(gpus=8), ResourceRule(architectures=("ViT-L-14",), gpus=16, accumulation=4))
    for resources in (Resources(auto=True, rules=rules), Resources(rules=rules)):
        planned = trials(declared(resources=resources))

        assert planned["ViT-B-32"].resources == TrialResources(gpus=8, cpus=128)
        assert planned["ViT-L-14"].resources == TrialResources(gpus=16, nodes=2, cpus=256)
        assert planned["ViT-L-14"].recipe.accumulation == 4


def test_the_last_rule_that_names_a_key_sets_it() -> None:
    training = Training(
        lr_peak=dict.fromkeys(NAMES, 1e-3),
        batch_size=4096,
        rules=(
            TrainingRule(architectures=("ViT-B-32",), batch_size=8192, lr_peak=2e-3),
            TrainingRule(levels=(10**18,), lr_peak=3e-3),
        ),
    )
    plan = plan_of(declared(training=training, resources=Resources(gpus=32)), pairs=10_000_000)

    assert {
        (trial.cell.level_flops, trial.batch_size, trial.lr_peak)
        for trial in plan.trials
        if trial.cell.architecture == "ViT-B-32"
    } == {(10**17, 8192, 2e-3), (10**18, 8192, 3e-3)}


def test_recomputed_passes_take_a_third_more_time_each_and_no_more_flops() -> None:
    trial = trials(declared(resources=Resources(gpus=32)))["ViT-B-32"]
    parts = replace(trial, recipe=Recipe(accumulation=2), evaluation_flops=0)
    both = replace(parts, recipe=Recipe(accumulation=2, gradient_checkpointing=True))
    plain = training_s(trial, CLUSTER).high

    for recomputing, factor in ((parts, 4 / 3), (both, 5 / 3)):
        wall = device_hours(recomputing, CLUSTER).high * 3600 / 32
        assert wall == pytest.approx(start_s(32, trial.recipe) + plain * factor)
    assert both.train_flops == trial.train_flops


def test_one_long_trial_is_widened_as_far_as_the_hours_allow() -> None:
    # 100 hours on one GPU of eight; each doubling costs 10 % more hours.
    long = kind(100.0, 1.1, 4)

    chosen = [
        choose_resources([long], Cluster(device="h100", count=8), hours_factor=factor)[0][0].resources.gpus
        for factor in (1.0, 1.15, 1.25, 1.4)
    ]

    assert chosen == [1, 2, 4, 8]


def test_many_short_trials_stay_narrow_beside_a_long_one_that_is_widened() -> None:
    short, long = kind(1.0, 1.05, 4, trials=80), kind(40.0, 1.05, 4)
    chosen = choose_resources([short, long], Cluster(device="h100", count=8), hours_factor=1.25)

    # On 8 GPUs the long one ends after 5.8 hours and ten rounds of short ones follow; on 4 it ends after 11,
    # with 44 short ones beside it, and five rounds follow; on one it would take 40.
    assert [option.resources.gpus for option, _ in chosen] == [1, 8]
    assert [why for _, why in chosen] == ["fewest hours", "ends sooner, +16 % hours"]


@given(
    st.lists(
        st.tuples(st.floats(0.1, 50), st.integers(1, 6), st.integers(1, 4)),
        min_size=1,
        max_size=4,
    ),
    st.floats(1, 2),
)
def test_choice_stays_within_its_hours_and_never_ends_later_than_the_cheapest(
    declared_kinds: list[tuple[float, int, int]], factor: float
) -> None:
    kinds = [kind(hours, 1.03, most, trials) for hours, trials, most in declared_kinds]

    def end(of: list[Option]) -> tuple[float, float]:
        spans = [
            (o.hours, o.resources.gpus) for kind, o in zip(kinds, of, strict=True) for _ in range(kind.trials)
        ]
        hours = sum(span * gpus for span, gpus in spans)
        return hours, makespan([s for s, _ in spans], [g for _, g in spans], 8)

    chosen = [
        option for option, _ in choose_resources(kinds, Cluster(device="h100", count=8), hours_factor=factor)
    ]
    hours, ends = end(chosen)
    fewest, cheapest_ends = end([kind.cheapest for kind in kinds])

    assert hours <= fewest * factor * (1 + 1e-9)
    assert ends <= cheapest_ends * 1.01


def test_a_study_ends_no_later_than_with_any_one_width_for_all() -> None:
    chosen = price_plan(plan_of(declared(), pairs=10_000_000), CLUSTER).makespan_hours.high

    for gpus in (16, 32, 64):
        plan = plan_of(declared(resources=Resources(gpus=gpus, cpus=64)), pairs=10_000_000)
        if not plan.left_out:
            assert chosen <= price_plan(plan, CLUSTER).makespan_hours.high * 1.001


def test_wide_and_narrow_trials_are_packed() -> None:
    # 8 GPUs: the wide one first, then two of four beside each other, then eight narrow ones.
    assert makespan([1.0] * 8 + [2.0, 2.0, 3.0], [1] * 8 + [4, 4, 8], 8) == 6.0


def flip(**changes: object) -> Trial:
    """Return the trial of 1 EFLOP with FLIP on ViT-B/16, as a plan places it."""
    grid = GridBlock(architectures=("ViT-B-16",), strategies=("flip-50",))
    training = Training(lr_peak={"ViT-B-16": 1e-3}, batch_size=16_384)
    values = {
        "levels": (10**18,),
        "training": training,
        "resources": Resources(auto=True),
        "cluster": CLUSTER,
    }
    return plan_of(declare(grid, **values | changes), pairs=100_000_000).trials[0]


def test_a_trial_is_as_wide_as_pays_for_its_start() -> None:
    for level, gpus in ((10**17, 2), (10**18, 16), (10**20, 64)):
        trial = flip(levels=(level,))
        wall = wall_s(trial, CLUSTER).middle
        assert trial.resources.gpus == gpus
        assert start_s(gpus, trial.recipe) <= 0.1 * wall
    compiled = Training(lr_peak={"ViT-B-16": 1e-3}, batch_size=16_384, recipe=Recipe(compile=True))
    assert flip(training=compiled).resources.gpus < 16


def test_trials_below_a_url_are_as_wide_as_others() -> None:
    assert flip(levels=(10**20,), storage="s3://bucket/clip").resources.nodes == 8


def test_chosen_settings_leave_a_margin_of_memory() -> None:
    limit = find_device("h100-sxm").memory_bytes
    for strategy in ("clip", "slip"):
        trial = flip(grid=(GridBlock(architectures=("ViT-B-16",), strategies=(strategy,)),))
        assert estimated_memory(trial) <= MEMORY_SHARE * limit


def test_cores_are_assumed_until_nodes_tell_them_and_a_plan_says_so() -> None:
    for cluster in (None, replace(CLUSTER, node_cpus=None)):
        plan = plan_of(declared(resources=Resources(gpus=8), cluster=cluster), pairs=10_000_000)
        assert {trial.resources.cpus for trial in plan.trials} == {48}
        assert any(note.startswith("6 cores a GPU are assumed") for note in plan.warnings)
        on_nodes = [replace(trial, resources=trial.resources.on_nodes(24)) for trial in plan.trials]
        assert {trial.resources.cpus for trial in on_nodes} == {192}
        assert [trial.trial_id for trial in on_nodes] == [trial.trial_id for trial in plan.trials]
    known = plan_of(declared(resources=Resources(gpus=8)), pairs=10_000_000)
    assert {trial.resources.on_nodes(24).cpus for trial in known.trials} == {128}
    assert not any("assumed" in note for note in known.warnings)


def test_the_share_of_a_gpu_is_that_of_the_node_with_the_fewest_cores_by_gpu() -> None:
    nodes = [{"cpus": 96.0, "gpus": 8.0}, {"cpus": 40.0, "gpus": 4.0}, {"cpus": 4.0}]
    assert cores_per_gpu(nodes) == 10
    assert cores_per_gpu([{"cpus": 4.0}]) is None
