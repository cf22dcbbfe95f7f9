"""Architectures of the catalogue and of a user's own files."""

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from budgets.cost.architecture import (
    Architecture,
    Uncounted,
    catalogue,
    family_of,
    load_architecture,
    open_clip_configs,
    own_architectures,
)
from budgets.cost.counted import shipped_count

VIT: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1},
}
CONVNEXT: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"timm_model_name": "convnext_tiny", "image_size": 64},
    "text_cfg": {},
}


def changed(config: dict[str, Any], section: str, **settings: object) -> dict[str, Any]:
    result = copy.deepcopy(config)
    result[section].update(settings)
    return result


def test_the_catalogue_has_the_field_s_architectures_the_paper_s_and_a_small_ladder() -> None:
    names = set(catalogue())

    field = {f"ViT-{size}" for size in ("Ti-16", "S-16", "S-32", "B-32", "B-16", "L-16", "L-14")}
    assert field | {"RN50", "RN101"} | {"convnext_tiny", "convnext_base", "Swin-T", "Mixer-B-32"} <= names
    vits = {f"paper-ViT-{size}" for size in ("Ti-16", "S-16", "B-32", "B-16", "L-16")}
    assert vits | {"paper-RN50", "paper-ConvNeXt-T", "paper-Swin-T", "paper-Mixer-B-32"} <= names
    assert {f"mini-ViT-{size}-8" for size in ("XXS", "XS", "S", "M")} | {"mini-ConvNeXt", "mini-RN"} <= names
    assert list(catalogue()) == sorted(catalogue())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mini-ViT-XS-8", "ViT"), ("mini-ConvNeXt", "ConvNeXt"), ("RN50", "ResNet"), ("Swin-T", "Swin"),
        ("ViT-B-16-SigLIP", "ViT"), ("MobileCLIP-S1", "MobileCLIP"), ("coca_ViT-B-32", "coca"),
        ("own_tower-3", "own"), ("400000000", "model"), ("1.4", "model"), ("20B", "model"),
    ],
)  # fmt: skip
def test_a_family_is_the_kind_of_tower_or_the_letters_that_a_name_begins_with(
    name: str, expected: str
) -> None:
    assert family_of(name, {}) == expected


def test_config_of_a_users_own_architecture_decides_its_family(tmp_path: Path) -> None:
    kinds = {"small-vit": "ViT-B-32", "base-vit": "ViT-B-16-SigLIP", "mine": "convnext_tiny"}
    for name, source in kinds.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(load_architecture(source).config))
    architectures = own_architectures(tmp_path)
    assert {name: family_of(name, architectures) for name in kinds} == {
        "small-vit": "ViT", "base-vit": "ViT", "mine": "ConvNeXt"
    }  # fmt: skip
    assert family_of("RN50", architectures) == "ResNet"
    assert own_architectures(None) == {}


def test_kind_of_tower_by_config_is_that_of_its_costs() -> None:
    for name in catalogue():
        architecture = load_architecture(name)
        assert architecture.family.lower() == architecture.costs.family
        assert architecture.costs.drops_patches == (architecture.family == "ViT")


def test_each_ladder_has_one_image_size_and_one_text_tower() -> None:
    for name in catalogue():
        architecture = load_architecture(name)
        sizes, text = architecture.costs, architecture.config["text_cfg"]
        inputs = sizes.image_size, sizes.context_length, sizes.vocab_size
        if name.startswith("paper-"):
            assert (*inputs, text["width"], text["layers"]) == (224, 16, 32_000, 768, 12)
        elif name.startswith("mini-"):
            assert (*inputs, architecture.embed_dim) == (32, 16, 1024, 64)
        else:
            assert inputs == (224, 77, 49_408)


def test_missing_settings_default_to_open_clips() -> None:
    architecture = Architecture(name="defaults", config={"embed_dim": 512, "vision_cfg": {}, "text_cfg": {}})

    sizes = architecture.costs
    assert (sizes.image_size, sizes.context_length, sizes.vocab_size) == (224, 77, 49_408)
    assert architecture.image_tower(1.0) == load_architecture("ViT-B-16").image_tower(1.0)


def test_users_file_takes_precedence_over_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(VIT))
    (tmp_path / "ViT-B-32.json").write_text(json.dumps(VIT))

    assert load_architecture("mine", tmp_path).costs.image_size == 32
    assert load_architecture("ViT-B-32", tmp_path).costs.image_size == 32
    assert load_architecture("ViT-B-16", tmp_path).costs.image_size == 224


def test_unknown_architecture_raises_with_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(VIT))

    with pytest.raises(ValueError, match="did you mean 'ViT-B-32'"):
        load_architecture("ViT-B32")
    with pytest.raises(ValueError, match="did you mean 'mine'"):
        load_architecture("mine2", tmp_path)
    with pytest.raises(ValueError, match="no folder of architectures at"):
        load_architecture("mine", tmp_path / "absent")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"embed_dim": 64,\n"vision_cfg": }', "line 2"),
        ("[]", "'embed_dim' is missing"),
        ('{"embed_dim": 64, "vision_cfg": {}, "text_cfg": 3}', "text_cfg: found 3; "),
    ],
)
def test_broken_file_raises_and_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "broken.json").write_text(text)

    with pytest.raises(ValueError, match=rf"broken\.json: .*{message}"):
        load_architecture("broken", tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(VIT, "vision_cfg", widht=64),
         r"unknown setting in vision_cfg .*'widht'; did you mean 'width'\?"),
        (changed(VIT, "vision_cfg", patch_dropout=0.5),
         "patch_dropout: patches are dropped by the strategies"),
        (changed(VIT, "vision_cfg", width=64.5),
         "vision_cfg.width: found 64.5; allowed: a whole number of at least 1"),
        (changed(VIT, "vision_cfg", layers=0), "vision_cfg.layers: found 0; allowed: a whole number"),
        (changed(VIT, "vision_cfg", no_ln_pre=1), "vision_cfg.no_ln_pre: found 1; allowed: true or false"),
        (changed(VIT, "vision_cfg", mlp_ratio=-4),
         "vision_cfg.mlp_ratio: found -4; allowed: a positive number"),
        (changed(VIT, "vision_cfg", mlp_ratio=math.inf),
         "vision_cfg.mlp_ratio: found inf; allowed: a positive number"),
        (changed(VIT, "vision_cfg", width=66, head_width=66, pos_embed_type="sin_cos_2d"),
         "sin_cos_2d needs a width that is a multiple of 4; found 66"),
        (changed(VIT, "vision_cfg", ls_init_value="1e-5"),
         "vision_cfg.ls_init_value: found '1e-5'; allowed: a positive number or 0"),
        (changed(VIT, "text_cfg", act_kwargs=["tanh"]),
         r"text_cfg.act_kwargs: found \['tanh'\]; allowed: a table of settings"),
        (VIT | {"init_logit_scale": -1}, "init_logit_scale: found -1; allowed: a positive number or 0"),
        (changed(VIT, "text_cfg", mlp_ratio=0.001), "text_cfg.mlp_ratio: 0.001 leaves the MLP no width"),
        (changed(VIT, "text_cfg", vocab_size=3), "text_cfg.vocab_size: found 3; allowed: at least 4"),
        (changed(VIT, "text_cfg", pool_type="eos"), "text_cfg.eos_id: found 2; texts end with token 99"),
        (changed(VIT, "vision_cfg", patch_size=64), "patch_size 64 is over image_size 32"),
        (changed(VIT, "vision_cfg", width=48), "width 48 cannot be split into heads of 64"),
        (changed(VIT, "text_cfg", heads=3), "text_cfg: width 32 cannot be split into 3 heads"),
        (changed(VIT, "vision_cfg", layers=[1, 1, 1], patch_size=None),
         "layers: .*a list of 4 whole numbers"),
        (changed(VIT, "vision_cfg", layers=[1, 1, 1, 1], patch_size=None, image_size=48), "multiple of 32"),
        (changed(CONVNEXT, "vision_cfg", timm_model_pretrained=True),
         "timm_model_pretrained: found True; allowed: F"),
        (changed(CONVNEXT, "vision_cfg", timm_pol="avg"), "'timm_pol'; did you mean 'timm_pool'"),
        (changed(CONVNEXT, "vision_cfg", timm_model_kwargs=[]), "timm_model_kwargs: .*a table of settings"),
        (changed(VIT, "text_cfg", output_tokens=True), "output_tokens: only a captioning decoder reads them"),
        ({**VIT, "multimodal_cfg": {}}, "multimodal_cfg: a captioning decoder"),
    ],
)  # fmt: skip
def test_invalid_or_uncounted_setting_raises_and_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(name="wrong", config=config)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (changed(VIT, "vision_cfg", qk_norm=True), "vision_cfg.qk_norm has no closed form"),
        (changed(VIT, "vision_cfg", pool_type="map"), "pool_type: found 'map'; closed forms: 'tok', 'avg'"),
        (changed(VIT, "text_cfg", hf_model_name="roberta-base"), "text_cfg.hf_model_name has no closed form"),
        (changed(CONVNEXT, "vision_cfg", timm_model_name="vitamin_base_224"), "vitamin_base_224"),
    ],
)
def test_model_without_closed_form_needs_a_count(config: dict[str, Any], why: str) -> None:
    architecture = Architecture(name="counted", config=config)

    assert not architecture.closed_form
    assert why in architecture.why_counted
    with pytest.raises(Uncounted, match="torch has not counted the model on this machine yet"):
        architecture.image_tower(1.0)


def test_every_configuration_of_open_clip_is_in_closed_form_or_countable_or_refused_with_the_reason() -> None:
    forms, refused = [], {}
    for name in open_clip_configs():
        try:
            forms.append(load_architecture(name).closed_form)
        except ValueError as error:
            refused[name] = str(error)

    assert len(forms) + len(refused) >= 144
    assert sum(forms) >= 55
    assert set(refused) == {"coca_ViT-B-32", "coca_ViT-L-14", "coca_base", "coca_roberta-ViT-B-32"}
    assert all("a captioning decoder (CoCa), which no strategy trains" in text for text in refused.values())


def test_model_of_the_catalogue_without_closed_form_has_a_shipped_count_under_any_name(
    tmp_path: Path,
) -> None:
    for name in catalogue():
        shipped = load_architecture(name)
        (tmp_path / "mine.json").write_text(json.dumps(shipped.config, indent=2))
        mine = Architecture(name="mine", config=json.loads((tmp_path / "mine.json").read_text()))

        assert shipped.closed_form == (shipped_count(shipped.config) is None)
        assert mine.image_tower(1.0) == shipped.image_tower(1.0)


def test_only_a_vit_can_drop_patches() -> None:
    vit, resnet = load_architecture("ViT-B-32"), load_architecture("RN50")

    assert vit.image_tower(0.5).trunk.macs < vit.image_tower(1.0).trunk.macs
    assert vit.image_tower(0.5).trunk.parameters == vit.image_tower(1.0).trunk.parameters
    with pytest.raises(ValueError, match="patch dropout needs a ViT; RN50 is a resnet"):
        resnet.image_tower(0.5)


def test_pickled_architecture_is_equal_in_another_process() -> None:
    architecture = load_architecture("mini-ConvNeXt")

    copied = pickle.loads(pickle.dumps(architecture))  # noqa: S301 - our own bytes

    assert copied == architecture
    assert hash(copied) == hash(architecture)
    assert load_architecture("mini-ConvNeXt") is architecture
