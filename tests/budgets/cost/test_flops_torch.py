"""Closed-form FLOPs and shipped counts equal torch's count of open_clip's models exactly."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from itertools import product
from typing import Any

import open_clip
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from budgets.cost.architecture import Architecture, catalogue, load_architecture
from budgets.cost.counted import SHIPPED
from budgets.cost.flops import count_parameters, image_forward_macs, sample_cost, text_forward_macs
from budgets.cost.strategy import COUNTED_BATCH, find_strategy, strategies
from docs.build.counts import counted_entries
from runners.models.count_by_torch import count_model
from runners.models.model import build_model
from runners.training.check_strategy import count_strategy
from tests.runners.tiny import made_up_widths

# Augmentation has no counted cost: each of these represents the strategies of equal cost (test_strategy.py).
DISTINCT = ("clip", "flip-50", "flip-25", "slip", "siglip", "clipa", "clipa-resize")
# What a strategy adds depends on the kind of image tower and on its number of patches; other widths, and
# transformers of full depth, are counted in evaluation alone.
LARGER = (
    "ViT-Ti-16", "ViT-S-32", "ViT-L-14", "RN50", "Swin-T", "Mixer-B-32", "convnext_tiny",
)  # fmt: skip
PAIRS = 2


@pytest.fixture(autouse=True)
def on_no_device() -> Iterator[None]:
    """Count on the meta device: shapes of all products without the computation."""
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH):
        yield


@cache
def shallow(name: str) -> Architecture:
    """Return an architecture whose transformers have two blocks; one that torch counted unchanged."""
    architecture = load_architecture(name)
    if not architecture.closed_form:
        return architecture
    changed = {}
    for tower in ("vision_cfg", "text_cfg"):
        settings = architecture.config[tower]
        changed[tower] = settings | ({"layers": 2} if isinstance(settings.get("layers"), int) else {})
    return replace(architecture, config={**architecture.config, **changed})


@cache
def build(architecture: Architecture, strategy_name: str) -> tuple[open_clip.CLIP, nn.Module | None]:
    """Build model and head as a trial does."""
    strategy = find_strategy(strategy_name)
    return build_model(architecture.config, strategy).train(), strategy.head(architecture)


def grid() -> list[Any]:
    """Return architectures and strategies: all strategies in the small ladder, distinct ones in others."""
    ladder = [(name, kind) for name in catalogue() if name.startswith("mini-") for kind in strategies()]
    return [
        pytest.param(name, kind, id=f"{name}-{kind}")
        for name, kind in [*ladder, *product(LARGER, DISTINCT)]
        if find_strategy(kind).inapplicable(load_architecture(name)) is None
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "strategy_name"), grid())
def test_a_training_sample_costs_what_torch_counts(name: str, strategy_name: str) -> None:
    architecture, strategy = shallow(name), find_strategy(strategy_name)

    with torch.device("cpu"):  # of the views; it counts on the meta device itself
        towers, loss, parameters = count_strategy(strategy, architecture, made_up_widths(strategy))

    stated = sample_cost(architecture, strategy, batch_size=COUNTED_BATCH)
    assert loss == stated.similarity_macs
    assert towers + loss == stated.forward_macs
    assert parameters == strategy.head_cost(architecture).parameters
    assert stated.train_flops == 3 * 2 * (towers + loss)


@pytest.mark.slow
@pytest.mark.parametrize("name", catalogue())
def test_an_evaluated_image_and_text_cost_what_torch_counts_and_the_parameters_are_the_models(
    name: str,
) -> None:
    architecture = load_architecture(name)
    model, _ = build(architecture, "clip")

    with torch.no_grad(), FlopCounterMode(display=False) as of_images:
        model.encode_image(
            torch.zeros(PAIRS, 3, architecture.costs.image_size, architecture.costs.image_size)
        )
    with torch.no_grad(), FlopCounterMode(display=False) as of_texts:
        model.encode_text(torch.zeros(PAIRS, architecture.costs.context_length, dtype=torch.long))

    assert of_images.get_total_flops() == 2 * PAIRS * image_forward_macs(architecture)
    assert of_texts.get_total_flops() == 2 * PAIRS * text_forward_macs(architecture)
    counted = count_parameters(architecture, find_strategy("clip"))
    assert counted.image == sum(weight.numel() for weight in model.visual.parameters())
    assert counted.total == sum(weight.numel() for weight in model.parameters())


@pytest.mark.slow
def test_shipped_counts_are_torchs_today() -> None:
    shipped = json.loads(SHIPPED.read_text(encoding="utf-8"))
    with torch.device("cpu"):
        counts = {entry.name: count_model(entry) for entry in counted_entries()}

    counted = json.loads(json.dumps({name: asdict(count) for name, count in counts.items()}))

    for count in (*shipped.values(), *counted.values()):
        assert count.pop("counted_by").startswith("torch ")
    assert shipped == counted, "run `python -m docs.build.counts`"


@pytest.mark.parametrize("name", ["mini-ViT-XS-8", "mini-ConvNeXt", "mini-RN", "ViT-B-32"])
@pytest.mark.parametrize("strategy_name", ["slip", "siglip"])
def test_strategys_own_parameters_are_counted(name: str, strategy_name: str) -> None:
    architecture = load_architecture(name)
    model, head = build(architecture, strategy_name)

    trained = [*model.parameters(), *(() if head is None else head.parameters())]

    counted = count_parameters(architecture, find_strategy(strategy_name))
    assert counted.total == sum(weight.numel() for weight in trained)


@pytest.mark.parametrize("name", ["mini-ViT-XS-8", "mini-RN"])
def test_backward_pass_costs_two_forward_passes_minus_the_pixel_gradient(name: str) -> None:
    architecture = load_architecture(name)
    model, _ = build(architecture, "clip")
    images = torch.zeros(PAIRS, 3, 32, 32)
    texts = torch.zeros(PAIRS, 16, dtype=torch.long)

    with FlopCounterMode(display=False) as counter:
        image, text = model.encode_image(images), model.encode_text(texts)
        (image.sum() + text.sum()).backward()

    # torch needs no gradient of the images, so that the first layer has one product less: 1.3 to 6 % here.
    forward = 2 * PAIRS * (image_forward_macs(architecture) + text_forward_macs(architecture))
    assert 2.9 * forward < counter.get_total_flops() <= 3 * forward
