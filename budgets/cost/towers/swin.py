"""timm's Swin transformer (Liu et al. 2021)."""

from collections.abc import Mapping
from typing import Any

from budgets.cost.towers.count import ImageTower, TowerCost, linear, mlp, norm, timm_projection


def _model(
    embed_dim: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int, image: int
) -> Mapping[str, Any]:
    return {
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": heads,
        "patch_size": 4,
        "window_size": window,
        "img_size": image,
    }


MODELS: Mapping[str, Mapping[str, Any]] = {
    "swin_tiny_patch4_window7_224": _model(96, (2, 2, 6, 2), (3, 6, 12, 24), 7, 224),
    "swin_small_patch4_window7_224": _model(96, (2, 2, 18, 2), (3, 6, 12, 24), 7, 224),
    "swin_base_patch4_window7_224": _model(128, (2, 2, 18, 2), (4, 8, 16, 32), 7, 224),
    "swin_base_patch4_window12_384": _model(128, (2, 2, 18, 2), (4, 8, 16, 32), 12, 384),
    "swin_large_patch4_window7_224": _model(192, (2, 2, 18, 2), (6, 12, 24, 48), 7, 224),
    "swin_large_patch4_window12_384": _model(192, (2, 2, 18, 2), (6, 12, 24, 48), 12, 384),
}


def image_tower(config: Mapping[str, Any], embed_dim: int) -> ImageTower:
    """Cost of the patch embedding, four stages (patch merging before all but the first), norm and pooling.

    ``config`` is a complete ``vision_cfg``, including ``timm_model_kwargs``.
    """
    model = config["timm_model_kwargs"]
    patch, width = model["patch_size"], model["embed_dim"]
    side = config["image_size"] // patch
    trunk = linear(side * side, 3 * patch * patch, width) + norm(width)
    for stage, (depth, heads) in enumerate(zip(model["depths"], model["num_heads"], strict=True)):
        if stage > 0:
            side = (side + 1) // 2
            trunk += norm(4 * width) + linear(side * side, 4 * width, 2 * width, bias=False)
            width *= 2
        trunk += _block(side, width, heads, min(side, model["window_size"])) * depth
    trunk += norm(width)
    return ImageTower(trunk=trunk, projection=timm_projection(config, width, embed_dim), width=width)


def _block(side: int, width: int, heads: int, window: int) -> TowerCost:
    """Windowed attention over a grid padded to whole windows (shifts cost nothing), then an unpadded MLP."""
    padded = -(-side // window) * window
    # Each position attends to the window² positions of its window: two products of as many MACs as the width.
    positions = padded * padded
    in_windows = 2 * positions * window * window * width
    position_bias = heads * (2 * window - 1) ** 2
    return (
        norm(width) * 2
        + linear(positions, width, 3 * width)
        + TowerCost(in_windows, position_bias)
        + linear(positions, width, width)
        + mlp(side * side, width, 4 * width, width)
    )
