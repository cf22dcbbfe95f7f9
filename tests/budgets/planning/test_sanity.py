"""A plan warns of questions that its analysis will not be able to answer."""

import pytest

from analysis.laws import best_size, holdout
from budgets.declaration.recipe import Recipe
from budgets.declaration.sections import GridBlock, Training
from budgets.planning.sanity import MIN_POINTS, MIN_SIZES
from tests.budgets.plans import GFLOP, LADDER, declare, plan_of

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

    (warning,) = [each for each in plan.warnings if "ema" in each]
    slow = [each for each in plan.trials if 0.999 ** (each.samples_seen // each.batch_size) > 0.05]
    assert warning.startswith(f"training.ema is too slow for {len(slow)} trials, ")
    assert 0 < len(slow) < len(plan.trials)
