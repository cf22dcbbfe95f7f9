"""A strategy that states other FLOPs than torch counts, or whose step fails, is refused before its trials."""

import pytest
from torch import Tensor

from budgets.cost.architecture import Architecture, load_architecture
from budgets.cost.layers import TowerCost
from budgets.cost.strategy import Model, Strategy, find_strategy, strategies
from runners.strategies.clip import Clip
from runners.training.check_strategy import check_strategy
from tests.runners.tiny import batch_of

SMALL = load_architecture("mini-ViT-XXS-8")


class Costly(Clip):
    def head_cost(self, _architecture: Architecture) -> TowerCost:
        return TowerCost(macs=100_000)


class OneMatrix(Clip):
    def similarity_macs(self, architecture: Architecture, batch_size: int) -> int:
        return super().similarity_macs(architecture, batch_size) // 2


class Failing(Clip):
    def loss(self, model: Model, *features: Tensor) -> Tensor:
        return super().loss(model, *features, features[0])


class NotANumber(Clip):
    def loss(self, model: Model, *features: Tensor) -> Tensor:
        return super().loss(model, *features) * float("nan")


class OneTower(Clip):
    def loss(self, model: Model, *features: Tensor) -> Tensor:
        image, text = features
        return super().loss(model, image.detach(), text)


@pytest.mark.parametrize("name", strategies())
def test_shipped_strategies_pass(name: str) -> None:
    strategy = find_strategy(name)
    check_strategy(strategy, SMALL, lambda tokens: batch_of(strategy, tokens, tokens).columns)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Clip(name="wide", image_views=2), "wide: torch counts .* in the towers .*, but its views and"),
        (Costly(name="costly"), "costly: torch counts .* in the towers .*, but its views and head_cost"),
        (OneMatrix(name="one"), "one: torch counts 32,768 .* .* but similarity_macs state 16,384"),
        (Failing(name="failing"), r"check_strategy.py, line \d+: failing fails: ValueError: too many values"),
        (NotANumber(name="nan"), r"nan fails: ValueError: its loss must be a finite number, found nan"),
        (OneTower(name="text"), r"ValueError: the gradient of its loss does not reach the image tower"),
    ],
    ids=lambda value: value.name if isinstance(value, Strategy) else "",
)  # fmt: skip
def test_wrong_costs_and_failing_steps_are_refused(strategy: Strategy, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_strategy(strategy, SMALL)
