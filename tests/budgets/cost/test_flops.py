"""FLOPs per sample, with numbers that can be checked by hand."""

import subprocess
import sys
from itertools import pairwise

import pytest

from budgets.cost.architecture import Architecture, catalogue, load_architecture
from budgets.cost.flops import (
    CONVENTION,
    count_parameters,
    image_forward_macs,
    sample_cost,
    text_forward_macs,
)
from budgets.cost.strategy import find_strategy, strategies
from runners.strategies.slip import head_dims
from tests.root import ROOT


def test_a_vit_costs_its_patches_its_blocks_and_its_projection() -> None:
    # 49 patches of 32 x 32 x 3 values, 50 tokens through 12 blocks of width 768, one token projected to 512.
    patches = 49 * 3 * 32 * 32 * 768
    blocks = 12 * (12 * 768 * 768 * 50 + 2 * 50 * 50 * 768)

    assert image_forward_macs(load_architecture("ViT-B-32")) == patches + blocks + 768 * 512


def test_a_text_tower_costs_its_blocks_and_one_projected_token() -> None:
    blocks = 12 * (12 * 512 * 512 * 77 + 2 * 77 * 77 * 512)

    assert text_forward_macs(load_architecture("ViT-B-32")) == blocks + 512 * 512


@pytest.mark.parametrize(("name", "kept_patches"), [("clip", 196), ("flip-50", 98), ("flip-25", 49)])
def test_patch_dropout_keeps_the_class_token_and_embeds_every_patch(name: str, kept_patches: int) -> None:
    cost = sample_cost(load_architecture("ViT-B-16"), find_strategy(name), batch_size=1)

    tokens = kept_patches + 1
    patches = 196 * 3 * 16 * 16 * 768
    blocks = 12 * (12 * 768 * 768 * tokens + 2 * tokens * tokens * 768)
    assert cost.image_macs == patches + blocks + 768 * 512


@pytest.mark.parametrize(("name", "gflops"), [("clip", 41.086), ("flip-50", 23.370), ("flip-25", 14.777)])
def test_both_towers_of_a_vit_b_16_with_patch_dropout(name: str, gflops: float) -> None:
    cost = sample_cost(load_architecture("ViT-B-16"), find_strategy(name), batch_size=1)

    assert 2e-9 * (cost.image_macs + cost.text_macs) == pytest.approx(gflops, abs=0.0005)


def test_the_similarity_matrix_costs_a_batch_of_embeddings_in_each_direction() -> None:
    architecture = load_architecture("ViT-B-32")

    assert sample_cost(architecture, find_strategy("clip"), batch_size=4096).similarity_macs == 2 * 4096 * 512
    assert sample_cost(architecture, find_strategy("siglip"), batch_size=4096).similarity_macs == 4096 * 512


def test_slip_s_views_go_through_the_trunk_and_its_head_and_are_compared_among_themselves() -> None:
    architecture = load_architecture("ViT-B-32")
    clip = sample_cost(architecture, find_strategy("clip"), batch_size=4096)
    slip = sample_cost(architecture, find_strategy("slip"), batch_size=4096)

    projection = 768 * 512
    assert slip.image_macs == 3 * (clip.image_macs - projection) + projection
    assert slip.text_macs == clip.text_macs
    assert slip.head_macs == 2 * (768 * 4096 + 4096 * 4096 + 4096 * 256)
    assert slip.similarity_macs == clip.similarity_macs + 2 * 2 * 4096 * 256


def test_slip_s_head_is_the_paper_s_on_a_vit_b_and_scales_with_the_tower() -> None:
    assert head_dims(load_architecture("paper-ViT-B-32")) == (768, 4096, 256)
    assert head_dims(load_architecture("ViT-L-16")) == (1024, 5456, 341)
    assert head_dims(load_architecture("mini-ViT-XS-8")) == (48, 256, 64)


def test_clipa_runs_shorter_texts() -> None:
    architecture = load_architecture("paper-ViT-B-32")

    blocks = 12 * (12 * 768 * 768 * 8 + 2 * 8 * 8 * 768)
    assert sample_cost(architecture, find_strategy("clipa"), batch_size=1).text_macs == blocks + 768 * 768


def test_training_costs_six_flops_a_multiply_accumulate() -> None:
    cost = sample_cost(load_architecture("mini-ViT-S-8"), find_strategy("slip"), batch_size=64)

    assert cost.forward_macs == cost.image_macs + cost.text_macs + cost.head_macs + cost.similarity_macs
    assert cost.train_flops == 6 * cost.forward_macs


def test_the_small_ladder_climbs_in_steps_that_bracket_a_minimum() -> None:
    sizes = ("XXS", "XS", "S", "M")
    costs = [
        sample_cost(load_architecture(f"mini-ViT-{size}-8"), find_strategy("clip"), batch_size=64).train_flops
        for size in sizes
    ]

    assert all(1.8 < larger / smaller < 3 for smaller, larger in pairwise(costs))


def test_every_count_is_a_whole_number() -> None:
    for name in catalogue():
        architecture = load_architecture(name)
        for strategy in strategies().values():
            if strategy.inapplicable(architecture) is None:
                cost = sample_cost(architecture, strategy, batch_size=64)
                size = count_parameters(architecture, strategy)
                assert type(cost.train_flops) is int
                assert type(size.total) is int
                assert size.total == size.image + size.text + size.head


def test_siglip_has_a_learned_bias_and_temperature() -> None:
    architecture = load_architecture("ViT-B-32")

    assert count_parameters(architecture, find_strategy("clip")).head == 1
    assert count_parameters(architecture, find_strategy("siglip")).head == 2


def test_patch_dropout_never_leaves_an_image_without_a_patch() -> None:
    config = {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 32, "patch_size": 32, "width": 64, "layers": 1},
        "text_cfg": {"context_length": 1},
    }
    one_patch = Architecture(name="one patch", config=config)

    assert sample_cost(one_patch, find_strategy("flip-25"), batch_size=1).image_macs == image_forward_macs(
        one_patch
    )
    assert sample_cost(one_patch, find_strategy("clipa"), batch_size=1).text_macs == text_forward_macs(
        one_patch
    )


def test_convention_states_what_is_counted_and_its_source() -> None:
    for words in ("3 x 2 x", "multiply-accumulates", "Not counted: norms, activations, biases", "Source:"):
        assert words in CONVENTION


def test_flop_counting_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, budgets.cost.flops as f, budgets.cost.architecture as a, budgets.cost.strategy as s;"
        "f.sample_cost(a.load_architecture('mini-ViT-S-8'), s.find_strategy('clip'), batch_size=64);"
        "print(sorted({'torch', 'ray', 'open_clip', 'timm', 'numpy', 'pandas'} & set(sys.modules)))"
    )

    command = [sys.executable, "-c", code]
    completed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)

    assert completed.stdout.strip() == "[]"
