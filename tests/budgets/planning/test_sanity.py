"""A plan warns of questions that its analysis will not be able to answer."""

from analysis.laws import law_fit
from analysis.sizes import size_profile
from budgets.declaration.recipe import Recipe
from budgets.declaration.sections import GridBlock, Training
from budgets.planning.sanity import MIN_POINTS, MIN_SIZES
from tests.budgets.plans import GFLOP, LADDER, declare, plan_of

LEVELS = (100 * GFLOP, 300 * GFLOP, 900 * GFLOP)


def test_minimum_points_equal_those_of_the_analysis() -> None:
    assert vars(size_profile)["_SIZES"] == MIN_SIZES
    assert vars(law_fit)["_FEWEST_LEVELS"] == MIN_POINTS


def test_three_sizes_three_levels_and_two_seeds_need_no_warning() -> None:
    assert plan_of(declare(levels=LEVELS, seeds=(0, 1))).warnings == ()


def test_one_seed_per_cell_is_warned_about() -> None:
    assert plan_of(declare(levels=LEVELS)).warnings == (
        "every cell has one seed: no interval can be computed and no difference tested against chance",
    )


def test_two_sizes_of_a_family_are_too_few_to_bracket_an_optimum() -> None:
    block = GridBlock(architectures=(*LADDER[:2], "mini-ConvNeXt"))
    warnings = plan_of(declare(block, levels=LEVELS, seeds=(0, 1))).warnings

    assert len(warnings) == 1
    assert warnings[0].startswith(
        "100 GFLOP, 300 GFLOP, 900 GFLOP: 2 model sizes per family on the same subset"
    )


def test_size_left_out_at_one_level_is_warned_about_only_there() -> None:
    levels = (30 * GFLOP, *LEVELS)
    warnings = plan_of(declare(levels=levels, seeds=(0, 1))).warnings

    assert [text.split(": ")[0] for text in warnings] == ["30 GFLOP"]


def test_examples_write_large_subsets_shortly() -> None:
    two = GridBlock(architectures=LADDER[:2], sizes=(2_000_000,))
    declaration = declare(GridBlock(architectures=LADDER), two, levels=LEVELS, seeds=(0, 1))

    (warning,) = plan_of(declaration, pairs=5_000_000).warnings
    assert warning.endswith("too few to bracket the best: ViT clip 2M all")


def test_two_levels_are_too_few_for_a_curve() -> None:
    warnings = plan_of(declare(seeds=(0, 1))).warnings

    assert warnings == (
        "no fixed-compute curve has more than 2 levels: 3 are needed to fit a power law with a floor",
    )


def test_without_levels_a_curve_runs_along_the_sizes() -> None:
    block = GridBlock(architectures=LADDER, sizes=(5_000, 10_000), regime="one-epoch")
    warnings = plan_of(declare(block, levels=(), seeds=(0, 1))).warnings

    assert warnings == (
        "no one-epoch curve has more than 2 sizes: 3 are needed to fit a power law with a floor",
    )


def test_average_that_keeps_the_initial_weights_is_warned_about() -> None:
    training = Training(lr_peak=dict.fromkeys(LADDER, 1e-3), recipe=Recipe(ema=0.999))

    plan = plan_of(declare(levels=(60 * GFLOP, *LEVELS, 10_000 * GFLOP), seeds=(0, 1), training=training))

    (warning,) = [each for each in plan.warnings if "ema" in each]
    assert warning.startswith("training.ema is too slow for ")
    slow = [each for each in plan.trials if 0.999 ** (each.samples_seen // each.batch_size) > 0.05]
    assert f"too slow for {len(slow)} trials, whose averages are more than 5% initial weights" in warning
    assert 0 < len(slow) < len(plan.trials)
