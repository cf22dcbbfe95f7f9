"""A strategy that states other FLOPs than torch counts, or whose step fails, is refused before its trials."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from budgets.cost.architecture import Architecture, load_architecture
from budgets.cost.flops import count_parameters, sample_cost
from budgets.cost.layers import TowerCost
from budgets.cost.strategy import Model, Module, Strategy, find_strategy, strategies
from runners.models.model import encode_text
from runners.strategies.clip import Clip
from runners.training.check_strategy import check_strategy
from tests.runners.tiny import made_up_widths

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
    assert check_strategy(strategy, SMALL, made_up_widths(strategy)) is None


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


class Wordy(Clip):
    """States no costs, and has a head, two passes of the text tower, and half of CLIP's loss."""

    def head(self, architecture: Architecture) -> nn.Module:
        return nn.Linear(architecture.embed_dim, 10, bias=False)

    def features(self, model: Model, head: Module | None, *views: Tensor) -> tuple[Tensor, ...]:
        assert head is not None
        image, text = super().features(model, head, *views)
        return image, text + encode_text(model, views[1]) + 0 * head(image).sum()

    def loss(self, _model: Model, *features: Tensor) -> Tensor:
        return cross_entropy(
            features[0] @ features[1].T, torch.arange(len(features[0]), device=features[0].device)
        )


def test_a_strategy_that_states_no_costs_has_those_that_torch_counts() -> None:
    plain, wordy = sample_cost(SMALL, Clip(name="clip"), batch_size=64), Wordy(name="wordy")
    count = check_strategy(wordy, SMALL)
    assert count is not None
    counted = replace(wordy, counted=(count,))

    cost = sample_cost(SMALL, counted, batch_size=64)
    assert cost.forward_macs - cost.similarity_macs == (
        plain.image_macs + 2 * plain.text_macs + 10 * SMALL.embed_dim
    )
    assert 2 * cost.similarity_macs == plain.similarity_macs
    assert count_parameters(SMALL, counted).head == count_parameters(SMALL, wordy).head + 10 * SMALL.embed_dim
