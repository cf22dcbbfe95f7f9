"""open_clip's ViT (Dosovitskiy et al. 2021), with FLIP's patch dropout (Li et al. 2023)."""

from collections.abc import Mapping
from typing import Any

from budgets.cost.towers.count import ImageTower, TowerCost, linear, norm, transformer_block


def kept_patches(config: Mapping[str, Any], kept_fraction: float) -> int:
    """Number of patches that pass through the transformer; open_clip rounds down and keeps at least one.

    Args:
        config: A complete ``vision_cfg``.
        kept_fraction: Share of the patches that patch dropout keeps, in (0, 1].
    """
    patches = int(config["image_size"] // config["patch_size"]) ** 2
    if kept_fraction == 1:
        return patches
    # open_clip takes the share to drop and computes 1 - share; the same floating-point rounding is needed.
    return max(1, int(patches * (1 - (1 - kept_fraction))))


def image_tower(config: Mapping[str, Any], embed_dim: int, kept_fraction: float) -> ImageTower:
    """Cost of embedding every patch, then of the transformer on the class token and the kept patches.

    Args:
        config: A complete ``vision_cfg``.
        embed_dim: Width of the shared embedding.
        kept_fraction: Share of the patches that patch dropout keeps, in (0, 1].

    Returns:
        The tower; pooling by class token or by average costs the same.
    """
    patch, width = config["patch_size"], config["width"]
    patches = kept_patches(config, 1)
    block = transformer_block(
        kept_patches(config, kept_fraction) + 1,
        width,
        int(width * config["mlp_ratio"]),
        layer_scale=config["ls_init_value"] is not None,
    )
    trunk = (
        linear(patches, 3 * patch * patch, width, bias=False)
        + TowerCost(0, width + (patches + 1) * width)  # class token and positions
        + norm(width) * (not config["no_ln_pre"])
        + block * config["layers"]
        + norm(width)
    )
    return ImageTower(trunk=trunk, projection=linear(1, width, embed_dim, bias=False), width=width)
