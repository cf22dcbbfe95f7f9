"""Models start like open_clip's, with CLIP's temperature, and get inputs of their size."""

import copy
import math
from typing import Any

import open_clip
import pytest
import torch

from budgets.cost.architecture import catalogue, load_architecture
from budgets.cost.strategy import strategy
from budgets.recipe import Recipe
from runners.models.model import build_model, clamp_logit_scale
from runners.strategies.registry import build_strategy
from runners.training.learner import make_learner
from runners.training.train import to_float


@pytest.mark.parametrize("name", ["mini-ViT-XS-8", "mini-RN", "ViT-S-32"])
def test_model_has_open_clips_initial_weights(name: str) -> None:
    config: Any = copy.deepcopy(dict(load_architecture(name).config))

    torch.manual_seed(5)
    ours = build_model(config).state_dict()
    torch.manual_seed(5)
    theirs = open_clip.CLIP(**config).state_dict()

    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


def test_the_temperature_starts_at_that_of_clip_and_is_kept_between_1_and_100() -> None:
    model = build_model(load_architecture("mini-ViT-XXS-8").config)
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)

    for value, kept in ((9.0, 100.0), (-3.0, 1.0), (math.log(50), 50.0)):
        with torch.no_grad():
            model.logit_scale.fill_(value)
        clamp_logit_scale(model)
        assert model.logit_scale.exp().item() == pytest.approx(kept, rel=1e-4)


def test_pixels_are_scaled_to_minus_one_to_one() -> None:
    assert to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_every_architecture_reads_224_pixels_or_the_embedded_pools_32_and_16_or_77_tokens() -> None:
    shapes: dict[str, set[tuple[int, int, int]]] = {}
    for name in catalogue():
        architecture = load_architecture(name)
        kind = name.split("-")[0] if name.startswith(("mini", "paper")) else "open_clip"
        shapes.setdefault(kind, set()).add(
            (architecture.image_size, architecture.context_length, architecture.vocab_size)
        )

    assert shapes == {
        "mini": {(32, 16, 1024)},
        "paper": {(224, 16, 32_000)},
        "open_clip": {(224, 77, 49_408)},
    }


@pytest.mark.parametrize(("name", "tokens"), [("paper-ViT-Ti-16", 16), ("ViT-Ti-16", 77)])
def test_a_step_at_224_pixels_trains_both_towers(name: str, tokens: int) -> None:
    architecture = load_architecture(name)
    model, how = build_model(architecture.config), build_strategy(strategy("clip"), architecture)
    texts = torch.ones(2, tokens, dtype=torch.long)
    texts[0, 3], texts[1, -1] = 9, 9  # where they end

    how.loss(model, *how.features(model, torch.rand(2, 3, 224, 224) * 2 - 1, texts)).backward()

    assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
    # The last text reaches to the end of the context.
    assert model.positional_embedding.grad.norm(dim=1).min() > 0


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, as it loads its compiler
def test_compiled_model_keeps_weight_names_and_outputs() -> None:
    architecture = load_architecture("mini-ViT-XXS-8")
    how = build_strategy(strategy("clip"), architecture)
    torch.manual_seed(0)
    model = build_model(architecture.config)
    images, texts = torch.rand(2, 3, 32, 32), torch.tensor([[1, 9, *[0] * 14], [1, 2, 9, *[0] * 13]])
    names, plain = list(model.state_dict()), how.features(model, images, texts)

    make_learner(model, how, recipe=Recipe(compile=True), lr_peak=1e-3, steps=1)

    assert list(model.state_dict()) == names
    with torch.compiler.set_stance("force_eager"):  # compiling takes minutes
        compiled = how.features(model, images, texts)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(plain, compiled, strict=True))
    compiled_parts = [each for each in model.modules() if getattr(each, "_compiled_call_impl", None)]
    assert [type(each).__name__ for each in compiled_parts] == ["VisionTransformer", "Transformer"]
