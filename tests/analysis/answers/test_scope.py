"""A verdict names the number of configurations, those not run, and whether learning rates were tuned."""

from math import inf

import numpy as np
import pandas as pd
import pytest

from analysis.answers.best import best_at_budgets
from analysis.answers.scope import with_scope
from analysis.belief.cell_draws import CellDraws, cell_draws
from analysis.cells.table import tidy
from budgets.cost.architecture import Architecture, load_architecture
from tests.analysis.synthetic import trial_row

PAIRS = dict.fromkeys([("ConvNeXt", "clip"), ("ViT-S", "clip"), ("ViT-S", "flip-50")], inf)


def drawn(rows: list[dict[str, object]]) -> CellDraws:
    return cell_draws(tidy(pd.DataFrame(rows), metric="held-out/top1"))


def cross() -> list[dict[str, object]]:
    """Return a study where ConvNeXt and FLIP are best, but ConvNeXt with FLIP was not run."""
    cells = {("ConvNeXt", "clip"): 0.5, ("ViT-S", "clip"): 0.6, ("ViT-S", "flip-50"): 0.55}
    return [
        trial_row((1024, "all", "ViT-S", strategy), 2e11, seed, error + offset)
        | {"architecture": architecture, "trial": f"{architecture}-{strategy}-{seed}"}
        for (architecture, strategy), error in cells.items()
        for seed, offset in enumerate((-0.005, 0.0, 0.005))
    ]


def scoped(
    draws: CellDraws,
    *,
    plan: pd.DataFrame | None = None,
    left_out: pd.DataFrame | None = None,
    rates: dict[tuple[str, str], float] | None = None,
    own: dict[str, Architecture] | None = None,
) -> pd.DataFrame:
    none = pd.DataFrame()
    return with_scope(
        best_at_budgets(draws), draws, plan=none if plan is None else plan,
        left_out=none if left_out is None else left_out, rates=rates or {}, own=own or {},
    )  # fmt: skip


def test_an_untried_combination_of_the_best_parts_is_named() -> None:
    row = scoped(drawn(cross())).iloc[0]
    assert row["scope"] == (
        "best of 3 configurations; not run: ConvNeXt, FLIP (50 %), 1,024 pairs, all; "
        "learning rates were not tuned for each"
    )


def test_a_combination_that_was_left_out_of_the_plan_is_named_with_its_reason() -> None:
    left_out = pd.DataFrame([{
        "regime": "fixed-compute", "subset_size": 1024, "quality": "all", "architecture": "ConvNeXt",
        "strategy": "flip-50", "level_flops": 2e11, "reason": "patch dropout needs a ViT",
    }])  # fmt: skip
    (said,) = scoped(drawn(cross()), left_out=left_out)["not_run"]
    assert said == "ConvNeXt, FLIP (50 %), 1,024 pairs, all (patch dropout needs a ViT)"


def test_a_combination_that_cannot_be_trained_is_not_named() -> None:
    rows = [row | {"architecture": f"mini-{row['architecture']}"} for row in cross()]
    assert scoped(drawn(rows))["not_run"].tolist() == [""]
    rows = [row | {"strategy": str(row["strategy"]).replace("flip-50", "siglip")} for row in rows]
    assert scoped(drawn(rows))["not_run"].tolist() == ["mini-ConvNeXt, SigLIP, 1,024 pairs, all"]


def test_config_of_the_users_own_architecture_says_what_can_train_it() -> None:
    convnext = Architecture(name="ConvNeXt", config=load_architecture("mini-ConvNeXt").config, own=True)
    assert scoped(drawn(cross()), own={"ConvNeXt": convnext})["not_run"].tolist() == [""]
    vit = Architecture(name="ConvNeXt", config=load_architecture("ViT-B-32").config, own=True)
    assert "ConvNeXt" in scoped(drawn(cross()), own={"ConvNeXt": vit})["not_run"].iloc[0]


def test_planned_combinations_do_not_count_as_untried() -> None:
    plan = pd.DataFrame([{
        "regime": "fixed-compute", "subset_size": 1024, "quality": "all", "architecture": "ConvNeXt",
        "strategy": "flip-50", "budget": 2e11, "ended": False,
    }])  # fmt: skip
    assert scoped(drawn(cross()), plan=plan)["not_run"].tolist() == [""]


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        (PAIRS, "learning rates were tuned for each"),
        (PAIRS | {("ViT-S", "clip"): 4e11}, "learning rates were tuned for each"),
        (
            PAIRS | {("ViT-S", "clip"): 2e11},
            "each (at 200 GFLOP another rate was better for 1 of them)",
        ),
        ({("ViT-S", "clip"): inf}, "learning rates were tuned for 1 of 3 pairs of architecture and strategy"),
    ],
)
def test_the_scope_says_for_which_pairs_the_learning_rate_was_tuned(
    rates: dict[tuple[str, str], float], said: str
) -> None:
    assert scoped(drawn(cross()), rates=rates)["scope"].iloc[0].endswith(said)


def test_at_most_three_untried_combinations_are_named() -> None:
    smaller = [trial_row((256, "top20", "ViT-S", "clip"), 2e11, seed, 0.5) for seed in range(3)]
    rows = [row | {"held-out/top1": 0.5 - 0.01 * int(str(row["seed"]))} for row in cross() + smaller]
    (said,) = scoped(drawn(rows))["not_run"]
    assert said.count(", ") == 3 * 3
    assert said.endswith("; 1 more combination of parts that did well")


def test_in_one_epoch_the_number_of_pairs_is_not_a_choice() -> None:
    once = {"regime": "one-epoch", "level_flops": np.nan}
    rows = [
        row | once | {"trial": f"{row['trial']}-{size}", "subset_size": size, "samples_seen": size}
        for row in cross()
        for size in (1024, 4096)
    ]
    assert set(scoped(drawn(rows))["not_run"]) == {"ConvNeXt, FLIP (50 %), all"}
