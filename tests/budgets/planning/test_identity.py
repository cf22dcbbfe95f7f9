"""Trial ids hash what decides a result, and nothing else."""

import dataclasses
import hashlib
import json

from budgets.cost.strategy import StrategyFile
from budgets.declaration.recipe import Recipe
from budgets.declaration.sections import GridBlock, Resources, Training
from tests.budgets.plans import GFLOP, LADDER, declare, plan_of


def test_trial_id_hashes_exactly_what_decides_the_result() -> None:
    trial = plan_of(declare()).trials[0]
    content = dataclasses.asdict(trial)
    costs = ("train_flops_per_sample", "tail_flops_per_sample", "evaluation_flops", "parameters")
    for derived in (
        "trial_id", "resources", "batch_norm", "evaluations", "previous", "shared_samples", "mixture",
        "attempt", *costs,
    ):  # fmt: skip
        del content[derived]
    assert not content.pop("columns")
    assert content.pop("strategy_file") is None
    content["recipe"] = {}  # all at their defaults

    text = json.dumps([1, content], sort_keys=True, separators=(",", ":"))

    assert trial.trial_id == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert dataclasses.replace(trial, attempt=2).trial_id == f"{trial.trial_id}-2"


def test_trial_id_depends_on_recipe_and_config_but_not_on_costs() -> None:
    trial = plan_of(declare()).trials[0]
    other = {**trial.architecture_config, "embed_dim": 8}

    assert dataclasses.replace(trial, architecture_config=other).trial_id != trial.trial_id
    assert dataclasses.replace(trial, train_flops_per_sample=1, parameters=1).trial_id == trial.trial_id
    assert dataclasses.replace(trial, recipe=Recipe(warmup=0.2)).trial_id != trial.trial_id
    assert dataclasses.replace(trial, seed=7).trial_id != trial.trial_id
    assert dataclasses.replace(trial, columns={"caption_2": "1a2b"}).trial_id != trial.trial_id
    original, moved, edited = (
        dataclasses.replace(trial, strategy_file=StrategyFile(path=path, text=text)).trial_id
        for path, text in (("a.py", "one"), ("b.py", "one"), ("a.py", "two"))
    )
    assert original == moved
    assert len({trial.trial_id, original, edited}) == 3


def test_settings_that_change_a_trial_by_rounding_alone_are_not_part_of_its_id() -> None:
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


def test_adding_a_level_seed_or_block_keeps_other_trial_ids() -> None:
    before = {trial.trial_id for trial in plan_of(declare()).trials}
    more = declare(
        GridBlock(architectures=LADDER),
        GridBlock(architectures=("mini-RN",), strategies=("slip",)),
        levels=(100 * GFLOP, 300 * GFLOP, 900 * GFLOP),
        seeds=(0, 1),
    )

    assert before < {trial.trial_id for trial in plan_of(more).trials}


def test_slips_original_views_are_part_of_the_ids_of_larger_images_alone() -> None:
    rates = {LADDER[0]: 1e-3, "ViT-B-32": 1e-3}

    def recipes(recipe: Recipe, architecture: str) -> dict[str, tuple[str, str]]:
        block = GridBlock(architectures=(architecture,), strategies=("clip", "slip"), regime="one-epoch")
        plan = plan_of(declare(block, training=Training(lr_peak=rates, recipe=recipe)))
        return {trial.cell.strategy: (trial.trial_id, trial.recipe.slip_views) for trial in plan.trials}

    plain, original = (recipes(recipe, "ViT-B-32") for recipe in (Recipe(), Recipe(slip_views="original")))
    assert original["clip"] == plain["clip"]
    assert (plain["slip"][1], original["slip"][1]) == ("small", "original")
    assert original["slip"][0] != plain["slip"][0]
    assert recipes(Recipe(slip_views="original"), LADDER[0]) == recipes(Recipe(), LADDER[0])


def test_settings_that_ids_leave_out_keep_their_values() -> None:
    # If a default changes, `_VERSION` of `budgets.planning.planned_trial` must rise: otherwise ids stay, and
    # trials that ran with the former default count as trials of the new one.
    assert dataclasses.asdict(Recipe()) == {
        "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6, "warmup": 0.1, "warmup_samples": None,
        "gradient_clip": 1.0, "precision": "auto", "optimizer": "adamw", "schedule": "cosine",
        "cooldown": 0.2, "accumulation": 1, "ema": 0.0, "unmasked_tail": 0.0, "embedding_decay": True,
        "randaugment": 1.0, "slip_views": "small", "gradient_checkpointing": False, "compile": False,
        "resized_images": None, "diverged_after": 0.5, "cooled": True,
    }  # fmt: skip
