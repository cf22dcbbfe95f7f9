"""Plans: every cell is a trial or left out with a reason; plans are reproducible and trial ids stable."""

import dataclasses
import hashlib
import json

import pytest

from budgets.cost.architecture import load_architecture
from budgets.cost.flops import sample_cost
from budgets.cost.memory import memory_bytes
from budgets.cost.strategy import strategy
from budgets.declaration.recipe import Recipe
from budgets.declaration.sections import Cluster, Exclusion, GridBlock, Limits, Resources, Training
from budgets.planning.facts import EvaluationFacts, PoolFacts
from budgets.planning.plan import Cell, Plan, Trial
from budgets.planning.planner import make_plan
from tests.budgets.plans import GFLOP, LADDER, declare, plan_of


def reasons(plan: Plan) -> list[str]:
    return [item.reason for item in plan.left_out]


def test_trial_id_hashes_exactly_what_decides_the_result() -> None:
    trial = plan_of(declare()).trials[0]
    content = dataclasses.asdict(trial)
    costs = ("train_flops_per_sample", "tail_flops_per_sample", "evaluation_flops", "parameters")
    for derived in (
        "trial_id", "resources", "batch_norm", "evaluations", "previous", "shared_samples", "mixture",
        *costs,
    ):  # fmt: skip
        del content[derived]
    first = ("weight_decay", "beta1", "beta2", "eps", "warmup", "gradient_clip", "precision")
    content["recipe"] = {name: content["recipe"][name] for name in first}  # the others at their defaults

    text = json.dumps([1, content], sort_keys=True, separators=(",", ":"))

    assert trial.trial_id == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_trial_id_depends_on_recipe_but_not_on_costs() -> None:
    trial = plan_of(declare()).trials[0]

    assert dataclasses.replace(trial, train_flops_per_sample=1, parameters=1).trial_id == trial.trial_id
    assert dataclasses.replace(trial, recipe=Recipe(warmup=0.2)).trial_id != trial.trial_id
    assert dataclasses.replace(trial, seed=7).trial_id != trial.trial_id


def test_what_changes_a_trial_by_rounding_alone_is_no_part_of_its_id() -> None:
    architectures = (*LADDER, "mini-ConvNeXt", "mini-RN")
    rates = dict.fromkeys(architectures, 1e-3)

    def ids(recipe: Recipe, gpus: int) -> list[str]:
        block, training = GridBlock(architectures=architectures), Training(lr_peak=rates, recipe=recipe)
        plan = plan_of(declare(block, training=training, resources=Resources(gpus=gpus, cpus=8)))
        return [trial.trial_id for trial in plan.trials]

    plain = ids(Recipe(), 0)
    others = ids(Recipe(accumulation=8, gradient_checkpointing=True, compile=True), 4)

    # The statistics of batch norm are those of a part: the ResNet's two trials are others.
    assert (plain[:4], plain[5:9]) == (others[:4], others[5:9])
    assert plain[4] != others[4]
    assert plain[9] != others[9]
    assert plain == ids(Recipe(compile=True), 4)


def test_same_name_with_another_config_gives_another_trial_id() -> None:
    trial = plan_of(declare()).trials[0]
    config = {**trial.architecture_config, "embed_dim": 8}

    assert dataclasses.replace(trial, architecture_config=config).trial_id != trial.trial_id


def test_adding_a_level_seed_or_block_keeps_other_trial_ids() -> None:
    before = {trial.trial_id for trial in plan_of(declare()).trials}
    more = declare(
        GridBlock(architectures=LADDER),
        GridBlock(architectures=("mini-RN",), strategies=("slip",)),
        levels=(100 * GFLOP, 300 * GFLOP, 900 * GFLOP),
        seeds=(0, 1),
    )

    assert before < {trial.trial_id for trial in plan_of(more).trials}


def test_the_same_declaration_gives_the_same_plan() -> None:
    assert plan_of(declare()) == plan_of(declare())
    assert [t.trial_id for t in plan_of(declare()).trials] == [t.trial_id for t in plan_of(declare()).trials]


def test_cell_declared_in_two_blocks_runs_once_with_seeds_of_both() -> None:
    block = GridBlock(architectures=LADDER[:1], levels=(100 * GFLOP,))
    plan = plan_of(declare(block, dataclasses.replace(block, seeds=(0, 1))))

    assert [trial.seed for trial in plan.trials] == [0, 1]


def test_level_is_spent_in_whole_batches() -> None:
    trial = plan_of(declare()).trials[0]
    cost = sample_cost(load_architecture(LADDER[0]), strategy("clip"), batch_size=64).train_flops

    assert trial.samples_seen == 100 * GFLOP // cost // 64 * 64
    assert trial.train_flops <= 100 * GFLOP < trial.train_flops + 64 * cost


def test_the_three_regimes_are_planned_and_costed_in_one_study() -> None:
    plan = plan_of(
        declare(
            GridBlock(architectures=LADDER[:1], levels=(300 * GFLOP,)),
            GridBlock(architectures=LADDER[:1], sizes=(5_000,), regime="one-epoch"),
            GridBlock(
                architectures=LADDER[:1], sizes=(2_000,), regime="equal-samples", samples=(4_000, 6_400)
            ),
        )
    )
    seen = {(trial.cell.regime, trial.samples_seen) for trial in plan.trials}

    assert seen == {
        ("fixed-compute", 42_752),
        ("one-epoch", 4_992),
        ("equal-samples", 3_968),
        ("equal-samples", 6_400),
    }
    assert len({trial.trial_id for trial in plan.trials}) == 4
    assert plan.train_flops == sum(t.samples_seen * t.train_flops_per_sample for t in plan.trials)


def test_plan_sums_cost_by_level_strategy_and_architecture() -> None:
    plan = plan_of(declare(GridBlock(architectures=LADDER, strategies=("clip", "slip"))))
    by_strategy = plan.train_flops_by(lambda cell: cell.strategy)

    assert list(by_strategy) == ["clip", "slip"]
    assert sum(by_strategy.values()) == plan.train_flops


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
    kept = GridBlock(architectures=LADDER[1:2], sizes=(640,), regime="equal-samples", samples=(1_280,))
    declared = changes.get("training")
    if isinstance(declared, Training):
        recipe = dataclasses.replace(declared, lr_peak={**declared.lr_peak, LADDER[1]: 1e-3})
        changes = changes | {"training": recipe}

    plan = plan_of(declare(left_out, kept, **changes))

    assert plan.trials
    assert any(found.startswith(reason) for found in reasons(plan))


def test_warmup_must_end_before_the_run() -> None:
    training = Training(lr_peak=dict.fromkeys(LADDER, 1e-3), recipe=Recipe(warmup=1.0))

    with pytest.raises(ValueError, match=r"training\.warmup = 100% takes 222 of 222 steps: no step is left"):
        plan_of(declare(training=training))


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
    assert plan_of(
        declare(training=training, levels=(300 * GFLOP,), grid=(GridBlock(architectures=LADDER[:1]),))
    )


def test_cooldown_must_begin_after_warmup() -> None:
    recipe = Recipe(schedule="constant-with-cooldown", warmup=0.5, cooldown=0.6)
    training = Training(lr_peak=dict.fromkeys(LADDER, 1e-3), recipe=recipe)

    with pytest.raises(
        ValueError, match=r"training.cooldown = 60% takes 133: together more than the run has"
    ):
        plan_of(declare(training=training))
    assert Recipe(cooldown=0.6).cooldown_steps(100) == 0


def test_accumulation_parts_must_not_exceed_batch_size() -> None:
    training = Training(lr_peak={LADDER[0]: 1e-3}, recipe=Recipe(accumulation=65))
    block = GridBlock(architectures=LADDER[:1], strategies=("clip", "flip-50"))
    plan = plan_of(declare(block, training=training))

    assert set(reasons(plan)) == {"training.accumulation = 65 parts, but a batch has only 64 pairs"}
    assert {trial.cell.strategy for trial in plan.trials} == {"flip-50"}


def test_an_unmasked_tail_is_costed_exactly_and_stays_within_the_level() -> None:
    training = Training(lr_peak={LADDER[0]: 1e-3}, recipe=Recipe(unmasked_tail=0.1))
    block = GridBlock(architectures=LADDER[:1], strategies=("clip", "flip-50", "clipa"))
    plan = plan_of(declare(block, training=training))
    plain, flip, clipa = (trial for trial in plan.trials if trial.cell.level_flops == 300 * GFLOP)
    architecture = load_architecture(LADDER[0])

    def cost(name: str, batch: int) -> int:
        return sample_cost(architecture, strategy(name), batch_size=batch).train_flops

    for trial, whole, name in ((flip, cost("clip", 128), "flip-50"), (clipa, cost("clip", 64), "clipa")):
        batch, masked = trial.batch_size, cost(name, trial.batch_size)
        tail = int(0.1 * trial.steps + 0.5)
        assert trial.train_flops == batch * ((trial.steps - tail) * masked + tail * whole)
        assert trial.train_flops <= 300 * GFLOP < trial.train_flops + batch * whole
        # The tail is the end: what is done before it costs as masked samples do.
        before = (trial.steps - tail) * batch
        assert trial.train_flops_after(before) == before * masked
        assert trial.train_flops_after(before + batch) == before * masked + batch * whole
    assert plain.recipe.unmasked_tail == 0
    same = plan_of(declare(dataclasses.replace(block, strategies=("clip", "flip-50"))))
    assert plain.trial_id in {trial.trial_id for trial in same.trials}
    assert flip.trial_id not in {trial.trial_id for trial in same.trials}


def test_slips_original_views_are_part_of_the_ids_of_larger_images_alone() -> None:
    rates = {LADDER[0]: 1e-3, "ViT-B-32": 1e-3}

    def recipes(recipe: Recipe, architecture: str) -> dict[str, tuple[str, str]]:
        block = GridBlock(architectures=(architecture,), strategies=("clip", "slip"), regime="one-epoch")
        plan = plan_of(declare(block, training=Training(lr_peak=rates, recipe=recipe)))
        return {trial.cell.strategy: (trial.trial_id, trial.recipe.slip_views) for trial in plan.trials}

    plain, original = (recipes(each, "ViT-B-32") for each in (Recipe(), Recipe(slip_views="original")))
    assert original["clip"] == plain["clip"]
    assert (plain["slip"][1], original["slip"][1]) == ("small", "original")
    assert original["slip"][0] != plain["slip"][0]
    assert recipes(Recipe(slip_views="original"), LADDER[0]) == recipes(Recipe(), LADDER[0])


def test_two_resolutions_have_their_own_tail_and_each_its_own_cost() -> None:
    block = GridBlock(architectures=LADDER[:1], strategies=("clipa-resize",))
    trial = plan_of(declare(block)).trials[-1]
    architecture, how = load_architecture(LADDER[0]), strategy("clipa-resize")
    small, full = (
        sample_cost(architecture, each, batch_size=64).train_flops for each in (how, strategy("clip"))
    )

    tail = int(0.36 / 6.36 * trial.steps + 0.5)
    assert tail > 0
    assert trial.train_flops == 64 * ((trial.steps - tail) * small + tail * full)
    level = trial.cell.level_flops
    assert level is not None
    assert trial.train_flops <= level < trial.train_flops + 64 * full


def test_a_ladder_counts_unmasked_tails() -> None:
    training = Training(lr_peak={LADDER[0]: 1e-3}, recipe=Recipe(unmasked_tail=0.25))
    block = GridBlock(architectures=LADDER[:1], strategies=("flip-50",), regime="fixed-compute")
    plan = plan_of(declare(block, training=training, levels=(), study_flops=10**12))

    assert 0.95 * 10**12 < plan.train_flops <= 10**12


def test_quality_subset_needs_scores() -> None:
    plan = plan_of(declare(GridBlock(architectures=LADDER[:1], quality=("all", "top40"))), scored=False)

    assert set(reasons(plan)) == {"the pool has no quality scores, which top40 needs"}


def test_quality_subset_needs_a_score_for_each_of_its_pairs() -> None:
    block = GridBlock(architectures=LADDER[:1], quality=("top40", "top60", "all"))
    plan = plan_of(declare(block), scored_pairs=5_000)

    assert {trial.cell.quality for trial in plan.trials} == {"top40", "all"}
    assert set(reasons(plan)) == {
        "5,000 of the pool's 10,000 pairs have a quality score, but top60 needs 6,000; score the whole pool"
    }


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
    assert reasons(few)[0].endswith(
        "GB on each of 4 devices for a batch of 4,096, but a100-sxm-80gb has 80 GB"
    )
    assert len(many.trials) == 2


def test_the_memory_estimate_is_weights_gradients_moments_and_activations() -> None:
    # 16 bytes a parameter; 34 bytes a token, width and layer; five chunks of 64 x 4096 entries in fp32.
    architecture = load_architecture("ViT-B-32")
    image = 34 * 50 * 768 * 12
    text = 34 * 77 * 512 * 12
    expected = 16 * 151_277_313 + 64 * (image + text) + 64 * 4096 * 5 * 4

    found = memory_bytes(architecture, strategy("clip"), Recipe(), batch_size=4096, devices=64)

    assert found == pytest.approx(expected, rel=0.06)  # attention and projections have MACs too


def test_declaration_without_feasible_cell_raises_with_reasons() -> None:
    with pytest.raises(ValueError, match=r"no cell of the grid can be run:\n  mini-ViT-XXS-8 clip on .*64"):
        plan_of(declare(GridBlock(architectures=LADDER[:1], sizes=(32,))))


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


def test_trial_is_immutable() -> None:
    trial: Trial = plan_of(declare()).trials[0]
    cell: Cell = trial.cell

    for item, name in ((trial, "seed"), (cell, "quality")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(item, name, 1)


def test_evaluations_on_the_way_are_costed_beside_the_budget_and_keep_the_ids() -> None:
    facts = PoolFacts(name="pool", pairs=10_000, scored=True)
    sets = EvaluationFacts(names=("held-out",), images=100, texts=20)
    plain, often = (
        make_plan(declare(evaluate_at=shares), pool=facts, evaluation=sets) for shares in ((), (0.25, 0.5))
    )

    assert often.evaluation_flops == 3 * plain.evaluation_flops > 0
    assert often.train_flops == plain.train_flops
    assert [each.trial_id for each in often.trials] == [each.trial_id for each in plain.trials]
    assert often.trials[0].flops_per_evaluation == plain.trials[0].evaluation_flops


def test_paper_preset_scales_flips_rate_and_unmasks_its_end_and_defaults_keep_the_ids() -> None:
    block = GridBlock(architectures=LADDER[:1], strategies=("clip", "flip-25", "clipa"))
    rates = {LADDER[0]: 1e-3}
    recipe = Recipe(unmasked_tail=None, embedding_decay=False)
    preset = plan_of(declare(block, training=Training(lr_peak=rates, lr_rule="linear", recipe=recipe)))
    root = plan_of(declare(block, training=Training(lr_peak=rates, lr_rule="sqrt")))
    plain = plan_of(declare(block, training=Training(lr_peak=rates)))

    of = {trial.cell.strategy: trial for trial in preset.trials}
    assert {name: trial.lr_peak for name, trial in of.items()} == {
        "clip": 1e-3,
        "flip-25": 4e-3,
        "clipa": 1e-3,
    }
    assert {t.lr_peak for t in root.trials if t.cell.strategy == "flip-25"} == {2e-3}
    assert {t.lr_peak for t in plain.trials} == {1e-3}
    tails = {name: trial.recipe.unmasked_tail for name, trial in of.items()}
    assert tails == {"clip": 0, "flip-25": 0.01, "clipa": pytest.approx(0.0566, abs=1e-4)}
    masked = of["flip-25"], of["clipa"]
    assert all(each.tail_flops_per_sample > each.train_flops_per_sample for each in masked)
    assert {trial.recipe.randaugment for trial in preset.trials} == {0.5}  # no strategy here has it
    timms = plan_of(declare(block, training=Training(lr_peak=rates, recipe=Recipe(randaugment=0.5))))
    assert [t.trial_id for t in timms.trials] == [t.trial_id for t in plain.trials]


def test_randaugment_applies_both_operations_and_trials_from_when_it_did_not_keep_their_ids() -> None:
    block = GridBlock(architectures=LADDER[:1], strategies=("clip-randaugment",))
    now, timms = (
        plan_of(declare(block, training=Training(lr_peak={LADDER[0]: 1e-3}, recipe=recipe))).trials[0]
        for recipe in (Recipe(), Recipe(randaugment=0.5))
    )
    assert now.recipe.randaugment == 1
    assert timms.trial_id == "11c48466fa90"
    assert now.trial_id != timms.trial_id
