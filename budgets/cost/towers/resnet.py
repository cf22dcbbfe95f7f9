"""CLIP's ResNet (Radford et al. 2021, section 2.4) with its stem, pooled strides, attention pooling."""

from collections.abc import Mapping
from typing import Any

from budgets.cost.towers.count import ImageTower, TowerCost, attention, convolution, linear, norm

_EXPANSION = 4


def image_tower(config: Mapping[str, Any], embed_dim: int) -> ImageTower:
    """Cost of the stem, four stages of bottlenecks, and attention pooling, which includes the projection.

    Args:
        config: A complete ``vision_cfg``; ``layers`` holds the number of blocks of each stage.
        embed_dim: Width of the shared embedding.

    Returns:
        The tower; its ``width`` is that of the embedding.
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
        channels = planes * _EXPANSION
        trunk += _bottleneck(side, channels, planes, 1) * (blocks - 1)
    trunk += _attention_pool(side, channels, embed_dim)
    return ImageTower(trunk=trunk, projection=TowerCost(), width=embed_dim)


def _bottleneck(side: int, inputs: int, planes: int, stride: int) -> TowerCost:
    """Convolutions of kernel 1, 3, 1; a stride is average pooling before the last one and in the shortcut."""
    outputs = planes * _EXPANSION
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
