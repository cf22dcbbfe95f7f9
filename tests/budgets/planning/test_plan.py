"""Plans: every cell is a trial or left out; reproducible, costed exactly, and warned about where weak."""

import dataclasses

import pytest

from analysis.laws import best_size, holdout
from budgets.cost.architecture import load_architecture
from budgets.cost.flops import sample_cost
from budgets.cost.strategy import find_strategy
from budgets.declaration.recipe import Recipe
from budgets.declaration.rules import TrainingRule
from budgets.declaration.sections import GridBlock, Training
from budgets.planning.facts import EvaluationFacts, PoolFacts
from budgets.planning.planner import make_plan
from budgets.planning.sanity import MIN_POINTS, MIN_SIZES
from tests.budgets.plans import GFLOP, LADDER, declare, plan_of


def test_the_same_declaration_gives_the_same_plan() -> None:
    assert plan_of(declare()) == plan_of(declare())


def test_cell_declared_in_two_blocks_runs_once_with_seeds_of_both() -> None:
    block = GridBlock(architectures=LADDER[:1], levels=(100 * GFLOP,))
    plan = plan_of(declare(block, dataclasses.replace(block, seeds=(0, 1))))

    assert [trial.seed for trial in plan.trials] == [0, 1]


def test_level_is_spent_in_whole_batches() -> None:
    trial = plan_of(declare()).trials[0]
    cost = sample_cost(load_architecture(LADDER[0]), find_strategy("clip"), batch_size=64).train_flops

    assert trial.samples_seen == 100 * GFLOP // cost // 64 * 64
    assert trial.train_flops <= 100 * GFLOP < trial.train_flops + 64 * cost


def test_levels_that_buy_the_same_steps_run_once() -> None:
    levels = (60 * GFLOP, 60_010 * 10**6, 60_020 * 10**6)
    block = GridBlock(architectures=LADDER[:1])
    plan = plan_of(declare(block, levels=levels, seeds=(0, 1)))

    assert [(trial.cell.level_flops, trial.seed) for trial in plan.trials] == [(levels[0], 0), (levels[0], 1)]
    assert [(item.cell.level_flops, item.reason) for item in plan.left_out] == [
        (level, "the same 133 steps as at 60 GFLOP") for level in levels[1:]
    ]
    (nearer,) = plan_of(declare(block, levels=(60 * GFLOP, 60 * GFLOP + 1), seeds=(0,))).left_out
    assert nearer.reason.endswith("60 GFLOP (60,000,000,000 FLOP)")
    # A rule that changes the upper level makes it a trial of its own.
    rule = TrainingRule(levels=levels[2:], lr_peak=2e-3)
    training = Training(lr_peak={LADDER[0]: 1e-3}, rules=(rule,))
    ruled = plan_of(declare(block, levels=levels, training=training))
    assert [trial.lr_peak for trial in ruled.trials] == [1e-3, 2e-3]


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


def test_an_unmasked_tail_is_costed_exactly_and_stays_within_the_level() -> None:
    training = Training(lr_peak={LADDER[0]: 1e-3}, recipe=Recipe(unmasked_tail=0.1))
    block = GridBlock(architectures=LADDER[:1], strategies=("clip", "flip-50", "clipa"))
    plan = plan_of(declare(block, training=training))
    plain, flip, clipa = (trial for trial in plan.trials if trial.cell.level_flops == 300 * GFLOP)
    architecture = load_architecture(LADDER[0])

    def cost(name: str, batch: int) -> int:
        return sample_cost(architecture, find_strategy(name), batch_size=batch).train_flops

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


def test_two_resolutions_have_their_own_tail_and_each_its_own_cost() -> None:
    block = GridBlock(architectures=LADDER[:1], strategies=("clipa-resize",))
    trial = plan_of(declare(block)).trials[-1]
    architecture, how = load_architecture(LADDER[0]), find_strategy("clipa-resize")
    small, full = (
        sample_cost(architecture, kind, batch_size=64).train_flops for kind in (how, find_strategy("clip"))
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


def test_declaration_without_feasible_cell_raises_with_reasons() -> None:
    with pytest.raises(ValueError, match=r"no cell of the grid can be run:\n  mini-ViT-XXS-8 clip on .*64"):
        plan_of(declare(GridBlock(architectures=LADDER[:1], sizes=(32,))))


def test_evaluations_on_the_way_are_costed_beside_the_budget_and_keep_the_ids() -> None:
    facts = PoolFacts(name="pool", pairs=10_000, scored=True)
    sets = EvaluationFacts(names=("held-out",), images=100, texts=20)
    plain, often = (
        make_plan(declare(evaluate_at=shares), pool=facts, evaluation=sets) for shares in ((), (0.25, 0.5))
    )

    assert often.evaluation_flops == 3 * plain.evaluation_flops > 0
    assert often.train_flops == plain.train_flops
    assert [trial.trial_id for trial in often.trials] == [trial.trial_id for trial in plain.trials]
    assert often.trials[0].flops_per_evaluation == plain.trials[0].evaluation_flops


def test_paper_preset_scales_flips_rate_and_unmasks_its_end_and_defaults_keep_the_ids() -> None:
    block = GridBlock(architectures=LADDER[:1], strategies=("clip", "flip-25", "clipa"))
    rates = {LADDER[0]: 1e-3}
    recipe = Recipe(unmasked_tail=None, embedding_decay=False)
    preset = plan_of(declare(block, training=Training(lr_peak=rates, lr_rule="linear", recipe=recipe)))
    root = plan_of(declare(block, training=Training(lr_peak=rates, lr_rule="sqrt")))
    plain = plan_of(declare(block, training=Training(lr_peak=rates)))

    of = {trial.cell.strategy: trial for trial in preset.trials}
    rate_of = {name: trial.lr_peak for name, trial in of.items()}
    assert rate_of == {"clip": 1e-3, "flip-25": 4e-3, "clipa": 1e-3}
    assert {t.lr_peak for t in root.trials if t.cell.strategy == "flip-25"} == {2e-3}
    assert {t.lr_peak for t in plain.trials} == {1e-3}
    tails = {name: trial.recipe.unmasked_tail for name, trial in of.items()}
    assert tails == {"clip": 0, "flip-25": 0.01, "clipa": pytest.approx(0.0566, abs=1e-4)}
    masked = of["flip-25"], of["clipa"]
    assert all(trial.tail_flops_per_sample > trial.train_flops_per_sample for trial in masked)
    timms = plan_of(declare(block, training=Training(lr_peak=rates, recipe=Recipe(randaugment=0.5))))
    assert [t.trial_id for t in timms.trials] == [t.trial_id for t in plain.trials]


LEVELS = (100 * GFLOP, 300 * GFLOP, 900 * GFLOP)


def test_minimum_points_equal_those_of_the_analysis() -> None:
    assert vars(best_size)["_SIZES"] == MIN_SIZES
    assert holdout.FEWEST + 1 == MIN_POINTS, "levels below, and one to forecast"


def test_three_sizes_three_levels_and_two_seeds_need_no_warning() -> None:
    assert plan_of(declare(levels=LEVELS, seeds=(0, 1))).warnings == ()


_TWO = GridBlock(architectures=(*LADDER[:2], "mini-ConvNeXt"))
_ALONG_SIZES = GridBlock(architectures=LADDER, sizes=(5_000, 10_000), regime="one-epoch")


@pytest.mark.parametrize(
    ("blocks", "changes", "begins"),
    [
        ((), {"seeds": (0,)}, "every cell has one seed: no interval"),
        ((_TWO,), {}, "100 GFLOP, 300 GFLOP, 900 GFLOP: 2 model sizes per family on the same subset"),
        ((), {"levels": (30 * GFLOP, *LEVELS)}, "30 GFLOP: "),
        ((), {"levels": LEVELS[:2]}, "no fixed-compute curve has more than 2 levels: 3 are needed"),
        ((_ALONG_SIZES,), {"levels": ()}, "no one-epoch curve has more than 2 sizes: 3 are needed"),
    ],
    ids=["one seed", "two sizes of a family", "a size left out at one level", "two levels", "two subsets"],
)
def test_what_is_too_few_is_warned_about_where_it_is(
    blocks: tuple[GridBlock, ...], changes: dict[str, object], begins: str
) -> None:
    (warning,) = plan_of(declare(*blocks, **{"levels": LEVELS, "seeds": (0, 1), **changes})).warnings
    assert warning.startswith(begins)


def test_examples_write_large_subsets_shortly() -> None:
    two = GridBlock(architectures=LADDER[:2], sizes=(2_000_000,))
    declaration = declare(GridBlock(architectures=LADDER), two, levels=LEVELS, seeds=(0, 1))

    (warning,) = plan_of(declaration, pairs=5_000_000).warnings
    assert warning.endswith(": ViT clip 2M all")


def test_average_that_keeps_the_initial_weights_is_warned_about() -> None:
    training = Training(lr_peak=dict.fromkeys(LADDER, 1e-3), recipe=Recipe(ema=0.999))

    plan = plan_of(declare(levels=(60 * GFLOP, *LEVELS, 10_000 * GFLOP), seeds=(0, 1), training=training))

    (warning,) = [note for note in plan.warnings if "ema" in note]
    slow = [trial for trial in plan.trials if 0.999 ** (trial.samples_seen // trial.batch_size) > 0.05]
    assert warning.startswith(f"training.ema is too slow for {len(slow)} trials, ")
    assert 0 < len(slow) < len(plan.trials)
