"""Models without closed form are counted by torch once, then planned and trained like others."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from budgets.cost.architecture import Architecture, load_architecture
from budgets.cost.counted import count_file, read_count
from budgets.cost.flops import count_parameters, sample_cost
from budgets.cost.layers import TowerCost
from budgets.cost.strategy import find_strategy
from budgets.machine_cache import CACHE
from runners.models import count_by_torch
from runners.models.count_by_torch import count_model, ensure_counted
from runners.models.model import build_model, keep_all_patches
from runners.trials.trial import run_trial
from tests.runners.tiny import tiny_job, tiny_pool, tiny_trial

pytestmark = pytest.mark.slow

SIGLIP: dict[str, Any] = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 32,
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_model_kwargs": {
            "img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2, "class_token": False
        },
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 16, "vocab_size": 1024, "width": 64, "heads": 2, "layers": 2,
        "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["mini-ViT-XS-8", "mini-RN"])
def test_counts_equal_closed_forms(name: str) -> None:
    architecture = load_architecture(name)

    counted = count_model(architecture)

    for kept in counted.trunk_macs:
        assert counted.image_tower(kept) == architecture.image_tower(kept)
    assert set(counted.trunk_macs) == ({1.0, 0.5, 0.25} if architecture.costs.drops_patches else {1.0})
    for tokens in range(1, 17):
        assert counted.text_tower(tokens) == architecture.costs.text_tower(tokens)
    facts = ("family", "image_size", "context_length", "vocab_size", "text_width", "batch_norm")
    same = {each: getattr(architecture.costs, each) for each in facts}
    assert {each: getattr(counted, each) for each in facts} == same


def test_counted_model_is_counted_once_and_then_read_unless_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = ensure_counted(Architecture(name="siglip", config=SIGLIP))
    with monkeypatch.context() as patched:
        patched.setattr(count_by_torch, "count_model", lambda _: pytest.fail("counted twice"))
        ensure_counted(Architecture(name="siglip", config=json.loads(json.dumps(SIGLIP))))

    found = read_count(SIGLIP)
    assert found is not None
    assert found.counted_by.startswith("torch ")
    assert (architecture.costs.family, found.image_size, found.batch_norm) == ("vit", 32, False)
    # 16 patches without class token: embedding, 2 blocks, then MAP: queries 1, keys and values 16, MLP of 4.
    blocks = 16 * 192 * 64 + 2 * (12 * 16 * 64**2 + 2 * 16**2 * 64)
    pooling = 64**2 + 16 * 2 * 64**2 + 2 * 16 * 64 + 64**2 + 8 * 64**2
    assert architecture.image_tower(1.0).trunk.macs == blocks + pooling
    assert architecture.image_tower(0.5).trunk.macs < 0.7 * (blocks + pooling)
    model = build_model(SIGLIP, find_strategy("siglip"))
    assert count_parameters(architecture, find_strategy("siglip")).total == sum(
        p.numel() for p in model.parameters()
    )
    count_file(SIGLIP).write_text("{")
    assert read_count(SIGLIP) is None
    assert ensure_counted(Architecture(name="siglip", config=SIGLIP)).costs.image_size == 32


@pytest.mark.parametrize(
    ("vision", "text", "message"),
    [
        ({"timm_model_name": "vitamin_smal_224"}, {},
         "unknown timm model .*did you mean 'vitamin_small_224'"),
        ({"timm_model_kwargs": {"depht": 2}}, {}, "torch cannot count it: .*unexpected keyword .*'depht'"),
        ({"timm_model_name": "mobilenetv3_small_050", "timm_model_kwargs": {}, "timm_proj": "linear"}, {},
         "cannot count it: .*image_size that the trunk takes, such as timm's own, 224; \"timm_proj\": \"\""),
        ({}, {"hf_model_name": "roberta-base"}, "torch cannot count it: .*transformers"),
        ({"timm_model_name": "convnext_tiny", "image_size": 16, "timm_pool": "", "timm_model_kwargs": {}}, {},
         "cannot count it: .*Kernel size can't be greater .*image_size that the trunk takes"),
        ({"timm_model_name": "mixer_s16_224", "timm_model_kwargs": {"embed_dim": 8}}, {},
         "cannot count it: .*multiple values for keyword argument 'embed_dim'.*other timm_model_kwargs"),
        ({"timm_model_name": "mixer_b32_224", "timm_pool": "", "timm_model_kwargs": {"img_size": 96}}, {},
         r"cannot count it: Input height \(32\) doesn't match model \(96\)"),
    ],
)  # fmt: skip
def test_model_that_open_clip_cannot_build_is_refused_with_its_reason(
    vision: dict[str, Any], text: dict[str, Any], message: str
) -> None:
    config = SIGLIP | {"vision_cfg": SIGLIP["vision_cfg"] | vision, "text_cfg": SIGLIP["text_cfg"] | text}

    with pytest.raises(ValueError, match=message):
        ensure_counted(Architecture(name="wrong", config=config))


@pytest.mark.parametrize(
    ("name", "size", "settings", "macs", "parameters"),
    [
        ("swin_tiny_patch4_window7_224", 64, {}, 424_544_640, 27_503_034),
        ("mixer_b32_224", 64, {}, 264_241_152, 59_109_168),
        (
            "convnext_tiny",
            64,
            {"patch_size": 2, "dims": [8, 16, 32, 64], "depths": [1, 1, 1, 1]},
            974_592,
            61_984,
        ),
        ("vit_tiny_patch16_224", 48, {}, 54_872_064, 5_488_512),
    ],
)
def test_timm_models_are_built_for_the_images_and_the_settings_of_the_config(
    name: str, size: int, settings: dict[str, Any], macs: int, parameters: int
) -> None:
    vision = {
        "timm_model_name": name, "image_size": size, "timm_proj": "linear", "timm_model_kwargs": settings
    }  # fmt: skip
    architecture = ensure_counted(Architecture(name="mine", config=SIGLIP | {"vision_cfg": vision}))

    assert architecture.image_tower(1.0).trunk == TowerCost(macs, parameters)
    assert architecture.costs.image_size == size
    with pytest.raises(ValueError, match=r"counted only at 0\.25, 0\.5, 1|needs a ViT"):
        architecture.image_tower(0.6)


def test_trial_of_a_counted_model_trains_as_costed(tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path / "pool")
    architecture, how = ensure_counted(Architecture(name="siglip", config=SIGLIP)), find_strategy("clipa")
    assert how.inapplicable(architecture) is None
    cost = sample_cost(architecture, how, batch_size=16).train_flops
    first = tiny_trial(strategy="clipa", steps=3)
    trial = replace(
        first,
        cell=replace(first.cell, architecture="siglip"),
        architecture_config=SIGLIP,
        train_flops_per_sample=cost,
    )

    row = run_trial(tiny_job(trial, pool, tmp_path / "trial")).row

    assert row["status"] == "finished"
    assert row["train_flops"] == 3 * 16 * cost


def test_the_unmasked_tail_switches_off_the_patch_dropout_of_a_timm_tower() -> None:
    model = build_model(SIGLIP, find_strategy("flip-50")).train()
    seen: list[int] = []
    model.visual.trunk.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    images = torch.zeros(2, 3, 32, 32)

    model.encode_image(images)
    keep_all_patches(model)
    model.encode_image(images)

    assert seen == [8, 16]


def test_texts_of_another_tokenizer_are_not_cut() -> None:
    plain = {**SIGLIP["text_cfg"], "no_causal_mask": False}
    named = {**plain, "hf_tokenizer_name": "any/tokenizer"}
    tokens = [
        set(count_model(Architecture(name="x", config={**SIGLIP, "text_cfg": each})).text_macs)
        for each in (plain, named)
    ]
    assert tokens == [{1, 8, 16}, {16}]
