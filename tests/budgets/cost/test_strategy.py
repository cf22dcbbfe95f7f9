"""Views and tokens that training strategies run per sample, and the architectures they support."""

from pathlib import Path

import pytest

from budgets.cost.architecture import load_architecture
from budgets.cost.flops import sample_cost
from budgets.cost.strategy import Strategy, find_strategy, strategies


def test_clip_sees_one_whole_image_and_one_whole_text() -> None:
    clip = find_strategy("clip")

    assert (clip.image_views, clip.text_views, clip.kept_fraction, clip.text_fraction) == (1, 1, 1, 1)
    assert clip.batch_factor == 1


@pytest.mark.parametrize(
    "name", ["clip-crop-flip", "clip-random-crop", "clip-randaugment", "clip-stacked-randaugment"]
)
def test_augmentation_adds_no_flops(name: str) -> None:
    architecture = load_architecture("paper-ViT-B-32")

    plain = sample_cost(architecture, find_strategy("clip"), batch_size=16_384)
    assert sample_cost(architecture, find_strategy(name), batch_size=16_384) == plain


@pytest.mark.parametrize(("name", "fraction", "factor"), [("flip-50", 0.5, 2), ("flip-25", 0.25, 4)])
def test_flip_grows_the_batch_by_the_share_it_masks(name: str, fraction: float, factor: int) -> None:
    flip = find_strategy(name)

    assert (flip.kept_fraction, flip.batch_factor) == (fraction, factor)
    assert fraction * factor == 1


def test_slip_costs_about_twice_as_much_as_clip_on_a_vit_b_with_a_text_tower_of_its_size() -> None:
    architecture = load_architecture("paper-ViT-B-32")

    clip = sample_cost(architecture, find_strategy("clip"), batch_size=4096)
    slip = sample_cost(architecture, find_strategy("slip"), batch_size=4096)
    # "about 2x" in Li, Xie and Cubuk 2024, section 7; a text tower of 16 tokens makes it more.
    assert 2 < slip.train_flops / clip.train_flops < 2.6


def test_clipa_keeps_fewer_tokens_of_both() -> None:
    clipa = find_strategy("clipa")

    assert clipa.kept_fraction < 1
    assert clipa.text_tokens(77) == 38
    assert clipa.text_tokens(16) == 8


def test_clipa_on_smaller_images_trains_on_half_the_side_in_whole_patches() -> None:
    sides = {"ViT-B-16": 112, "ViT-L-14": 112, "ViT-B-32": 128, "mini-ViT-XS-8": 16}
    resized = find_strategy("clipa-resize")

    for name, side in sides.items():
        architecture = load_architecture(name)
        assert architecture.smaller(resized.image_fraction).costs.image_size == side
    # 50 of 197 tokens; embedding the patches and attention cost less than in proportion.
    whole, small = (
        sample_cost(load_architecture("ViT-B-16"), how, batch_size=64) for how in (resized.unmasked, resized)
    )
    assert whole == sample_cost(load_architecture("ViT-B-16"), find_strategy("clip"), batch_size=64)
    assert 0.24 < small.image_macs / whole.image_macs < 0.26
    for name in ("mini-ConvNeXt", "RN50", "EVA02-B-16"):
        reason = resized.inapplicable(load_architecture(name))
        assert reason is not None
        assert name in reason


def test_a_number_in_the_body_of_a_class_is_refused_since_its_instances_would_not_have_it() -> None:
    with pytest.raises(TypeError, match=r"Masked\.kept_fraction: give it to the instance"):
        type("Masked", (Strategy,), {"kept_fraction": 0.5})


def test_an_installed_package_brings_its_strategies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_losses.py").write_text(
        "from runners.strategies.clip import Clip\nSTRATEGIES = (Clip(name='mine', batch_factor=2),)\n"
    )
    installed = tmp_path / "my_losses-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-losses\nVersion: 1\n")
    points = "[scaling_study.strategies]\nlosses = my_losses\n"
    (installed / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    strategies.cache_clear()
    try:
        assert find_strategy("mine").batch_factor == 2
        assert find_strategy("clip").batch_factor == 1
        for wrong, message in (
            ("none_such", "none_such: .* cannot be loaded"),
            ("runners.strategies.flip", "flip-50 is there"),
        ):
            (installed / "entry_points.txt").write_text(points.replace("my_losses", wrong))
            strategies.cache_clear()
            with pytest.raises(ValueError, match=message):
                strategies()
    finally:
        monkeypatch.undo()
        strategies.cache_clear()


def test_unknown_strategy_raises_with_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'flip-50'"):
        find_strategy("flip50")


@pytest.mark.parametrize("name", ["flip-50", "flip-25", "clipa"])
@pytest.mark.parametrize("architecture", ["mini-ConvNeXt", "RN50", "Swin-T", "Mixer-B-32"])
def test_patch_dropout_needs_a_vit(name: str, architecture: str) -> None:
    reason = find_strategy(name).inapplicable(load_architecture(architecture))

    assert reason is not None
    assert reason.startswith(f"patch dropout needs a ViT, but {architecture} is a ")
    assert find_strategy(name).inapplicable(load_architecture("ViT-B-32")) is None


def test_strategies_without_masking_apply_to_any_architecture() -> None:
    whole = [strategy for strategy in strategies().values() if not strategy.masks]

    for architecture in ("mini-ViT-XXS-8", "mini-ConvNeXt", "mini-RN", "Swin-T", "Mixer-B-32"):
        assert all(strategy.inapplicable(load_architecture(architecture)) is None for strategy in whole)
    assert {"clip", "clip-crop-flip", "slip", "siglip"} <= {strategy.name for strategy in whole}
