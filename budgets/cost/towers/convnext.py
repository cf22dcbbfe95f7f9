"""timm's ConvNeXt (Liu et al. 2022)."""

from collections.abc import Mapping
from typing import Any

from budgets.cost.towers.count import (
    ImageTower,
    TowerCost,
    convolution,
    depthwise_convolution,
    linear,
    mlp,
    norm,
    timm_projection,
)

MODELS: Mapping[str, Mapping[str, Any]] = {
    "convnext_atto": {"depths": (2, 2, 6, 2), "dims": (40, 80, 160, 320), "patch_size": 4},
    "convnext_femto": {"depths": (2, 2, 6, 2), "dims": (48, 96, 192, 384), "patch_size": 4},
    "convnext_pico": {"depths": (2, 2, 6, 2), "dims": (64, 128, 256, 512), "patch_size": 4},
    "convnext_nano": {"depths": (2, 2, 8, 2), "dims": (80, 160, 320, 640), "patch_size": 4},
    "convnext_tiny": {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768), "patch_size": 4},
    "convnext_small": {"depths": (3, 3, 27, 3), "dims": (96, 192, 384, 768), "patch_size": 4},
    "convnext_base": {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024), "patch_size": 4},
    "convnext_large": {"depths": (3, 3, 27, 3), "dims": (192, 384, 768, 1536), "patch_size": 4},
    "convnext_xlarge": {"depths": (3, 3, 27, 3), "dims": (256, 512, 1024, 2048), "patch_size": 4},
    "convnext_xxlarge": {"depths": (3, 4, 30, 3), "dims": (384, 768, 1536, 3072), "patch_size": 4},
}
STEMS = (2, 4)  # patch sizes of the stem for which timm keeps an output stride of 32 or less
SMALLEST_IMAGE = 32
_KERNEL = 7


def image_tower(config: Mapping[str, Any], embed_dim: int) -> ImageTower:
    """Cost of the patch stem, four stages, pooling and norm.

    Each stage halves the side; the first one only after a stem of patch size 2.

    ``config`` is a complete ``vision_cfg``, including ``timm_model_kwargs``.
    """
    model = config["timm_model_kwargs"]
    dims, patch = model["dims"], model["patch_size"]
    side = config["image_size"] // patch
    trunk = linear(side * side, 3 * patch * patch, dims[0]) + norm(dims[0])
    inputs = dims[0]
    for stage, (width, depth) in enumerate(zip(dims, model["depths"], strict=True)):
        if stage > 0 or patch == 2:  # noqa: PLR2004 - timm's own rule
            side //= 2
            trunk += norm(inputs) + convolution(side, inputs, width, 2, bias=True)
        trunk += _block(side, width) * depth
        inputs = width
    trunk += norm(inputs)
    return ImageTower(trunk=trunk, projection=timm_projection(config, inputs, embed_dim), width=inputs)


def _block(side: int, width: int) -> TowerCost:
    """Cost of a depthwise convolution, norm, MLP of hidden width 4 x width, and layer scale."""
    return (
        depthwise_convolution(side, width, _KERNEL)
        + norm(width)
        + mlp(side * side, width, 4 * width, width)
        + TowerCost(0, width)
    )
