"""The closed forms against what torch counts when open_clip's models run: equal to the last product."""

import copy
import json
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.loss import SigLipLoss
from open_clip.timm_model import TimmModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from budgets.architecture import Architecture, catalogue, load_architecture
from budgets.flops import (
    image_forward_macs,
    parameters,
    sample_cost,
    slip_head_dims,
    text_forward_macs,
    text_tokens,
)
from budgets.strategy import STRATEGIES, Strategy, inapplicable, strategy

# Augmentation costs nothing that is counted: these stand for the strategies of equal cost (test_strategy.py).
DISTINCT = ("clip", "flip-50", "flip-25", "slip", "siglip", "clipa")
PAIRS = 2


@pytest.fixture(autouse=True)
def on_no_device() -> Iterator[None]:
    """Counts on the meta device: the shapes of every product without the work."""
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH):
        yield


def model_for(architecture: Architecture, cost: Strategy, device: str = "meta") -> open_clip.CLIP:
    """The model as a strategy trains it; strategies with the same model share one."""
    bias = -10.0 if cost.sigmoid_loss else None
    return build(architecture, cost.kept_fraction, text_tokens(architecture, cost), bias, device)


@cache
def build(
    architecture: Architecture, kept_fraction: float, tokens: int, logit_bias: float | None, device: str
) -> open_clip.CLIP:
    config: dict[str, Any] = copy.deepcopy(dict(architecture.config))
    vision = config["vision_cfg"]
    arguments = vision.pop("timm_model_kwargs", None)
    if arguments:
        vision["timm_model_name"] = registered(vision["timm_model_name"], arguments)
    if kept_fraction < 1:
        vision["patch_dropout"] = 1 - kept_fraction
    config["text_cfg"]["context_length"] = tokens
    with torch.device(device):
        return open_clip.CLIP(**config, init_logit_bias=logit_bias).train()


def registered(base: str, arguments: Mapping[str, Any]) -> str:
    """A name under which timm builds ``base`` with other arguments: open_clip passes on the name alone."""
    name = f"{base}_{sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:8]}"
    if not timm.is_model(name):

        def entrypoint(**given: object) -> nn.Module:
            return timm.create_model(base, **{**arguments, **given})

        entrypoint.__name__ = name
        timm.models.register_model(entrypoint)
    return name


def self_supervised_head(architecture: Architecture) -> nn.Module:
    inputs, hidden, outputs = slip_head_dims(architecture)
    layers = [nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
    layers += [nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)]
    return nn.Sequential(*layers)


def trunk_features(visual: nn.Module, images: Tensor) -> Tensor:
    """What the image tower's projection reads."""
    if isinstance(visual, TimmModel):
        features: Tensor = visual.trunk(images)
    elif isinstance(visual, open_clip.transformer.VisionTransformer):
        projection, visual.proj = visual.proj, None
        features = visual(images)
        visual.proj = projection
    else:
        features = visual(images)
    return features


def train_forward(
    model: open_clip.CLIP, head: nn.Module, cost: Strategy, images: Tensor, texts: Tensor
) -> None:
    """A training step's forward pass, loss included."""
    image = model.encode_image(images, normalize=True)
    text = model.encode_text(texts, normalize=True)
    if cost.sigmoid_loss:
        SigLipLoss()(image, text, model.logit_scale.exp(), model.logit_bias)
    else:
        open_clip.ClipLoss()(image, text, model.logit_scale.exp())
    if cost.self_supervised_head:
        views = head(trunk_features(model.visual, torch.cat([images, images])))
        assert (views @ views.T).shape == (2 * len(images), 2 * len(images))


def grid() -> list[Any]:
    return [
        pytest.param(name, each, id=f"{name}-{each}")
        for name in catalogue()
        for each in DISTINCT
        if inapplicable(strategy(each), load_architecture(name)) is None
    ]


@pytest.mark.parametrize(("name", "strategy_name"), grid())
def test_a_training_sample_costs_what_torch_counts(name: str, strategy_name: str) -> None:
    architecture, cost = load_architecture(name), STRATEGIES[strategy_name]
    batch = PAIRS * cost.batch_factor
    model, head = model_for(architecture, cost), self_supervised_head(architecture)
    images = torch.zeros(batch, 3, architecture.image_size, architecture.image_size)
    texts = torch.zeros(batch, text_tokens(architecture, cost), dtype=torch.long)

    with FlopCounterMode(display=False) as counter:
        train_forward(model, head, cost, images, texts)

    expected = sample_cost(architecture, cost, batch_size=batch)
    assert counter.get_total_flops() == 2 * batch * expected.forward_macs
    assert 3 * counter.get_total_flops() == batch * expected.train_flops


@pytest.mark.parametrize("name", catalogue())
def test_an_evaluated_image_and_text_cost_what_torch_counts_and_the_parameters_are_the_models(
    name: str,
) -> None:
    architecture = load_architecture(name)
    model = model_for(architecture, strategy("clip"))

    with FlopCounterMode(display=False) as of_images:
        model.encode_image(torch.zeros(PAIRS, 3, architecture.image_size, architecture.image_size))
    with FlopCounterMode(display=False) as of_texts:
        model.encode_text(torch.zeros(PAIRS, architecture.context_length, dtype=torch.long))

    assert of_images.get_total_flops() == 2 * PAIRS * image_forward_macs(architecture)
    assert of_texts.get_total_flops() == 2 * PAIRS * text_forward_macs(architecture)
    counted = parameters(architecture, strategy("clip"))
    assert counted.image == sum(each.numel() for each in model.visual.parameters())
    assert counted.total == sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("name", ["mini-ViT-XS-8", "mini-ConvNeXt", "mini-RN", "ViT-B-32"])
@pytest.mark.parametrize("strategy_name", ["slip", "siglip"])
def test_what_a_strategy_adds_is_counted_among_the_parameters(name: str, strategy_name: str) -> None:
    architecture, cost = load_architecture(name), strategy(strategy_name)
    model, head = model_for(architecture, cost), self_supervised_head(architecture)

    trained = [*model.parameters(), *(head.parameters() if cost.self_supervised_head else ())]

    assert parameters(architecture, cost).total == sum(each.numel() for each in trained)


def test_a_real_forward_pass_costs_what_one_without_a_device_does() -> None:
    architecture = load_architecture("mini-ViT-XS-8")
    cost = strategy("flip-50")

    with torch.device("cpu"), FlopCounterMode(display=False) as counter:
        model, head = model_for(architecture, cost, "cpu"), self_supervised_head(architecture)
        train_forward(model, head, cost, torch.zeros(4, 3, 32, 32), torch.zeros(4, 16, dtype=torch.long))

    assert counter.get_total_flops() == 2 * 4 * sample_cost(architecture, cost, batch_size=4).forward_macs


@pytest.mark.parametrize("name", ["mini-ViT-XS-8", "mini-RN"])
def test_a_backward_pass_costs_two_forward_ones_but_for_the_gradient_of_the_pixels(name: str) -> None:
    architecture, cost = load_architecture(name), strategy("clip")
    model = model_for(architecture, cost)
    images = torch.zeros(PAIRS, 3, 32, 32)
    texts = torch.zeros(PAIRS, 16, dtype=torch.long)

    with FlopCounterMode(display=False) as counter:
        image, text = model.encode_image(images), model.encode_text(texts)
        (image.sum() + text.sum()).backward()

    # torch needs no gradient of the images, so that the first layer has one product less: 1.3 to 6 % here.
    forward = 2 * PAIRS * (image_forward_macs(architecture) + text_forward_macs(architecture))
    assert 2.9 * forward < counter.get_total_flops() <= 3 * forward
