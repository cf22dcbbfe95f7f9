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


COLLAPSED, STALLED = 1e-4, 0.05  # noise of a step's loss
CHANCES = {16: math.log(16), 64: math.log(64), 4096: math.log(4096)}


def noisy(losses: Tensor, noise: float, seed: int = 0) -> Tensor:
    """Add normal noise; of a slow start it is larger in small batches."""
    return losses + noise * torch.randn(len(losses), generator=torch.Generator().manual_seed(seed))


def test_collapsed_features_end_a_run_after_the_declared_share() -> None:
    learning = torch.linspace(4.1, 3.0, 300)
    collapsed = torch.cat(
        [learning, noisy(torch.full((700,), math.log(64)), COLLAPSED).clamp(min=math.log(64))]
    )

    check(learning, chance=math.log(64), recipe=Recipe())
    with pytest.raises(
        Diverged, match=r"mean 4\.159, then 4\.159 in the halves of steps 300 to 500 of"
    ) as ended:
        check(collapsed, chance=math.log(64), recipe=Recipe(diverged_after=0.2))
    assert ended.value.steps == 500
    with pytest.raises(Diverged, match="of steps 300 to 800 of 1000"):
        check(collapsed, chance=math.log(64), recipe=Recipe())
    check(collapsed, chance=math.log(64), recipe=Recipe(diverged_after=None))


def test_warmup_and_short_runs_are_not_checked_for_chance() -> None:
    at_chance = torch.full((130,), math.log(64))

    check(at_chance[:99], chance=math.log(64), recipe=Recipe())
    check(at_chance, chance=math.log(64), recipe=Recipe(warmup_samples=64 * 31))
    with pytest.raises(Diverged, match="steps 25 to 125 of 130"):
        check(at_chance, chance=math.log(64), recipe=Recipe())


@pytest.mark.parametrize("batch", CHANCES)
@pytest.mark.parametrize("seed", range(10))
def test_a_loss_at_chance_or_above_ends_a_run_of_any_batch(batch: int, seed: int) -> None:
    chance = CHANCES[batch]
    settling = chance + torch.exp(-torch.arange(1000) / 25)  # features fall into collapse
    unstable = torch.full((1000,), 1.02 * chance)
    for losses, noise in ((settling, COLLAPSED), (unstable, STALLED)):
        with pytest.raises(Diverged) as ended:
            check(noisy(losses, noise, seed).clamp(min=chance), chance=chance, recipe=Recipe())
        # 600 is the first check whose stretch is past the warm-up; noise may look like a fall.
        assert ended.value.steps in ({600} if noise == COLLAPSED else range(600, 701))


@pytest.mark.parametrize("batch", CHANCES)
@pytest.mark.parametrize("seed", range(10))
def test_a_plateau_that_later_learns_is_not_ended(batch: int, seed: int) -> None:
    chance, steps = CHANCES[batch], torch.arange(1000)
    noise = STALLED * (16 / batch) ** 0.5
    slow = chance * (1.0005 - 5e-6 * steps)  # 0.25 % of chance in a stretch
    # As SigLIP: above chance for half of the run, by its bias, then at once below.
    late = chance * (1 + 0.008 * torch.exp(-steps / 300) - 1e-4 * (steps - 500).clamp(min=0))
    starting = torch.full((1000,), chance) - 0.02 * chance * (steps >= 580)
    for losses in (slow, late, starting):
        check(noisy(losses, noise, seed), chance=chance, recipe=Recipe())


def test_a_trial_of_a_trunk_is_not_ended_by_a_flat_loss_before_its_milestone() -> None:
    at_chance = torch.full((500,), math.log(64))
    recipe = Recipe(schedule="trunk", warmup_samples=64)

    with pytest.raises(Diverged) as ended:
        check(at_chance, chance=math.log(64), recipe=recipe)
    assert ended.value.steps == recipe.trunk_steps(500) + 25
