"""Towers that open_clip defines itself: its ViT, its text transformer and CLIP's ResNet.

Configs are complete ``vision_cfg`` and ``text_cfg``, see `budgets.cost.model_config`; ``embed_dim`` is the
width of the shared embedding.
"""

from collections.abc import Mapping
from typing import Any

from budgets.cost.layers import ImageTower, TowerCost, attention, convolution, linear, mlp, norm

_RESNET_EXPANSION = 4


def kept_patches(config: Mapping[str, Any], kept_fraction: float) -> int:
    """Number of patches that pass through the transformer with patch dropout (FLIP, Li et al. 2023).

    open_clip rounds down and keeps at least one.
    """
    patches = int(config["image_size"] // config["patch_size"]) ** 2
    # open_clip takes the share to drop and computes 1 - share; the same floating-point rounding is needed.
    return max(1, int(patches * (1 - (1 - kept_fraction))))


def vit_tower(config: Mapping[str, Any], embed_dim: int, kept_fraction: float) -> ImageTower:
    """Cost of a ViT (Dosovitskiy et al. 2021): all patches embedded, class token and kept ones transformed.

    Pooling by class token or by average costs the same.
    """
    patch, width = config["patch_size"], config["width"]
    patches = kept_patches(config, 1)
    block = _transformer_block(config, kept_patches(config, kept_fraction) + 1)
    trunk = (
        linear(patches, 3 * patch * patch, width, bias=False)
        + TowerCost(0, width + (patches + 1) * width)  # class token and positions
        + norm(width) * (not config["no_ln_pre"])
        + block * config["layers"]
        + norm(width)
    )
    return ImageTower(trunk=trunk, projection=linear(1, width, embed_dim, bias=False), width=width)


def _transformer_block(config: Mapping[str, Any], tokens: int) -> TowerCost:
    """open_clip's pre-norm block: 12 tokens width² + 2 tokens² width MACs if the MLP is four widths wide."""
    width, layer_scale = config["width"], config["ls_init_value"] is not None
    return (
        norm(width) * 2
        + linear(tokens, width, 3 * width)
        + attention(tokens, tokens, width)
        + linear(tokens, width, width)
        + mlp(tokens, width, int(width * config["mlp_ratio"]), width)
        + TowerCost(0, 2 * width * layer_scale)
    )


def text_tower(config: Mapping[str, Any], embed_dim: int, tokens: int) -> TowerCost:
    """Cost of the transformer on all tokens, padding included, and of the projection of one pooled token.

    ``tokens`` is the length in training; the parameters are always those of the full context.
    """
    width = config["width"]
    embeddings = (config["vocab_size"] + config["context_length"]) * width
    return (
        TowerCost(0, embeddings)
        + _transformer_block(config, tokens) * int(config["layers"])
        + norm(width)
        + linear(1, width, embed_dim, bias=config["proj_bias"])
    )


def resnet_tower(config: Mapping[str, Any], embed_dim: int) -> ImageTower:
    """Cost of CLIP's ResNet (Radford et al. 2021, section 2.4): stem, four stages, attention pooling.

    ``layers`` of the config has the number of blocks of each stage. The pooling includes the projection, so
    the tower's width is that of the embedding.
    """
    width = config["width"]
    side = config["image_size"] // 2  # the first convolution has stride 2
    trunk = (
        convolution(side, 3, width // 2, 3, bias=False)
        + convolution(side, width // 2, width // 2, 3, bias=False)
        + convolution(side, width // 2, width, 3, bias=False)
        + norm(width // 2) * 2
        + norm(width)
    )
    side //= 2
    channels = width
    for stage, blocks in enumerate(config["layers"]):
        planes = width * 2**stage
        stride = 1 if stage == 0 else 2
        trunk += _bottleneck(side, channels, planes, stride)
        side //= stride
        channels = planes * _RESNET_EXPANSION
        trunk += _bottleneck(side, channels, planes, 1) * (blocks - 1)
    trunk += _attention_pool(side, channels, embed_dim)
    return ImageTower(trunk=trunk, projection=TowerCost(), width=embed_dim)


def _bottleneck(side: int, inputs: int, planes: int, stride: int) -> TowerCost:
    """Convolutions of kernel 1, 3, 1; a stride is average pooling before the last one and in the shortcut."""
    outputs = planes * _RESNET_EXPANSION
    shortcut = stride > 1 or inputs != outputs
    return (
        convolution(side, inputs, planes, 1, bias=False)
        + convolution(side, planes, planes, 3, bias=False)
        + convolution(side // stride, planes, outputs, 1, bias=False)
        + (convolution(side // stride, inputs, outputs, 1, bias=False) + norm(outputs)) * shortcut
        + norm(planes) * 2
        + norm(outputs)
    )


def _attention_pool(side: int, width: int, embed_dim: int) -> TowerCost:
    """Attention over all positions and their mean; every output is computed, only the mean's is used."""
    tokens = side * side + 1
    return (
        TowerCost(0, tokens * width)
        + linear(tokens, width, width) * 3
        + attention(tokens, tokens, width)
        + linear(tokens, width, embed_dim)
    )
