"""A run that learns is never reported as diverged; one that learns nothing is."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from budgets.declaration.recipe import Recipe
from runners.training.train import Diverged, check_divergence
from tests.root import ROOT

SMALL = ROOT / "results" / "small-full"


def check(losses: Tensor, *, chance: float, recipe: Recipe, batch_size: int = 64) -> None:
    """Check a run every 25 steps and at its end."""
    for done in [*range(25, len(losses), 25), len(losses)]:
        check_divergence(
            losses, since=done - 25, done=done, batch_size=batch_size, chance=chance, recipe=recipe
        )


@pytest.mark.slow
def test_no_trial_of_the_small_study_is_flagged_as_diverged() -> None:
    results = pd.read_parquet(SMALL / "results.parquet")
    curves = dict(iter(pd.read_parquet(SMALL / "curves.parquet").groupby("trial")))
    assert len(results) == len(curves) == 156
    for name, batch, strategy in zip(
        results["trial"], results["batch_size"], results["strategy"], strict=True
    ):
        curve = curves[name].sort_values("step")
        losses = np.repeat(curve["loss"].to_numpy(), np.diff(curve["step"].to_numpy(), prepend=0))
        chance = math.log(batch) + (math.log(2 * batch - 1) if strategy == "slip" else 0)
        for share in (0.2, 0.5):
            recipe = Recipe(diverged_after=share)
            check(torch.from_numpy(losses), chance=chance, recipe=recipe, batch_size=batch)


def test_collapsed_features_end_a_run_after_the_declared_share() -> None:
    learning = torch.linspace(4.1, 3.0, 300)
    collapsed = torch.cat([learning, torch.full((700,), math.log(64))])

    check(learning, chance=math.log(64), recipe=Recipe())
    with pytest.raises(Diverged, match=r"mean 4\.159 over steps 300 to 500 of 1000") as ended:
        check(collapsed, chance=math.log(64), recipe=Recipe(diverged_after=0.2))
    assert ended.value.steps == 500
    with pytest.raises(Diverged, match="over steps 300 to 800 of 1000"):
        check(collapsed, chance=math.log(64), recipe=Recipe())
    check(collapsed, chance=math.log(64), recipe=Recipe(diverged_after=None))


def test_warmup_and_short_runs_are_not_checked_for_chance() -> None:
    at_chance = torch.full((130,), math.log(64))

    check(at_chance[:99], chance=math.log(64), recipe=Recipe())
    check(at_chance, chance=math.log(64), recipe=Recipe(warmup_samples=64 * 31))
    with pytest.raises(Diverged, match="steps 25 to 125 of 130"):
        check(at_chance, chance=math.log(64), recipe=Recipe())
