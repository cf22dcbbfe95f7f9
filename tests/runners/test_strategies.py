"""Every training strategy does what `budgets` says that it costs, and learns."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from budgets.architecture import catalogue, load_architecture
from budgets.flops import sample_cost
from budgets.strategy import inapplicable, strategy
from runners.model import build_model, unprojected
from runners.strategies.build import TRAINABLE, build_strategy
from runners.strategies.slip import simclr_loss

BATCH = 8
LADDER = [name for name in catalogue() if name.startswith("mini-")]
PAIRS = [
    (architecture, name)
    for architecture in LADDER
    for name in TRAINABLE
    if inapplicable(strategy(name), load_architecture(architecture)) is None
]


@pytest.mark.parametrize(("architecture_name", "name"), PAIRS)
def test_a_strategys_forward_pass_costs_what_the_budget_says(architecture_name: str, name: str) -> None:
    architecture, cost = load_architecture(architecture_name), strategy(name)
    model = build_model(architecture.config, kept_fraction=cost.kept_fraction).train()
    how = build_strategy(cost, architecture)
    images = torch.randn(BATCH, 3, architecture.image_size, architecture.image_size)
    tokens = torch.randint(1, architecture.vocab_size - 1, (BATCH, architecture.context_length))

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        how.loss(model, images, tokens, torch.Generator().manual_seed(0))

    counted = counter.get_total_flops()
    planned = 2 * sample_cost(architecture, cost, batch_size=BATCH).forward_macs * BATCH
    assert counted == pytest.approx(planned, rel=0.005)


def test_every_strategy_that_applies_is_tried_on_a_vit_and_on_a_cnn() -> None:
    assert {name for architecture, name in PAIRS if architecture == "mini-ViT-XS-8"} == set(TRAINABLE)
    assert {name for architecture, name in PAIRS if architecture == "mini-ConvNeXt"} == {
        "clip",
        "clip-crop-flip",
        "slip",
    }


def test_a_strategy_that_is_only_planned_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="siglip can be planned, but not trained; trained are: clip, "):
        build_strategy(strategy("siglip"), load_architecture("mini-ViT-XS-8"))


@pytest.mark.parametrize("architecture_name", ["mini-ViT-XS-8", "mini-ConvNeXt", "mini-RN"])
def test_a_tower_keeps_its_projection_after_giving_unprojected_features(architecture_name: str) -> None:
    model = build_model(load_architecture(architecture_name).config).eval()
    images = torch.randn(2, 3, 32, 32)
    before = model.encode_image(images)

    with unprojected(model.visual):
        model.visual(images)

    assert torch.equal(model.encode_image(images), before)


def test_simclr_loss_is_least_when_both_views_of_an_image_agree() -> None:
    views = torch.eye(4)

    agreeing = simclr_loss(torch.cat([views, views]), temperature=0.1)
    crossed = simclr_loss(torch.cat([views, views.roll(1, 0)]), temperature=0.1)

    # Each view has its partner at cosine 1 and six others at cosine 0.
    expected = torch.log(1 + 6 * torch.exp(torch.tensor(-10.0)))
    assert agreeing.item() == pytest.approx(expected.item(), rel=1e-3)
    assert crossed.item() == pytest.approx(10 + expected.item(), rel=1e-3)
