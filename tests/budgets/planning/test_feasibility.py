"""Cells that can't be run are left out, each with its most basic reason in numbers."""

import re
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from budgets.cost.architecture import load_architecture
from budgets.cost.flops import image_forward_macs, text_forward_macs
from budgets.cost.memory import memory_bytes
from budgets.cost.strategy import find_strategy
from budgets.declaration.recipe import Recipe
from budgets.declaration.sections import Cluster, Exclusion, GridBlock, Limits, Resources, Training
from budgets.planning.facts import PoolFacts
from budgets.planning.plan import Plan
from budgets.planning.planner import make_plan
from tests.budgets.plans import GFLOP, LADDER, NO_EVALUATION, declare, plan_of


def reasons(plan: Plan) -> list[str]:
    return [item.reason for item in plan.left_out]


@pytest.mark.parametrize(
    ("changes", "block", "reason"),
    [
        ({}, {"architectures": ("mini-RN",), "strategies": ("flip-50",)}, "patch dropout needs a ViT"),
        ({"training": Training(lr_peak={LADDER[1]: 1e-3})}, {},
         f"training.lr_peak declares no learning rate for {LADDER[0]}"),
        ({}, {"sizes": (20_000,)}, "20,000 pairs requested, but the pool holds 10,000 of quality all"),
        ({}, {"sizes": (3_000,), "quality": ("top20",)},
         "3,000 pairs requested, but the pool holds 2,000 of quality top20"),
        ({}, {"sizes": (32,)}, "a batch of 64 is larger than the subset of 32 pairs"),
        ({"levels": (GFLOP // 10,)}, {},
         "100 MFLOP buys 14 samples of 7.017 MFLOP, less than one batch of 64"),
        ({"levels": (GFLOP // 2,)}, {}, "1 step of 64 pairs, fewer than limits.min_steps = 20"),
        ({"levels": (2 * GFLOP,)}, {}, "4 steps of 64 pairs, fewer than limits.min_steps = 20"),
        ({"limits": Limits(max_epochs=3.0)}, {"levels": (300 * GFLOP,)},
         "4.3 epochs over 10,000 pairs, more than limits.max_epochs = 3"),
        ({"exclude": (Exclusion(strategies=("slip",)), Exclusion(architectures=LADDER[:1]))}, {},
         "excluded by the declaration: exclude[2]"),
    ],
)  # fmt: skip
def test_infeasible_cell_is_left_out_with_its_numbers(
    changes: dict[str, object], block: dict[str, object], reason: str
) -> None:
    left_out = GridBlock(**{"architectures": LADDER[:1], **block})  # type: ignore[arg-type]
    feasible = GridBlock(architectures=LADDER[1:2], sizes=(640,), regime="equal-samples", samples=(1_280,))
    declared = changes.get("training")
    if isinstance(declared, Training):
        recipe = replace(declared, lr_peak={**declared.lr_peak, LADDER[1]: 1e-3})
        changes = changes | {"training": recipe}

    plan = plan_of(declare(left_out, feasible, **changes))

    assert plan.trials
    assert any(text.startswith(reason) for text in reasons(plan))


def test_samples_of_a_left_out_cell_are_named() -> None:
    block = GridBlock(
        architectures=LADDER[:1], sizes=(640,), regime="equal-samples", samples=(10, 63, 64, 1_280, 10**7)
    )

    assert reasons(plan_of(declare(block))) == [
        "10 samples: less than one batch of 64",
        "63 samples: less than one batch of 64",
        "64 samples: 1 step of 64 pairs, fewer than limits.min_steps = 20",
        "10,000,000 samples: 15,625.0 epochs over 640 pairs, more than limits.max_epochs = 1000",
    ]


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (Recipe(warmup=1.0), r"training\.warmup = 100% takes 222 of 222"),
        (Recipe(schedule="constant-with-cooldown", warmup=0.5, cooldown=0.6),
         r"training\.cooldown = 60% takes 133"),
    ],
)  # fmt: skip
def test_warmup_must_end_before_the_run_and_before_its_cooldown(recipe: Recipe, reason: str) -> None:
    training = Training(lr_peak=dict.fromkeys(LADDER, 1e-3), recipe=recipe)

    with pytest.raises(ValueError, match=reason):
        plan_of(declare(training=training))
    assert replace(recipe, schedule="cosine").cooldown_steps(100) == 0


def test_warmup_in_samples_longer_than_runs_raises_and_names_them() -> None:
    recipe = Recipe(warmup_samples=20_000)
    training = Training(lr_peak=dict.fromkeys(LADDER, 1e-3), recipe=recipe)

    assert (recipe.warmup_steps(1000, 64), recipe.warmup_steps(1000, 128)) == (313, 157)
    with pytest.raises(ValueError, match="longer than the run") as error:
        plan_of(declare(training=training))
    _, first, *others = str(error.value).splitlines()
    assert first == (
        f"  {LADDER[0]} clip on 10,000 pairs (all) at 100 GFLOP: "
        "training.warmup = 20,000 samples takes 313 of 222 steps: no step is left after it"
    )
    assert len(others) == 3
    block = GridBlock(architectures=LADDER[:1])
    assert len(plan_of(declare(training=training, levels=(300 * GFLOP,), grid=(block,))).trials) == 1


def test_accumulation_parts_must_not_exceed_batch_size() -> None:
    training = Training(lr_peak={LADDER[0]: 1e-3}, recipe=Recipe(accumulation=65))
    block = GridBlock(architectures=LADDER[:1], strategies=("clip", "flip-50"))
    plan = plan_of(declare(block, training=training))

    (reason,) = set(reasons(plan))
    assert re.match(r"training\.accumulation = 65 .* 64 pairs", reason)
    assert {trial.cell.strategy for trial in plan.trials} == {"flip-50"}


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"scored": False}, "the pool has no quality scores, which top60 needs"),
        (
            {"scored_pairs": 5_000},
            "5,000 of the pool's 10,000 pairs have a quality score, but top60 needs 6,000",
        ),
    ],
)
def test_quality_subset_needs_a_score_for_each_of_its_pairs(facts: dict[str, Any], reason: str) -> None:
    block = GridBlock(architectures=LADDER[:1], quality=("top40", "top60", "all"))
    plan = plan_of(declare(block), **facts)

    assert {trial.cell.quality for trial in plan.trials} == {
        "all",
        *(["top40"] if "scored_pairs" in facts else []),
    }
    assert {item.reason.partition(";")[0] for item in plan.left_out if item.cell.quality == "top60"} == {
        reason
    }


def test_named_subset_is_planned_at_its_size_and_rejects_larger() -> None:
    pool = PoolFacts(name="pool", pairs=10_000, scored=False, subsets={"basic": 640})
    block = GridBlock(architectures=LADDER[:1], quality=("subset:basic",), sizes=(None, 500, 641))
    plan = make_plan(declare(block), pool=pool, evaluation=NO_EVALUATION)

    assert {trial.cell.subset_size for trial in plan.trials} == {640, 500}
    (reason,) = set(reasons(plan))
    assert re.match(r"641 pairs .* 640 .*subset:basic", reason)


def test_only_the_most_basic_reason_is_reported() -> None:
    block = GridBlock(architectures=("mini-RN", LADDER[0]), strategies=("flip-50",), sizes=(10, 10_000))
    plan = plan_of(declare(block, levels=(300 * GFLOP,)))

    assert len(reasons(plan)) == 3
    assert sum("patch dropout" in reason for reason in reasons(plan)) == 2
    assert sum("a batch of 128" in reason for reason in reasons(plan)) == 1


def test_cell_exceeding_device_memory_is_left_out_unless_more_devices_share_it() -> None:
    def plan(gpus: int) -> Plan:
        return plan_of(
            declare(
                GridBlock(architectures=("ViT-B-32", "ViT-L-14"), regime="one-epoch"),
                training=Training(lr_peak={"ViT-B-32": 1e-3, "ViT-L-14": 1e-3}, batch_size=4096),
                limits=Limits(min_steps=1),
                resources=Resources(gpus=gpus),
                cluster=Cluster(device="a100-sxm-80gb", count=64),
            ),
            pairs=1_000_000,
        )

    few, many = plan(4), plan(64)

    assert [trial.cell.architecture for trial in few.trials] == ["ViT-B-32"]
    assert re.search(r"4 devices .*4,096", reasons(few)[0])
    assert len(many.trials) == 2
    with pytest.raises(ValueError, match=r"one device .*4,096"):
        plan(1)


def test_the_memory_estimate_is_weights_gradients_moments_and_activations() -> None:
    # 16 bytes a parameter; 34 bytes a token, width and layer; five chunks of 64 x 4096 entries in fp32.
    architecture = load_architecture("ViT-B-32")
    image = 34 * 50 * 768 * 12
    text = 34 * 77 * 512 * 12
    expected = 16 * 151_277_313 + 64 * (image + text) + 64 * 4096 * 5 * 4

    estimate = memory_bytes(architecture, find_strategy("clip"), Recipe(), batch_size=4096, devices=64)

    assert estimate == pytest.approx(expected, rel=0.06)  # attention and projections have MACs too


@pytest.mark.parametrize(
    ("name", "bytes_per_mac", "fraction"),
    [
        ("ViT-B-32", 34 / 12 / 768, 2 / 34 + 1 / 12),
        ("convnext_tiny", 0.012, 0.3),
        ("Swin-T", 0.012, 0.3),
        ("RN50", 0.012, 1),
    ],
)
def test_gradient_checkpointing_keeps_a_share_of_the_activations(
    name: str, bytes_per_mac: float, fraction: float
) -> None:
    architecture = load_architecture(name)
    plain, recomputed = (
        memory_bytes(architecture, find_strategy("clip"), recipe, batch_size=4096, devices=64)
        for recipe in (Recipe(), Recipe(gradient_checkpointing=True))
    )
    text_bytes_per_mac = 34 / 12 / architecture.costs.text_width
    text = (1 - 2 / 34 - 1 / 12) * text_bytes_per_mac * text_forward_macs(architecture)
    image = (1 - fraction) * bytes_per_mac * image_forward_macs(architecture)

    assert plain - recomputed == pytest.approx(64 * (image + text), abs=2)


def test_exclusion_rule_matches_on_every_axis_it_names() -> None:
    rule = Exclusion(strategies=("slip",), levels=(300 * GFLOP,), sizes=(None,))
    plan = plan_of(
        declare(
            GridBlock(architectures=LADDER[:1], strategies=("clip", "slip"), sizes=(None, 4096)),
            exclude=(rule,),
        )
    )

    assert [str(item.cell) for item in plan.left_out] == [
        "mini-ViT-XXS-8 slip on 10,000 pairs (all) at 300 GFLOP"
    ]
    assert len(plan.trials) == 7


def test_images_stay_in_memory_with_accumulation_and_fp32_takes_twice_the_activations() -> None:
    architecture = load_architecture("ViT-B-32")

    def needed(strategy_name: str, recipe: Recipe, batch_size: int = 16_384) -> int:
        return memory_bytes(
            architecture, find_strategy(strategy_name), recipe, batch_size=batch_size, devices=1
        )

    # 3 × 224² pixels of each pair: two bytes in batches, four in each view. SLIP's peak is augmentation,
    # with the bytes that MemTracker counts in `views`: 21.3 for small views, 38.7 for the original ones.
    parts = Recipe(accumulation=16_384)
    larger = replace(parts, slip_views="original")
    original = needed("slip", larger) - needed("slip", parts)
    assert original == pytest.approx(16_384 * 3 * 224**2 * (38.7 - 21.3), rel=0.03)
    for name, bytes_a_pixel in (("clip", 6), ("clip-crop-flip", 12.7), ("slip", 23.3)):
        assert needed(name, parts) > 16_384 * 3 * 224**2 * bytes_a_pixel
    in_fp32, in_bf16 = (
        needed("clip", Recipe(precision=precision)) - needed("clip", Recipe(precision=precision), 8192)
        for precision in ("fp32", "bf16")
    )
    assert 1.8 < in_fp32 / in_bf16 < 2
    # FastCLIP keeps two numbers of each pair; of a teacher, embeddings of 512 numbers are in two batches in
    # fp16, and in the loss in fp32.
    fastclip = partial(
        memory_bytes, architecture, find_strategy("fastclip"), Recipe(), batch_size=4, devices=1
    )
    assert fastclip(pairs=1_000_000) - fastclip() == 8_000_000
    assert fastclip(widths=(512, 512)) - fastclip() == 4 * 2 * 512 * (2 * 2 + 4)
