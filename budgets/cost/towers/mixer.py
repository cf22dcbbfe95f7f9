"""timm's MLP-Mixer (Tolstikhin et al. 2021)."""

from collections.abc import Mapping
from typing import Any

from budgets.cost.towers.count import ImageTower, linear, mlp, norm, timm_projection

MODELS: Mapping[str, Mapping[str, Any]] = {
    f"mixer_{size}{patch}_224": {
        "embed_dim": width,
        "num_blocks": blocks,
        "patch_size": patch,
        "img_size": 224,
    }
    for size, width, blocks in (("s", 512, 8), ("b", 768, 12), ("l", 1024, 24))
    for patch in (16, 32)
}

FIXED = frozenset({"embed_dim", "num_blocks", "patch_size"})
"""Settings that timm's entry of a Mixer passes itself, so that they cannot be given."""


def image_tower(config: Mapping[str, Any], embed_dim: int) -> ImageTower:
    """Cost of the patch embedding and the blocks.

    A block has an MLP over the patches (hidden size width / 2) and one over the channels (4 x width).

    ``config`` is a complete ``vision_cfg``, including ``timm_model_kwargs``.
    """
    model = config["timm_model_kwargs"]
    patch, width = model["patch_size"], model["embed_dim"]
    patches = (config["image_size"] // patch) ** 2
    block = norm(width) * 2 + mlp(width, patches, width // 2, patches) + mlp(patches, width, 4 * width, width)
    trunk = linear(patches, 3 * patch * patch, width) + block * model["num_blocks"] + norm(width)
    return ImageTower(trunk=trunk, projection=timm_projection(config, width, embed_dim), width=width)
