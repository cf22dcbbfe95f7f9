"""FLOPs in closed form and as torch counts them, compared with published numbers."""

import csv
from collections.abc import Mapping
from typing import Any

import open_clip
import pytest

from budgets.cost.architecture import Architecture, load_architecture
from budgets.cost.flops import count_parameters, image_forward_macs, text_forward_macs
from budgets.cost.strategy import find_strategy
from runners.models.count_by_torch import count_model
from tests.published import DATA

PROFILE = DATA / "openclip_model_profile.csv"

# Rows of the profile whose image or text tower has no closed form here, by reason.
NO_IMAGE_FORM: Mapping[str, tuple[str, ...]] = {
    "timm's ViT with attention pooling (SigLIP)": (
        "ViT-B-16-SigLIP",
        "ViT-B-16-SigLIP-256",
        "ViT-B-16-SigLIP-i18n-256",
        "ViT-B-16-SigLIP-384",
        "ViT-B-16-SigLIP-512",
        "ViT-L-16-SigLIP-256",
        "ViT-L-16-SigLIP-384",
        "ViT-SO400M-14-SigLIP",
        "ViT-SO400M-14-SigLIP-384",
        "nllb-clip-base-siglip",
        "nllb-clip-large-siglip",
    ),
    "timm's EVA, a ViT with rotary positions and (02) gated MLPs": (
        "EVA01-g-14",
        "EVA01-g-14-plus",
        "EVA02-B-16",
        "EVA02-L-14",
        "EVA02-L-14-336",
        "EVA02-E-14",
        "EVA02-E-14-plus",
    ),
    "timm's ViT with relative positions or without a class token": (
        "vit_relpos_medium_patch16_cls_224",
        "vit_medium_patch16_gap_256",
    ),
    "timm's ConvNeXt and Swin": (
        "convnext_tiny",
        "convnext_small",
        "convnext_base",
        "swin_base_patch4_window7_224",
        "convnext_base_w",
        "convnext_base_w_320",
        "convnext_large",
        "convnext_large_d",
        "convnext_large_d_320",
        "convnext_xlarge",
        "convnext_xxlarge",
        "convnext_xxlarge_320",
    ),
    "CoCa's attentional pooler over 256 queries": ("coca_ViT-B-32", "coca_ViT-L-14"),
}
NO_TEXT_FORM: Mapping[str, tuple[str, ...]] = {
    "a text tower of Hugging Face transformers": (
        "mt5-base-ViT-B-32",
        "mt5-xl-ViT-H-14",
        "roberta-ViT-B-32",
        "xlm-roberta-base-ViT-B-32",
        "xlm-roberta-large-ViT-H-14",
        "coca_roberta-ViT-B-32",
        "nllb-clip-base",
        "nllb-clip-base-siglip",
        "nllb-clip-large",
        "nllb-clip-large-siglip",
    ),
    "CoCa's class token behind the text": ("coca_ViT-B-32", "coca_ViT-L-14", "coca_base"),
}
# What open_clip's configs say beyond a tower's cost: tokenisers, and outputs for CoCa's decoder.
COSTS_NOTHING = ("hf_tokenizer_name", "tokenizer_kwargs", "output_tokens")


def profile() -> Mapping[str, Mapping[str, str]]:
    with PROFILE.open(encoding="utf-8", newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def tower(model: str, part: str) -> Architecture:
    """Return a model with one tower from open_clip's own config and the other with default values."""
    config = open_clip.get_model_config(model)
    towers: dict[str, dict[str, Any]] = {"vision_cfg": {}, "text_cfg": {}}
    towers[part] = {key: value for key, value in config[part].items() if key not in COSTS_NOTHING}
    return Architecture(name=model, config={"embed_dim": config["embed_dim"], **towers})


def without_form(reasons: Mapping[str, tuple[str, ...]]) -> set[str]:
    return {model for models in reasons.values() for model in models}


@pytest.mark.parametrize(
    ("part", "column", "excepted", "number"),
    [("vision_cfg", "image", NO_IMAGE_FORM, 51), ("text_cfg", "text", NO_TEXT_FORM, 72)],
)
def test_towers_cost_what_open_clip_publishes(
    part: str, column: str, excepted: Mapping[str, tuple[str, ...]], number: int
) -> None:
    covered = {model: row for model, row in profile().items() if model not in without_form(excepted)}
    forward_macs = image_forward_macs if column == "image" else text_forward_macs

    for model, row in covered.items():
        architecture = tower(model, part)
        gflops, millions = (float(row[f"{column}_{what}"]) for what in ("gflops", "mparams"))
        assert 2e-9 * forward_macs(architecture) == pytest.approx(gflops, rel=0.005), model
        parameters = getattr(count_parameters(architecture, find_strategy("clip")), column)
        assert parameters / 1e6 == pytest.approx(millions, rel=0.005), model
    assert len(covered) == number


@pytest.mark.parametrize(("part", "reasons"), [("vision_cfg", NO_IMAGE_FORM), ("text_cfg", NO_TEXT_FORM)])
def test_tower_without_closed_form_is_counted_by_torch(
    part: str, reasons: Mapping[str, tuple[str, ...]]
) -> None:
    rows = profile()

    for model in without_form(reasons):
        assert model in rows
        assert tower(model, part).why_counted.startswith(part), model


@pytest.mark.slow
@pytest.mark.parametrize("model", NO_IMAGE_FORM["timm's ConvNeXt and Swin"])
def test_counted_towers_cost_what_open_clip_publishes(model: str) -> None:
    row, image = profile()[model], count_model(tower(model, "vision_cfg")).image_tower(1.0)

    whole = image.trunk + image.projection
    assert 2e-9 * whole.macs == pytest.approx(float(row["image_gflops"]), rel=0.005)
    assert whole.parameters / 1e6 == pytest.approx(float(row["image_mparams"]), rel=0.005)


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [("paper-RN50", 4.1), ("paper-ConvNeXt-T", 4.5), ("paper-Swin-T", 4.5), ("paper-Mixer-B-32", 3.2)],
)
def test_the_papers_towers_of_similar_flops_cost_what_their_own_papers_say(name: str, gmacs: float) -> None:
    # CLIP adds a longer stem and attention pooling to the ResNet-50 of He et al. 2016: half as much again.
    allowed = 0.5 if name == "paper-RN50" else 0.02

    assert 1e-9 * image_forward_macs(load_architecture(name)) == pytest.approx(gmacs, rel=allowed)
